/* How many mutexes were locked. For a test that is linked with --wrap=pthread_mutex_lock. */
#ifndef TESTS_SUPPORT_COUNTING_LOCKS_H
#define TESTS_SUPPORT_COUNTING_LOCKS_H

#include <pthread.h>
#include <stdatomic.h>

static atomic_ulong n_locks;

int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    atomic_fetch_add(&n_locks, 1);
    return __real_pthread_mutex_lock(mutex);
}

#endif
