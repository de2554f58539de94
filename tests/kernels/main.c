/* Tests of the kernels; with --bench, their speed on every instruction set of this machine, or only the products with the
 * weights whose name begins with NAME; with --bandwidth, how fast its memory is read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

int main(int argc, char **argv)
{
    if ((argc == 2 || argc == 3) && strcmp(argv[1], "--bench") == 0) {
        return run_bench(argv[2]) ? 0 : 1;
    }
    if (argc == 3 && strcmp(argv[1], "--bandwidth") == 0) {
        return print_bandwidth((uint32_t)strtoul(argv[2], NULL, 10)) ? 0 : 1;
    }
    if (argc != 1) {
        fprintf(stderr, "usage: %s [--bench [NAME] | --bandwidth THREADS]\n", argv[0]);
        return 2;
    }
    int n_failed = run_matmul_tests();
    n_failed += run_row_tests();
    n_failed += run_attention_tests();
    n_failed += run_accuracy_tests();
    return n_failed == 0 ? 0 : 1;
}
