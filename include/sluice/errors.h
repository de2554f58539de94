/* Status values and the error sentence that every fallible Sluice call can fill in. */
#ifndef SLUICE_ERRORS_H
#define SLUICE_ERRORS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SLUICE_NODISCARD __attribute__((warn_unused_result))
#define SLUICE_API __attribute__((visibility("default")))
#else
#define SLUICE_NODISCARD
#define SLUICE_API
#endif

/* The numbers are part of the interface and never change. */
typedef enum sluice_status {
    SLUICE_OK = 0,
    SLUICE_ERROR_ARGUMENT = 1,    /* the caller passed something this call cannot accept */
    SLUICE_ERROR_NO_MEMORY = 2,   /* an allocation failed */
    SLUICE_ERROR_BUDGET = 3,      /* it cannot fit in the memory budget */
    SLUICE_ERROR_IO = 4,          /* reading or writing a file failed */
    SLUICE_ERROR_FORMAT = 5,      /* a file is damaged or contradicts itself */
    SLUICE_ERROR_UNSUPPORTED = 6, /* a valid file or request that this build cannot handle */
    SLUICE_ERROR_NOT_FOUND = 7,   /* a file, key, tensor or name does not exist */
    SLUICE_ERROR_CANCELLED = 8,   /* the caller asked to stop */
    SLUICE_ERROR_SYSTEM = 9,      /* the operating system refused a thread or another resource */
    SLUICE_ERROR_CHANGED = 10     /* a file shrank or was replaced while it was in use */
} sluice_status;

/* What went wrong, as one sentence: what, where, expected, found, what to do. Plain data; copy it freely. */
typedef struct sluice_error {
    sluice_status status;
    int system_errno;   /* errno of the failed system call, or 0 */
    char message[1024]; /* NUL-terminated UTF-8, no trailing newline */
} sluice_error;

/* The name of a status, such as "budget". Never NULL; valid forever. Safe from any thread. */
SLUICE_API const char *sluice_status_name(sluice_status status);

#ifdef __cplusplus
}
#endif
#endif
