/* NumPy's .npy file format, version 1.0: float32, little endian, C order. */
#ifndef SL_CLI_NPY_H
#define SL_CLI_NPY_H

#include <stddef.h>
#include <stdint.h>

enum { SL_NPY_HEADER_BYTES = 128 };

/* The header of an array [n_rows][n_columns]; the floats follow it. */
void sl_npy_header(unsigned char header[SL_NPY_HEADER_BYTES], uint64_t n_rows, uint64_t n_columns);

#endif
