/* Owns nothing; a stream is plain data of its user.
 *
 * Invariant: pending[0..n_pending) is a proper prefix of at least one well-formed character, or empty.
 * State: empty <-> holding 1 to 3 bytes. Threads: the owner of the stream only. */
#include "text/tokenizer.h"
#include "text/utf8.h"

static bool release_pending(sl_utf8_stream *stream, sl_text *out)
{
    if (!sl_text_append(out, stream->pending, stream->n_pending)) {
        return false;
    }
    stream->n_pending = 0;
    return true;
}

static bool push_byte(sl_utf8_stream *stream, unsigned char byte, sl_text *out)
{
    if (stream->n_pending > 0 && !sl_utf8_may_continue(stream->pending[0], stream->n_pending, byte) &&
        !release_pending(stream, out)) {
        return false;
    }
    stream->pending[stream->n_pending++] = byte;
    size_t length = sl_utf8_length_of_lead(stream->pending[0]);
    if (length > stream->n_pending) {
        return true;
    }
    if (!release_pending(stream, out)) {
        stream->n_pending--;
        return false;
    }
    return true;
}

bool sl_utf8_stream_push(sl_utf8_stream *stream, const void *bytes, size_t length, sl_text *out)
{
    const unsigned char *input = bytes;
    for (size_t i = 0; i < length; i++) {
        if (!push_byte(stream, input[i], out)) {
            return false;
        }
    }
    return true;
}

bool sl_utf8_stream_flush(sl_utf8_stream *stream, sl_text *out)
{
    return release_pending(stream, out);
}
