/* The rows of the option registry, shared by parsing and help. */
#ifndef SL_BASE_OPTIONS_TABLE_H
#define SL_BASE_OPTIONS_TABLE_H

#include "base/options.h"

typedef enum sl_option_type {
    SL_OPTION_TYPE_FLAG,    /* takes no value */
    SL_OPTION_TYPE_TEXT,    /* anything */
    SL_OPTION_TYPE_LIST,    /* anything, and may be repeated */
    SL_OPTION_TYPE_INTEGER, /* decimal, minimum to maximum */
    SL_OPTION_TYPE_NUMBER,  /* decimal fraction, lowest to highest */
    SL_OPTION_TYPE_SIZE,    /* bytes with an optional unit, minimum to maximum */
    SL_OPTION_TYPE_CHOICE,  /* one of `choices` */
    SL_OPTION_TYPE_IDS      /* token ids */
} sl_option_type;

typedef enum sl_option_group {
    SL_OPTION_GROUP_INPUT,
    SL_OPTION_GROUP_SAMPLING,
    SL_OPTION_GROUP_RESOURCES,
    SL_OPTION_GROUP_OUTPUT,
    SL_OPTION_GROUP_COUNT
} sl_option_group;

typedef struct sl_option_row {
    const char *name; /* long, without the dashes */
    char letter;      /* short, or NUL */
    sl_option_type type;
    sl_option_group group;
    uint32_t commands; /* bit per sl_command that takes it */
    uint32_t required; /* bit per sl_command that cannot do without */
    uint64_t minimum, maximum;
    double lowest, highest;
    const char *standard;    /* the default as one would type it, or NULL */
    const char *choices[7];  /* up to the first NULL */
    const char *word;        /* SIZE: may stand for 0, which is below the minimum; or NULL */
    const char *placeholder; /* in the help; choices print themselves */
    const char *help;        /* no capital, no full stop */
    const char *environment; /* name of the variable, or NULL */
} sl_option_row;

typedef struct sl_command_row {
    const char *name;
    const char *synopsis; /* after the name */
    const char *summary;  /* one line */
    const char *details;  /* paragraphs separated by newlines */
    const char *example;
    const char *operands[SL_MAX_OPERANDS]; /* required, in order, up to the first NULL */
} sl_command_row;

extern const sl_option_row sl_option_table[SL_OPTION_COUNT];
extern const sl_command_row sl_command_table[SL_COMMAND_COUNT];

/* Two options that exclude each other. */
typedef struct sl_option_conflict {
    sl_option_id first, second;
} sl_option_conflict;
extern const sl_option_conflict sl_option_conflicts[];
extern const size_t sl_option_n_conflicts;

static inline bool sl_option_belongs(const sl_option_row *row, sl_command command)
{
    return (row->commands >> command & 1U) != 0;
}

#endif
