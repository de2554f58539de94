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

/* Open `path` with another pre-tokenizer than it names (NULL: its own); whatever cannot be done fails the running test.
 */
static inline void tokenizer_file_open_as(tokenizer_file *file, const char *path, const char *pre)
{
    memset(file, 0, sizeof *file);
    sl_memory_init(&file->memory, NULL);
    sl_vocabulary_spec spec;
    if (sl_gguf_open(&file->reader, path, &file->memory, NULL, &file->error) != SLUICE_OK ||
        sl_vocabulary_spec_from_gguf(file->reader, &spec, &file->error) != SLUICE_OK) {
        fail_msg("%s", file->error.message);
    }
    spec.pre = pre == NULL ? spec.pre : sl_span_of(pre);
    if (sl_tokenizer_open(&file->tokenizer, &spec, &file->memory, &file->error) != SLUICE_OK) {
        fail_msg("%s", file->error.message);
    }
}

static inline void tokenizer_file_open(tokenizer_file *file, const char *path)
{
    tokenizer_file_open_as(file, path, NULL);
}

/* Close it; anything still allocated fails the running test. */
static inline void tokenizer_file_close(tokenizer_file *file)
{
    sl_tokenizer_close(&file->tokenizer);
    sl_gguf_close(&file->reader);
    assert_int_equal(file->memory.n_live, 0);
}

#endif
