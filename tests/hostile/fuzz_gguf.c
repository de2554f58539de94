/* libFuzzer entry for the GGUF reader: the input is the file. Built with the option `fuzz`. Start it with a folder of
 * small GGUF files as the corpus. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "walk_gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char path[32];
    int descriptor = memfd_create("model", MFD_CLOEXEC);
    if (descriptor < 0 || write(descriptor, bytes, length) != (ssize_t)length) {
        abort();
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_gguf *reader = NULL;
    sluice_error error = {0};
    sluice_status status = sl_gguf_open(&reader, path, &memory, NULL, &error);
    if (status == SLUICE_OK ? !walk_model(reader) : reader != NULL || error.message[0] == '\0') {
        abort();
    }
    sl_gguf_close(&reader);
    if (memory.n_live != 0) {
        abort();
    }
    close(descriptor);
    return 0;
}
