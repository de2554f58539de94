/* Threads, mutexes and condition variables: pthreads with status values. */
#ifndef SL_OS_THREAD_H
#define SL_OS_THREAD_H

#include <pthread.h>

#include "base/error.h"

typedef struct sl_thread {
    pthread_t handle;
} sl_thread;

/* Start a thread named `name` (at most 15 bytes) with a small stack. SLUICE_ERROR_SYSTEM when the system refuses. */
SLUICE_NODISCARD sluice_status sl_thread_start(sl_thread *thread, const char *name, void *(*run)(void *argument),
                                               void *argument, sluice_error *error);
void sl_thread_join(sl_thread *thread);

/* Stack bytes of each thread started here: what a memory plan must count. With the address sanitizer every local of what
 * was inlined keeps a place of its own, so that frames are fifty times as large. */
#if defined(__SANITIZE_ADDRESS__)
enum { SL_THREAD_STACK_BYTES = 2 * 1024 * 1024 };
#else
enum { SL_THREAD_STACK_BYTES = 256 * 1024 };
#endif
/* What the kernel holds for a thread beside, and charges to its memory cgroup: measured at 25.4 KB on Linux 6.18. */
enum { SL_THREAD_KERNEL_BYTES = 26 * 1024 };

/* Tell the core that this is a spinning loop. */
static inline void sl_thread_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

#endif
