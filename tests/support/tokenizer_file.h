/* A tokenizer opened from a GGUF file, with everything it borrows. Include after cmocka.h. */
#ifndef SL_TESTS_TOKENIZER_FILE_H
#define SL_TESTS_TOKENIZER_FILE_H

#include <string.h>

#include "engine/vocabulary.h"
#include "gguf/reader.h"
#include "text/tokenizer.h"

typedef struct tokenizer_file {
    sl_memory memory;
    sl_gguf *reader;         /* owned */
    sl_tokenizer *tokenizer; /* owned */
    sluice_error error;
} tokenizer_file;

/* Open `path`; whatever cannot be done fails the running test. */
static inline void tokenizer_file_open(tokenizer_file *file, const char *path)
{
    memset(file, 0, sizeof *file);
    sl_memory_init(&file->memory, NULL);
    sl_vocabulary_spec spec;
    if (sl_gguf_open(&file->reader, path, &file->memory, NULL, &file->error) != SLUICE_OK ||
        sl_vocabulary_spec_from_gguf(file->reader, &spec, &file->error) != SLUICE_OK ||
        sl_tokenizer_open(&file->tokenizer, &spec, &file->memory, &file->error) != SLUICE_OK) {
        fail_msg("%s", file->error.message);
    }
}

/* Close it; anything still allocated fails the running test. */
static inline void tokenizer_file_close(tokenizer_file *file)
{
    sl_tokenizer_close(&file->tokenizer);
    sl_gguf_close(&file->reader);
    assert_int_equal(file->memory.n_live, 0);
}

#endif
