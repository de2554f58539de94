/* Ctrl-C: the first ends cleanly with the statistics so far, the second ends the process. */
#ifndef SL_CLI_INTERRUPT_H
#define SL_CLI_INTERRUPT_H

#include <stdbool.h>

#include "sluice/sluice.h"

/* Catch SIGINT and SIGTERM once each; a later one has its usual effect. */
void sl_interrupt_install(void);
bool sl_interrupt_caught(void);
/* The session that a signal cancels from now on; NULL: none. It must be taken back before the session is closed. */
void sl_interrupt_watch(sluice_session *session);

#endif
