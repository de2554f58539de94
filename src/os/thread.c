/* Owns nothing: a wall around pthreads. All threads are joined; none is detached. */
#include "os/thread.h"

#include <string.h>

sluice_status sl_thread_start(sl_thread *thread, const char *name, void *(*run)(void *argument), void *argument,
                              sluice_error *error)
{
    pthread_attr_t attributes;
    int failed = pthread_attr_init(&attributes);
    if (failed == 0) {
        failed = pthread_attr_setstacksize(&attributes, SL_THREAD_STACK_BYTES);
        if (failed == 0) {
            failed = pthread_create(&thread->handle, &attributes, run, argument);
        }
        pthread_attr_destroy(&attributes);
    }
    if (failed != 0) {
        return sl_error_set_system(error, SLUICE_ERROR_SYSTEM, failed, "cannot start thread %s", name);
    }
    char short_name[16] = {0};
    strncpy(short_name, name, sizeof short_name - 1);
    pthread_setname_np(thread->handle, short_name);
    return SLUICE_OK;
}

void sl_thread_join(sl_thread *thread)
{
    pthread_join(thread->handle, NULL);
}
