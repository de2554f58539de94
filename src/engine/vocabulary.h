/* What a GGUF file says of its vocabulary, as the tokenizer wants it. */
#ifndef SL_ENGINE_VOCABULARY_H
#define SL_ENGINE_VOCABULARY_H

#include "gguf/reader.h"
#include "text/tokenizer.h"

/* Fill `spec` from the tokenizer.ggml.* keys. Everything in it is borrowed from `reader`, which must outlive a
 * tokenizer opened with it. NOT_FOUND when the file has no vocabulary; FORMAT when a key has the wrong type or an array
 * the wrong length. */
SLUICE_NODISCARD sluice_status sl_vocabulary_spec_from_gguf(const sl_gguf *reader, sl_vocabulary_spec *spec,
                                                            sluice_error *error);

#endif
