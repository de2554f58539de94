/* Runs every test of a file twice: with the read threads, and with the io_uring. Where the system has no io_uring to
 * give, the second run is skipped with the reason. Include after cmocka.h. */
#ifndef TESTS_UNIT_READS_KINDS_H
#define TESTS_UNIT_READS_KINDS_H

#include <stdio.h>
#include <stdlib.h>

#include "io/reads.h"

/* What the running test is to read with. */
static sl_reads_kind tested_kind = SL_READS_PREAD;
static CMFixtureFunction tests_own_set_up;

static inline int set_up_kind(void **state)
{
    const sl_reads_kind *kind = *state;
    tested_kind = *kind;
    *state = NULL;
    return tests_own_set_up == NULL ? 0 : tests_own_set_up(state);
}

static inline void io_uring_is_missing(void **state)
{
    sluice_error error = {0};
    (void)state;
    if (sl_reads_choose(&(sl_reads_kind){SL_READS_URING}, &error) != SLUICE_OK) {
        print_message("%s\n", error.message);
    }
    skip();
}

/* The tests of a file must share one set-up function, or have none. */
static inline int run_with_both_kinds(const struct CMUnitTest *tests, size_t n_tests)
{
    static const sl_reads_kind kinds[] = {SL_READS_PREAD, SL_READS_URING};
    static const char *const suffixes[] = {"_with_pread", "_with_uring"};
    enum { NAME_BYTES = 128 };
    struct CMUnitTest *all = calloc(2 * n_tests, sizeof *all);
    char(*names)[NAME_BYTES] = calloc(2 * n_tests, sizeof *names);
    if (all == NULL || names == NULL) {
        return 1;
    }
    bool has_uring = sl_reads_choose(&(sl_reads_kind){SL_READS_URING}, &(sluice_error){0}) == SLUICE_OK;
    tests_own_set_up = tests[0].setup_func;
    for (size_t i_test = 0; i_test < 2 * n_tests; i_test++) {
        size_t i_kind = i_test / n_tests;
        const struct CMUnitTest *test = &tests[i_test % n_tests];
        snprintf(names[i_test], sizeof names[i_test], "%s%s", test->name, suffixes[i_kind]);
        all[i_test] = *test;
        all[i_test].name = names[i_test];
        all[i_test].setup_func = set_up_kind;
        all[i_test].initial_state = (void *)(uintptr_t)&kinds[i_kind];
        if (kinds[i_kind] == SL_READS_URING && !has_uring) {
            all[i_test] = (struct CMUnitTest){.name = names[i_test], .test_func = io_uring_is_missing};
        }
    }
    int n_failed = _cmocka_run_group_tests("both kinds", all, 2 * n_tests, NULL, NULL);
    free(names);
    free(all);
    return n_failed;
}

#define RUN_WITH_BOTH_KINDS(tests) run_with_both_kinds(tests, sizeof(tests) / sizeof(tests)[0])

#endif
