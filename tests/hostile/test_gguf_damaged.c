/* Damaged GGUF files, several hundred of them, made here from a small good one whose fields are known: each must be
 * refused with a sentence, without a crash, a leak or memory out of proportion. Then some thousand random mutations,
 * which may be accepted only when everything that the reader promises still holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <sys/mman.h>

#include "base/hash.h"
#include "damaged_gguf.h"

enum { MAX_FIELDS = 512, MAX_DISTINCT = 1 << 16, N_MUTATIONS = 6000, ALIGNMENT = 64 };
typedef enum field_kind {
    FIELD_MAGIC,
    FIELD_VERSION,
    FIELD_TENSOR_COUNT,
    FIELD_VALUE_COUNT,
    FIELD_KEY_LENGTH,
    FIELD_KEY,
    FIELD_VALUE_TYPE,
    FIELD_ELEMENT_TYPE,
    FIELD_ARRAY_COUNT,
    FIELD_STRING_LENGTH,
    FIELD_STRING,
    FIELD_NUMBER,
    FIELD_BOOL,
    FIELD_ALIGNMENT,
    FIELD_NAME_LENGTH,
    FIELD_NAME,
    FIELD_N_DIMS,
    FIELD_DIM,
    FIELD_QUANTISED_DIM, /* dims[0] of a type with blocks */
    FIELD_TENSOR_TYPE,
    FIELD_OFFSET,
    FIELD_PADDING,
    FIELD_DATA
} field_kind;

typedef struct model_field {
    field_kind kind;
    size_t offset;
    size_t bytes;
} model_field;

typedef struct model_image {
    gguf_image image;
    model_field fields[MAX_FIELDS];
    size_t n_fields;
} model_image;

typedef struct fixture {
    model_image good;
    int descriptor; /* of a file in memory that holds the image under test */
    char path[64];
    uint64_t *hashes; /* owned; [n_distinct] of MAX_DISTINCT: the damaged images so far */
    size_t n_distinct;
} fixture;

/* ---- the good model ---------------------------------------------------------------------------------------------- */

static void add_field(model_image *model, field_kind kind, const void *bytes, size_t length)
{
    assert_true(model->n_fields < MAX_FIELDS);
    model->fields[model->n_fields++] = (model_field){.kind = kind, .offset = model->image.length, .bytes = length};
    image_put(&model->image, bytes, length);
}

static void add_u32(model_image *model, field_kind kind, uint32_t number)
{
    add_field(model, kind, &number, sizeof number);
}

static void add_u64(model_image *model, field_kind kind, uint64_t number)
{
    add_field(model, kind, &number, sizeof number);
}

static void add_text(model_image *model, field_kind length_kind, field_kind kind, const char *text)
{
    add_u64(model, length_kind, strlen(text));
    add_field(model, kind, text, strlen(text));
}

static void add_key(model_image *model, const char *key, uint32_t type)
{
    add_text(model, FIELD_KEY_LENGTH, FIELD_KEY, key);
    add_u32(model, FIELD_VALUE_TYPE, type);
}

static void add_tensor(model_image *model, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                       uint64_t offset)
{
    add_text(model, FIELD_NAME_LENGTH, FIELD_NAME, name);
    add_u32(model, FIELD_N_DIMS, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) {
        add_u64(model, i == 0 && type != SL_TYPE_F32 && type != SL_TYPE_F16 ? FIELD_QUANTISED_DIM : FIELD_DIM, dims[i]);
    }
    add_u32(model, FIELD_TENSOR_TYPE, type);
    add_u64(model, FIELD_OFFSET, offset);
}

static void add_values(model_image *model)
{
    static const uint8_t bytes_of[SL_GGUF_TYPE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    static const uint8_t ones[8] = {1, 0, 1, 0, 1, 0, 1, 0};
    for (uint32_t type = 0; type < SL_GGUF_TYPE_COUNT; type++) {
        char key[32];
        field_kind kind = type == SL_GGUF_BOOL ? FIELD_BOOL : FIELD_NUMBER;
        if (bytes_of[type] > 0) {
            snprintf(key, sizeof key, "scalar.%u", type);
            add_key(model, key, type);
            add_field(model, kind, ones, bytes_of[type]);
            snprintf(key, sizeof key, "array.%u", type);
            add_key(model, key, SL_GGUF_ARRAY);
            add_u32(model, FIELD_ELEMENT_TYPE, type);
            add_u64(model, FIELD_ARRAY_COUNT, 2);
            add_field(model, kind, ones, bytes_of[type]);
            add_field(model, kind, ones, bytes_of[type]);
        }
    }
    add_key(model, "general.name", SL_GGUF_STRING);
    add_text(model, FIELD_STRING_LENGTH, FIELD_STRING, "a small model");
    add_key(model, "tokens", SL_GGUF_ARRAY);
    add_u32(model, FIELD_ELEMENT_TYPE, SL_GGUF_STRING);
    add_u64(model, FIELD_ARRAY_COUNT, 3);
    add_text(model, FIELD_STRING_LENGTH, FIELD_STRING, "one");
    add_text(model, FIELD_STRING_LENGTH, FIELD_STRING, "two");
    add_text(model, FIELD_STRING_LENGTH, FIELD_STRING, "three");
    add_key(model, "general.alignment", SL_GGUF_U32);
    add_u32(model, FIELD_ALIGNMENT, ALIGNMENT);
}

/* The last tensor ends where the file ends, so that every cut costs something. */
static void build_model(model_image *model)
{
    static const uint8_t zeros[ALIGNMENT];
    static uint8_t data[640];
    *model = (model_image){0};
    add_field(model, FIELD_MAGIC, "GGUF", 4);
    add_u32(model, FIELD_VERSION, 3);
    add_u64(model, FIELD_TENSOR_COUNT, 4);
    add_u64(model, FIELD_VALUE_COUNT, 11 * 2 + 3);
    add_values(model);
    add_tensor(model, "token_embd.weight", 2, (const uint64_t[]){8, 4}, SL_TYPE_F16, 0);
    add_tensor(model, "blk.0.ffn_gate_exps.weight", 3, (const uint64_t[]){32, 2, 3}, SL_TYPE_Q8_0, 64);
    add_tensor(model, "blk.0.attn_q.weight", 4, (const uint64_t[]){256, 1, 1, 1}, SL_TYPE_Q4_K, 320);
    add_tensor(model, "output_norm.weight", 1, (const uint64_t[]){32}, SL_TYPE_F32, 512);
    add_field(model, FIELD_PADDING, zeros, (ALIGNMENT - model->image.length % ALIGNMENT) % ALIGNMENT);
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 7 + 1);
    }
    add_field(model, FIELD_DATA, data, sizeof data);
}

/* ---- checking ---------------------------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    fixture *test = calloc(1, sizeof *test);
    assert_non_null(test);
    test->hashes = calloc(MAX_DISTINCT, sizeof *test->hashes);
    assert_non_null(test->hashes);
    build_model(&test->good);
    test->descriptor = memfd_create("model", MFD_CLOEXEC);
    assert_true(test->descriptor >= 0);
    snprintf(test->path, sizeof test->path, "/proc/self/fd/%d", test->descriptor);
    *state = test;
    return 0;
}

static int tear_down(void **state)
{
    fixture *test = *state;
    close(test->descriptor);
    image_free(&test->good.image);
    free(test->hashes);
    free(test);
    return 0;
}

static void load_image(const fixture *test, const void *bytes, size_t length)
{
    assert_int_equal(ftruncate(test->descriptor, 0), 0);
    assert_int_equal(pwrite(test->descriptor, bytes, length, 0), length);
}

static void count_image(fixture *test, const void *bytes, size_t length)
{
    uint64_t hash = sl_hash64(bytes, length, 0);
    for (size_t i = 0; i < test->n_distinct; i++) {
        if (test->hashes[i] == hash) {
            return;
        }
    }
    assert_true(test->n_distinct < MAX_DISTINCT);
    test->hashes[test->n_distinct++] = hash;
}

static void assert_refused(fixture *test, const gguf_image *image, const char *what)
{
    count_image(test, image->bytes, image->length);
    load_image(test, image->bytes, image->length);
    (void)check_open(test->path, false, what);
}

/* The good model with some bytes replaced. */
static void assert_replaced_is_refused(fixture *test, size_t offset, const void *bytes, size_t length, const char *what)
{
    gguf_image *image = &test->good.image;
    unsigned char before[64];
    assert_true(length <= sizeof before && offset + length <= image->length);
    memcpy(before, image->bytes + offset, length);
    if (memcmp(before, bytes, length) != 0) {
        memcpy(image->bytes + offset, bytes, length);
        assert_refused(test, image, what);
        memcpy(image->bytes + offset, before, length);
    }
}

/* ---- the damage -------------------------------------------------------------------------------------------------- */

static void the_good_model_opens(void **state)
{
    fixture *test = *state;
    load_image(test, test->good.image.bytes, test->good.image.length);
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_gguf *reader = NULL;
    sluice_error error = {0};
    if (sl_gguf_open(&reader, test->path, &memory, NULL, &error) != SLUICE_OK) {
        fail_msg("%s", error.message);
    }
    assert_true(walk_model(reader));
    assert_int_equal(reader->n_tensors, 4);
    assert_int_equal(reader->n_values, 25);
    sl_gguf_close(&reader);
}

static void every_truncation_is_refused(void **state)
{
    fixture *test = *state;
    gguf_image cut = test->good.image;
    int n_descriptors = count_descriptors();
    for (cut.length = 0; cut.length < test->good.image.length; cut.length++) {
        char what[64];
        snprintf(what, sizeof what, "the model cut at byte %zu", cut.length);
        assert_refused(test, &cut, what);
    }
    assert_int_equal(count_descriptors(), n_descriptors);
    assert_true(test->n_distinct >= 200);
}

/* Numbers that make a field of this kind wrong, whatever is around it. */
typedef struct wrong_numbers {
    field_kind kind;
    uint64_t numbers[12];
    size_t count;
} wrong_numbers;

static const wrong_numbers wrong[] = {
    {FIELD_VERSION, {0, 1, 4, 0x01000000, 0x02000000, 0x03000000, 0x80000003, UINT32_MAX}, 8},
    {FIELD_TENSOR_COUNT,
     {5, 6, 1000, (1 << 20) + 1, 1ull << 32, (1ull << 32) + 4, 1ull << 60, 1ull << 63, UINT64_MAX},
     9},
    {FIELD_VALUE_COUNT,
     {24, 26, 1000, (1 << 16) + 1, 1ull << 32, (1ull << 32) + 25, 1ull << 60, 1ull << 63, UINT64_MAX},
     9},
    {FIELD_KEY_LENGTH, {0, 65536, 1ull << 31, 1ull << 32, 1ull << 63, UINT64_MAX - 7, UINT64_MAX}, 7},
    {FIELD_VALUE_TYPE, {13, 14, 255, 1u << 16, 1u << 31, UINT32_MAX}, 6},
    {FIELD_ELEMENT_TYPE, {SL_GGUF_ARRAY, 13, 255, 1u << 16, 1u << 31, UINT32_MAX}, 6},
    {FIELD_ARRAY_COUNT,
     {1 << 20, 1ull << 32, (1ull << 32) + 2, 1ull << 60, 1ull << 61, 1ull << 62, (1ull << 62) + 2, 1ull << 63,
      (1ull << 63) + 2, UINT64_MAX},
     10},
    {FIELD_STRING_LENGTH, {1 << 20, 1ull << 32, (1ull << 32) + 3, 1ull << 63, UINT64_MAX - 7, UINT64_MAX}, 6},
    {FIELD_ALIGNMENT, {0, 3, 33, 63, 65, 96, (1 << 20) + 1, 1 << 21, 1u << 31, UINT32_MAX}, 10},
    {FIELD_NAME_LENGTH, {0, 128, 1 << 16, 1ull << 32, 1ull << 63, UINT64_MAX - 7, UINT64_MAX}, 7},
    {FIELD_N_DIMS, {0, 5, 6, 255, 1u << 31, UINT32_MAX}, 6},
    {FIELD_DIM, {0, 1 << 20, 1ull << 32, 1ull << 61, 1ull << 62, 1ull << 63, (1ull << 63) + 1, UINT64_MAX}, 8},
    {FIELD_QUANTISED_DIM,
     {0, 1, 31, 33, 255, 257, 1 << 20, 1ull << 32, 1ull << 62, 1ull << 63, UINT64_MAX - 31, UINT64_MAX},
     12},
    {FIELD_TENSOR_TYPE, {4, 5, 31, 38, 40, 41, 42, 255, 1u << 16, 1u << 31, UINT32_MAX}, 11},
    {FIELD_OFFSET, {1, 32, 63, 65, 576, 640, 704, 1ull << 32, 1ull << 62, 1ull << 63, UINT64_MAX - 63, UINT64_MAX}, 12},
};

static void every_wrong_number_is_refused(void **state)
{
    fixture *test = *state;
    int n_descriptors = count_descriptors();
    size_t n_checked = 0;
    for (size_t i = 0; i < test->good.n_fields; i++) {
        const model_field *field = &test->good.fields[i];
        for (size_t j = 0; j < sizeof wrong / sizeof wrong[0]; j++) {
            for (size_t k = 0; wrong[j].kind == field->kind && k < wrong[j].count; k++) {
                char what[96];
                snprintf(what, sizeof what, "the model with number %llx in field %zu of kind %d",
                         (unsigned long long)wrong[j].numbers[k], i, (int)field->kind);
                assert_replaced_is_refused(test, field->offset, &wrong[j].numbers[k], field->bytes, what);
                n_checked++;
            }
        }
    }
    assert_int_equal(count_descriptors(), n_descriptors);
    print_message("%zu wrong numbers, %zu distinct files\n", n_checked, test->n_distinct);
    assert_true(test->n_distinct >= 200);
}

static void wrong_bytes_of_a_known_meaning_are_refused(void **state)
{
    fixture *test = *state;
    static const char *const magics[] = {"GGML", "FUGG", "gguf", "ggjt", "GGU", "PK\3\4", "\177ELF"};
    for (size_t i = 0; i < sizeof magics / sizeof magics[0]; i++) {
        assert_replaced_is_refused(test, 0, magics[i], 4, "another magic");
    }
    for (size_t i = 0; i < test->good.n_fields; i++) {
        const model_field *field = &test->good.fields[i];
        if (field->kind == FIELD_KEY || field->kind == FIELD_NAME) {
            assert_replaced_is_refused(test, field->offset, "", 1, "a NUL at the start of a name");
            assert_replaced_is_refused(test, field->offset + field->bytes - 1, "", 1, "a NUL at the end of a name");
        }
        for (unsigned byte = 2; field->kind == FIELD_BOOL && byte < 256; byte *= 2) {
            assert_replaced_is_refused(test, field->offset, &(unsigned char){(unsigned char)byte}, 1, "a boolean of 2");
        }
    }
}

static void names_that_come_twice_are_refused(void **state)
{
    fixture *test = *state;
    for (size_t i = 0; i < test->good.n_fields; i++) {
        for (size_t j = 0; j < i; j++) {
            const model_field *later = &test->good.fields[i];
            const model_field *earlier = &test->good.fields[j];
            bool names = later->kind == FIELD_KEY || later->kind == FIELD_NAME;
            if (names && earlier->kind == later->kind && earlier->bytes == later->bytes) {
                assert_replaced_is_refused(test, later->offset, test->good.image.bytes + earlier->offset, later->bytes,
                                           "a name that comes twice");
            }
        }
    }
    static const uint64_t dims[] = {8};
    gguf_image image = {0};
    image_put_header(&image, 3, 2, 0);
    image_put_tensor(&image, "same", 1, dims, SL_TYPE_F32, 0);
    image_put_tensor(&image, "same", 1, dims, SL_TYPE_F32, 32);
    image_pad(&image, 32);
    image_put_data(&image, 64);
    assert_refused(test, &image, "a tensor that comes twice");
    image_free(&image);
    assert_true(test->n_distinct > 20);
}

static void tensors_that_share_bytes_are_refused(void **state)
{
    fixture *test = *state;
    static const uint64_t dims[] = {48};
    for (uint64_t first = 0; first <= 256; first += 32) {
        for (uint64_t second = 0; second <= 256; second += 32) {
            if (first >= second + 192 || second >= first + 192) {
                continue;
            }
            gguf_image image = {0};
            image_put_header(&image, 3, 2, 0);
            image_put_tensor(&image, "a", 1, dims, SL_TYPE_F32, first);
            image_put_tensor(&image, "b", 1, dims, SL_TYPE_F32, second);
            image_pad(&image, 32);
            image_put_data(&image, 512);
            assert_refused(test, &image, "two tensors that share bytes");
            image_free(&image);
        }
    }
}

static void products_that_overflow_are_refused(void **state)
{
    fixture *test = *state;
    static const uint64_t factors[][4] = {
        {1ull << 32, 1ull << 32, 1, 1}, {1ull << 16, 1ull << 16, 1ull << 16, 1ull << 16},
        {1ull << 62, 4, 1, 1},          {1ull << 31, 1ull << 31, 4, 1},
        {1ull << 61, 1, 1, 8},          {3, UINT64_MAX / 3 + 1, 1, 1},
        {UINT64_MAX, UINT64_MAX, 1, 1}, {UINT64_MAX, 1, UINT64_MAX, UINT64_MAX},
        {32, 1ull << 59, 1, 1},         {256, 1ull << 28, 1ull << 28, 1},
        {INT64_MAX / 4 + 1, 1, 1, 1},   {1, INT64_MAX, 2, 1},
    };
    static const uint32_t types[] = {SL_TYPE_F32, SL_TYPE_F16, SL_TYPE_I8, SL_TYPE_F64, SL_TYPE_Q8_0, SL_TYPE_Q4_K};
    for (size_t i = 0; i < sizeof factors / sizeof factors[0]; i++) {
        for (size_t j = 0; j < sizeof types / sizeof types[0]; j++) {
            gguf_image image = {0};
            image_put_header(&image, 3, 1, 0);
            image_put_tensor(&image, "large", 4, factors[i], types[j], 0);
            image_pad(&image, 32);
            image_put_data(&image, 64);
            assert_refused(test, &image, "dimensions whose product overflows");
            image_free(&image);
        }
    }
}

static void alignments_of_a_wrong_type_are_refused(void **state)
{
    fixture *test = *state;
    static const uint32_t types[] = {SL_GGUF_F32, SL_GGUF_F64, SL_GGUF_BOOL, SL_GGUF_STRING, SL_GGUF_ARRAY};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        gguf_image image = {0};
        image_put_header(&image, 3, 0, 1);
        image_put_key(&image, "general.alignment", types[i]);
        if (types[i] == SL_GGUF_ARRAY) {
            image_put_u32(&image, SL_GGUF_U32);
            image_put_u64(&image, 1);
            image_put_u32(&image, 32);
        } else {
            image_put_u64(&image, 1);
            image_put_u64(&image, 0);
        }
        assert_refused(test, &image, "an alignment of a wrong type");
        image_free(&image);
    }
}

/* A file that is as large as it says, but holes. */
static void a_sparse_file_buys_no_memory(void **state)
{
    fixture *test = *state;
    for (uint32_t type = 0; type < SL_GGUF_TYPE_COUNT; type++) {
        gguf_image image = {0};
        image_put_header(&image, 3, 0, 1);
        image_put_key_array(&image, "holes", type, 1ull << 36);
        load_image(test, image.bytes, image.length);
        image_free(&image);
        assert_int_equal(ftruncate(test->descriptor, (off_t)1 << 40), 0);
        assert_true(check_open(test->path, false, "an array of holes") != SLUICE_OK);
    }
    static const uint64_t counts[][2] = {{1 << 20, 0}, {0, 1 << 16}, {1ull << 40, 0}, {0, 1ull << 40}};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        gguf_image image = {0};
        image_put_header(&image, 3, counts[i][0], counts[i][1]);
        load_image(test, image.bytes, image.length);
        image_free(&image);
        assert_int_equal(ftruncate(test->descriptor, (off_t)1 << 40), 0);
        assert_true(check_open(test->path, false, "a list of holes") != SLUICE_OK);
    }
}

/* The inverse of an odd number modulo 2^64. */
static uint64_t invert(uint64_t number)
{
    uint64_t inverse = number;
    for (int i = 0; i < 6; i++) {
        inverse *= 2 - number * inverse;
    }
    return inverse;
}

static uint64_t rotate_right(uint64_t number, unsigned count)
{
    return number >> count | number << (64 - count);
}

/* The eight bytes whose XXH64 with seed 0 is `hash`: for inputs of this length the function is a permutation. */
static uint64_t find_input(uint64_t hash)
{
    static const uint64_t primes[] = {0x9e3779b185ebca87u, 0xc2b2ae3d27d4eb4fu, 0x165667b19e3779f9u,
                                      0x85ebca77c2b2ae63u, 0x27d4eb2f165667c5u};
    hash ^= hash >> 32;
    hash *= invert(primes[2]);
    hash ^= hash >> 29 ^ hash >> 58;
    hash *= invert(primes[1]);
    hash ^= hash >> 33;
    hash = rotate_right((hash - primes[3]) * invert(primes[0]), 27);
    hash ^= primes[4] + 8;
    return rotate_right(hash * invert(primes[0]), 31) * invert(primes[1]);
}

/* With a hash that a file can foresee, these keys would cost some billion comparisons. */
static void keys_made_to_collide_are_read(void **state)
{
    fixture *test = *state;
    enum { N_KEYS = 65536 };
    gguf_image image = {0};
    image_put_header(&image, 3, 0, N_KEYS);
    for (uint64_t high = 1, n_keys = 0; n_keys < N_KEYS; high++) {
        /* A map folds the halves of the hash together: these all fold to 0. */
        uint64_t key = find_input(high << 32 | high);
        if (memchr(&key, '\0', sizeof key) == NULL) {
            assert_int_equal(sl_hash64(&key, sizeof key, 0), high << 32 | high);
            image_put_u64(&image, sizeof key);
            image_put_u64(&image, key);
            image_put_u32(&image, SL_GGUF_U8);
            image_put_u8(&image, 0);
            n_keys++;
        }
    }
    load_image(test, image.bytes, image.length);
    image_free(&image);
    sl_memory memory;
    sl_memory_init(&memory, NULL);
    sl_gguf *reader = NULL;
    assert_int_equal(sl_gguf_open(&reader, test->path, &memory, NULL, NULL), SLUICE_OK);
    assert_int_equal(reader->n_values, N_KEYS);
    sl_gguf_close(&reader);
}

/* ---- random mutations -------------------------------------------------------------------------------------------- */

static void random_mutations_never_break_a_promise(void **state)
{
    fixture *test = *state;
    uint64_t random = 0x9e3779b97f4a7c15u;
    size_t n_accepted = 0;
    int n_descriptors = count_descriptors();
    for (size_t i = 0; i < N_MUTATIONS; i++) {
        char what[64];
        snprintf(what, sizeof what, "mutation %zu", i);
        gguf_image image = mutate(&test->good.image, &random);
        load_image(test, image.bytes, image.length);
        n_accepted += check_open(test->path, true, what) == SLUICE_OK;
        image_free(&image);
    }
    assert_int_equal(count_descriptors(), n_descriptors);
    print_message("%d mutations, %zu accepted\n", N_MUTATIONS, n_accepted);
    /* Both ways were walked. */
    assert_true(n_accepted > 0 && n_accepted < N_MUTATIONS);
}

static void every_flipped_bit_of_the_header_is_survived(void **state)
{
    fixture *test = *state;
    gguf_image *image = &test->good.image;
    for (size_t offset = 0; offset + 640 < image->length; offset++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            char what[64];
            snprintf(what, sizeof what, "bit %u of byte %zu flipped", bit, offset);
            image->bytes[offset] ^= (unsigned char)(1u << bit);
            load_image(test, image->bytes, image->length);
            (void)check_open(test->path, true, what);
            image->bytes[offset] ^= (unsigned char)(1u << bit);
        }
    }
}

int main(void)
{
#define DAMAGE_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        DAMAGE_TEST(the_good_model_opens),
        DAMAGE_TEST(every_truncation_is_refused),
        DAMAGE_TEST(every_wrong_number_is_refused),
        DAMAGE_TEST(wrong_bytes_of_a_known_meaning_are_refused),
        DAMAGE_TEST(names_that_come_twice_are_refused),
        DAMAGE_TEST(tensors_that_share_bytes_are_refused),
        DAMAGE_TEST(products_that_overflow_are_refused),
        DAMAGE_TEST(alignments_of_a_wrong_type_are_refused),
        DAMAGE_TEST(a_sparse_file_buys_no_memory),
        DAMAGE_TEST(keys_made_to_collide_are_read),
        DAMAGE_TEST(random_mutations_never_break_a_promise),
        DAMAGE_TEST(every_flipped_bit_of_the_header_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
