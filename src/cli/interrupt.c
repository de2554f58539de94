/* Owns the program's signal handlers. A handler can reach nothing but static storage, so the two variables below are
 * the only ones of their kind in the program. Invariant: the watched session is open.
 *
 * Threads: the handler may run on any thread; it does no more than set a flag and call sluice_session_cancel, which is
 * safe from a handler. */
#include "cli/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

static _Atomic bool caught;
static sluice_session *_Atomic watched; /* borrowed */

static void on_signal(int number)
{
    (void)number;
    atomic_store(&caught, true);
    sluice_session *session = atomic_load(&watched);
    if (session != NULL) {
        sluice_session_cancel(session);
    }
}

void sl_interrupt_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    /* No SA_RESTART: a read that waits for the user must return. */
    action.sa_flags = (int)SA_RESETHAND;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool sl_interrupt_caught(void)
{
    return atomic_load(&caught);
}

void sl_interrupt_watch(sluice_session *session)
{
    atomic_store(&watched, session);
    if (session != NULL && sl_interrupt_caught()) {
        sluice_session_cancel(session);
    }
}
