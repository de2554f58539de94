/* Owns nothing: stands in for uring.c in a build without liburing. Threads: any. */
#include <errno.h>

#include "io/backends.h"

sluice_status sl_reads_check_uring(sluice_error *error)
{
    return sl_error_set_system(error, SLUICE_ERROR_UNSUPPORTED, ENOSYS,
                               "this build has no io_uring; build it where liburing is installed, or use --io pread");
}

sluice_status sl_reads_open_uring(sl_reads *reads, const sl_reads_options *options, sl_memory *memory,
                                  const sl_log *log, void (*on_done)(void *user, sl_read *read), void *user,
                                  sluice_error *error)
{
    (void)reads, (void)options, (void)memory, (void)log, (void)on_done, (void)user;
    return sl_reads_check_uring(error);
}

sl_reads_cost sl_reads_uring_cost(const sl_reads_options *options)
{
    return sl_reads_pread_cost(options); /* only ever asked for AUTO, which falls back to that */
}
