/* Owns nothing. The header is a magic number, a version, a length and a Python dictionary padded with blanks to a
 * multiple of 64 bytes, ended by a newline (numpy.lib.format). */
#include "cli/npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void sl_npy_header(unsigned char header[SL_NPY_HEADER_BYTES], uint64_t n_rows, uint64_t n_columns)
{
    static const unsigned char magic[] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
    const size_t start = sizeof magic + 2;
    const size_t length = SL_NPY_HEADER_BYTES - start;
    memset(header, ' ', SL_NPY_HEADER_BYTES);
    memcpy(header, magic, sizeof magic);
    header[sizeof magic] = (unsigned char)(length & 0xff);
    header[sizeof magic + 1] = (unsigned char)(length >> 8);
    /* Two numbers of at most 20 digits leave room in 118 bytes. */
    char text[SL_NPY_HEADER_BYTES];
    int used =
        snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRIu64 ", %" PRIu64 "), }",
                 n_rows, n_columns);
    memcpy(header + start, text, (size_t)used);
    header[SL_NPY_HEADER_BYTES - 1] = '\n';
}
