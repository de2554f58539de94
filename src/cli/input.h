/* Texts that the user gives: as an option, in a file, on standard input. */
#ifndef SL_CLI_INPUT_H
#define SL_CLI_INPUT_H

#include "base/options.h"
#include "cli/console.h"

/* Append the whole file, or standard input for "-". */
SLUICE_NODISCARD sluice_status sl_input_read_file(sl_text *text, const char *path, sluice_error *error);

/* The text of --prompt, --file or standard input. SLUICE_ERROR_ARGUMENT when there is none because standard input is a
 * terminal. */
SLUICE_NODISCARD sluice_status sl_input_read(sl_text *text, const sl_options *options, sluice_error *error);

#endif
