/* Split sets with a part that lies about itself, or that is damaged at random. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include "damaged_gguf.h"

enum { N_PARTS = 3, PATH_BYTES = 200, N_PART_MUTATIONS = 400 };

/* What a part says; a type of SL_GGUF_TYPE_COUNT leaves the key out. */
typedef struct part_keys {
    uint32_t type;
    uint64_t number;
    uint64_t count;
    uint64_t n_tensors;
} part_keys;

static const part_keys good_keys[N_PARTS] = {{SL_GGUF_U16, 0, 3, 3}, {SL_GGUF_U16, 1, 3, 3}, {SL_GGUF_U16, 2, 3, 3}};

static void build_part(gguf_image *image, unsigned part, part_keys keys, const char *tensor_name)
{
    static const uint64_t dims[] = {8};
    static const uint8_t bytes_of[SL_GGUF_TYPE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    static const char *const names[] = {"split.no", "split.count", "split.tensors.count"};
    const uint64_t numbers[] = {keys.number, keys.count, keys.n_tensors};
    image_put_header(image, 3, 1, part == 0 ? 4 : 3);
    if (part == 0) {
        image_put_key_string(image, "general.name", "in parts");
    }
    for (size_t i = 0; i < 3; i++) {
        image_put_key(image, names[i], keys.type);
        if (keys.type == SL_GGUF_STRING) {
            image_put_string(image, "1");
        } else {
            image_put(image, &numbers[i], bytes_of[keys.type]);
        }
    }
    image_put_tensor(image, tensor_name, 1, dims, SL_TYPE_F32, 0);
    image_pad(image, 32);
    image_put_data(image, 32);
}

static const char *part_path(const char *directory, unsigned part, char *buffer)
{
    snprintf(buffer, PATH_BYTES, "%s/model-%05u-of-%05u.gguf", directory, part + 1, (unsigned)N_PARTS);
    return buffer;
}

static void store_good_part(const char *directory, unsigned part)
{
    static const char *const tensor_names[N_PARTS] = {"first", "second", "third"};
    char path[PATH_BYTES];
    gguf_image image = {0};
    build_part(&image, part, good_keys[part], tensor_names[part]);
    image_store(&image, part_path(directory, part, path));
}

static void create_set(char *directory)
{
    strcpy(directory, P_tmpdir "/sluice-parts-XXXXXX");
    assert_non_null(mkdtemp(directory));
    for (unsigned part = 0; part < N_PARTS; part++) {
        store_good_part(directory, part);
    }
}

static void remove_set(const char *directory)
{
    char path[PATH_BYTES];
    for (unsigned part = 0; part < N_PARTS; part++) {
        unlink(part_path(directory, part, path));
    }
    assert_int_equal(rmdir(directory), 0);
}

static void parts_that_lie_are_refused(void **state)
{
    (void)state;
    static const part_keys lies[] = {
        {SL_GGUF_U16, 7, 3, 3},
        {SL_GGUF_U16, 3, 3, 3},
        {SL_GGUF_U16, 1, 2, 3},
        {SL_GGUF_U16, 1, 4, 3},
        {SL_GGUF_U16, 1, 65535, 3},
        {SL_GGUF_U16, 65535, 65535, 3},
        {SL_GGUF_U16, 1, 3, 2},
        {SL_GGUF_U16, 1, 3, 4},
        {SL_GGUF_U16, 1, 3, 65535},
        {SL_GGUF_U32, 1, 100000, 3},
        {SL_GGUF_U32, 1, UINT32_MAX, 3},
        {SL_GGUF_U64, 1, 1ull << 32, 3},
        {SL_GGUF_U64, 1, 3, 1ull << 32},
        {SL_GGUF_I32, UINT32_MAX, 3, 3},
        {SL_GGUF_I64, 1, UINT64_MAX, 3},
        {SL_GGUF_U64, 1ull << 32, 3, 3},
        {SL_GGUF_U64, UINT64_MAX, UINT64_MAX, UINT64_MAX},
        {SL_GGUF_STRING, 1, 3, 3},
        {SL_GGUF_F32, 1, 3, 3},
        {SL_GGUF_BOOL, 1, 1, 1},
    };
    char directory[64];
    char path[PATH_BYTES];
    int n_descriptors = count_descriptors();
    create_set(directory);
    assert_int_equal(check_open(part_path(directory, 0, path), true, "the good set"), SLUICE_OK);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        for (unsigned part = 0; part < N_PARTS; part++) {
            gguf_image image = {0};
            /* The middle part's number would be the truth in no other. */
            part_keys keys = lies[i];
            keys.number = keys.number == 1 ? part : keys.number;
            build_part(&image, part, keys, "liar");
            image_store(&image, part_path(directory, part, path));
            char what[64];
            snprintf(what, sizeof what, "lie %zu in part %u", i, part);
            /* A part that belongs to no set may be opened as a file of its own. */
            bool alone = keys.type == SL_GGUF_BOOL;
            for (unsigned opened = 0; opened < N_PARTS; opened++) {
                (void)check_open(part_path(directory, opened, path), alone && opened == part, what);
            }
            store_good_part(directory, part);
        }
    }
    remove_set(directory);
    assert_int_equal(count_descriptors(), n_descriptors);
}

static void random_mutations_of_a_part_never_break_a_promise(void **state)
{
    (void)state;
    char directory[64];
    char path[PATH_BYTES];
    uint64_t random = 0xd1b54a32d192ed03u;
    create_set(directory);
    for (size_t i = 0; i < N_PART_MUTATIONS; i++) {
        unsigned part = (unsigned)(i % N_PARTS);
        char what[64];
        snprintf(what, sizeof what, "mutation %zu of part %u", i, part);
        gguf_image good = {0};
        build_part(&good, part, good_keys[part], part == 0 ? "first" : "other");
        gguf_image image = mutate(&good, &random);
        image_store(&image, part_path(directory, part, path));
        (void)check_open(part_path(directory, (unsigned)(i / N_PARTS) % N_PARTS, path), true, what);
        image_free(&good);
        store_good_part(directory, part);
    }
    remove_set(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_that_lie_are_refused),
        cmocka_unit_test(random_mutations_of_a_part_never_break_a_promise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
