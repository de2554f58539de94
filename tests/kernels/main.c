/* Tests of the kernels; with --bench, their speed on every instruction set of this machine. */
#include <stdio.h>
#include <string.h>

#include "support.h"

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--bench") == 0) {
        run_bench();
        return 0;
    }
    if (argc != 1) {
        fprintf(stderr, "usage: %s [--bench]\n", argv[0]);
        return 2;
    }
    int n_failed = run_matmul_tests();
    n_failed += run_row_tests();
    n_failed += run_attention_tests();
    n_failed += run_accuracy_tests();
    return n_failed == 0 ? 0 : 1;
}
