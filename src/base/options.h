/* The option registry: one table of every command and option of the program. Parsing, help, environment names and
 * documentation come from it, so an option cannot be accepted in one place and unknown in another. */
#ifndef SL_BASE_OPTIONS_H
#define SL_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strings.h"

typedef enum sl_command {
    SL_COMMAND_RUN,
    SL_COMMAND_BENCH,
    SL_COMMAND_INSPECT,
    SL_COMMAND_TOKENIZE,
    SL_COMMAND_LOGITS,
    SL_COMMAND_PERPLEXITY,
    SL_COMMAND_QUANTIZE,
    SL_COMMAND_COUNT
} sl_command;

typedef enum sl_option_id {
    SL_OPTION_MODEL,
    SL_OPTION_PROMPT,
    SL_OPTION_FILE,
    SL_OPTION_TOKENS,
    SL_OPTION_IDS,
    SL_OPTION_DECODE,     /* flag: token by token */
    SL_OPTION_DECODE_IDS, /* of tokenize: ids to text */
    SL_OPTION_NO_BOS,
    SL_OPTION_NO_SPECIAL,
    SL_OPTION_MAX_TOKENS,
    SL_OPTION_PROMPT_TOKENS,
    SL_OPTION_GENERATED_TOKENS,
    SL_OPTION_REPETITIONS,
    SL_OPTION_TEMPERATURE,
    SL_OPTION_TOP_K,
    SL_OPTION_TOP_P,
    SL_OPTION_MIN_P,
    SL_OPTION_REPEAT_PENALTY,
    SL_OPTION_REPEAT_WINDOW,
    SL_OPTION_SEED,
    SL_OPTION_IGNORE_EOS,
    SL_OPTION_OUT,
    SL_OPTION_TENSOR,
    SL_OPTION_MEM,
    SL_OPTION_CONTEXT,
    SL_OPTION_CHUNK,
    SL_OPTION_KV,
    SL_OPTION_THREADS,
    SL_OPTION_CPU_MASK,
    SL_OPTION_IO,
    SL_OPTION_PREFETCH,
    SL_OPTION_POLICY,
    SL_OPTION_POLICY_TRACE,
    SL_OPTION_DUMP_GRAPH,
    SL_OPTION_RECORD_ROUTING,
    SL_OPTION_STATS,
    SL_OPTION_JSON,
    SL_OPTION_LOG_LEVEL,
    SL_OPTION_HELP,
    SL_OPTION_COUNT
} sl_option_id;

enum {
    SL_MAX_OPERANDS = 3,
    SL_MAX_LIST = 64 /* how often an option that may be repeated can be given */
};

typedef struct sl_option_value {
    bool given;       /* on the command line or in the environment */
    bool present;     /* given, or has a default: the members below hold a value */
    const char *text; /* borrowed from argv, the environment or the table */
    uint64_t integer; /* integers, sizes in bytes, and the index of a choice */
    double number;
} sl_option_value;

/* The typed values of one command line. Borrows from argv and the environment. thread: immutable after parsing. */
typedef struct sl_options {
    sl_command command;
    sl_option_value values[SL_OPTION_COUNT];
    const char *operands[SL_MAX_OPERANDS]; /* borrowed: arguments that belong to no option */
    uint32_t n_operands;
    const char *list[SL_MAX_LIST]; /* borrowed: values of the option that may be repeated, in order */
    uint32_t n_list;
} sl_options;

/* Parse what follows the command's name. `environment` (may be NULL) is a list of "NAME=value" ended by NULL: options
 * with an environment name take their value from there when argv does not give them, and a SLUICE_ name that no option
 * has is an error. With --help everything else is left unchecked. SLUICE_ERROR_ARGUMENT with a sentence. */
SLUICE_NODISCARD sluice_status sl_options_parse(sl_options *options, sl_command command, int n_arguments,
                                                char *const *arguments, char *const *environment, sluice_error *error);

bool sl_options_given(const sl_options *options, sl_option_id id);
bool sl_options_flag(const sl_options *options, sl_option_id id);
/* The value or the default; NULL, 0 where there is neither. */
const char *sl_options_text(const sl_options *options, sl_option_id id);
uint64_t sl_options_integer(const sl_options *options, sl_option_id id);
double sl_options_number(const sl_options *options, sl_option_id id);

/* "run" and so on. Never NULL; valid forever. */
const char *sl_command_name(sl_command command);
/* SLUICE_ERROR_ARGUMENT, with a suggestion where one is near, for a name that is no command. */
SLUICE_NODISCARD sluice_status sl_command_find(const char *name, sl_command *command, sluice_error *error);

/* Help as plain text of at most 100 columns: of the program, of one command. false when memory is refused. */
SLUICE_NODISCARD bool sl_options_overview(sl_text *text);
SLUICE_NODISCARD bool sl_options_help(sl_text *text, sl_command command);

/* Token ids separated by commas or blanks, as in "1,2,3". `ids` may be NULL to count. At most `capacity` are written;
 * `*n_ids` is the number in the text. false on anything that is no id. */
bool sl_parse_token_ids(const char *text, int32_t *ids, size_t capacity, size_t *n_ids);

#endif
