/* The program: finds the command and hands it its options. Owns the console. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/options.h"
#include "cli/interrupt.h"
#include "cli/model_run.h"

static int (*const commands[])(const sl_options *options, sl_console *console) = {
    [SL_COMMAND_RUN] = sl_command_run,           [SL_COMMAND_BENCH] = sl_command_bench,
    [SL_COMMAND_INSPECT] = sl_command_inspect,   [SL_COMMAND_TOKENIZE] = sl_command_tokenize,
    [SL_COMMAND_LOGITS] = sl_command_logits,     [SL_COMMAND_PERPLEXITY] = sl_command_perplexity,
    [SL_COMMAND_QUANTIZE] = sl_command_quantize,
};
_Static_assert(sizeof commands / sizeof commands[0] == SL_COMMAND_COUNT, "every command has its function");

/* A closed standard descriptor would be taken by the next file that is opened, and results would go into it. Standard
 * output becomes read-only, so that writing to it is the error that it is. */
static void keep_standard_descriptors(void)
{
    for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; descriptor++) {
        if (fcntl(descriptor, F_GETFD) == -1 && errno == EBADF) {
            (void)open("/dev/null", descriptor == STDERR_FILENO ? O_WRONLY : O_RDONLY);
        }
    }
}

static int print_help(sl_console *console, bool of_command, sl_command command)
{
    sl_text text;
    sl_text_init(&text, &console->memory, SL_MEMORY_OTHER);
    bool done = of_command ? sl_options_help(&text, command) : sl_options_overview(&text);
    if (done) {
        sl_console_print(console, "%s", text.data);
    } else {
        sl_console_say("out of memory");
    }
    sl_text_fini(&text);
    return done ? SL_EXIT_OK : SL_EXIT_FAILURE;
}

static int run_command(const char *name, int n_arguments, char *const *arguments, sl_console *console)
{
    sluice_error error = {0};
    sl_command command;
    if (sl_command_find(name, &command, &error) != SLUICE_OK) {
        sl_console_say("%s", error.message);
        return SL_EXIT_USAGE;
    }
    sl_options options;
    if (sl_options_parse(&options, command, n_arguments, arguments, environ, &error) != SLUICE_OK) {
        sl_console_say("%s\nsluice %s --help explains the options", error.message, sl_command_name(command));
        return SL_EXIT_USAGE;
    }
    if (sl_options_flag(&options, SL_OPTION_HELP)) {
        return print_help(console, true, command);
    }
    return commands[command](&options, console);
}

int main(int n_words, char **words)
{
    keep_standard_descriptors();
    /* A closed pipe is an error of the write, with a sentence. */
    (void)signal(SIGPIPE, SIG_IGN);
    sl_interrupt_install();
    sl_console console;
    sl_console_init(&console);
    int exit_status;
    if (n_words < 2 || strcmp(words[1], "--help") == 0 || strcmp(words[1], "-h") == 0) {
        exit_status = print_help(&console, false, SL_COMMAND_RUN);
    } else if (strcmp(words[1], "--version") == 0) {
        sl_console_print(&console, "sluice %s\n", sluice_version());
        exit_status = SL_EXIT_OK;
    } else if (words[1][0] == '-') {
        sl_console_say("an option before the command: \"%.200s\"; write the command first, as in sluice run %.200s",
                       words[1], words[1]);
        exit_status = SL_EXIT_USAGE;
    } else {
        exit_status = run_command(words[1], n_words - 2, words + 2, &console);
    }
    return sl_console_finish(&console, exit_status);
}
