/* The reference decoders, bit for bit against vectors made with the Python package of the format. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <math.h>

#include "quant/half.h"
#include "quant/traits.h"
#include "quant/unpack.h"
#include "../support/quant_vectors.h"

static void assert_decodes_to(const quant_record *record, const unsigned char *blocks)
{
    sl_type type;
    assert_true(sl_type_parse(record->type, &type));
    const sl_type_traits *traits = sl_type_traits_of((int)type);
    assert_non_null(traits->decode_row);
    assert_int_equal(sl_type_row_bytes(type, record->n_elements), record->n_bytes);
    float *decoded = malloc(record->n_elements * sizeof *decoded);
    assert_non_null(decoded);
    traits->decode_row(blocks, decoded, record->n_elements);
    for (uint32_t i = 0; i < record->n_elements; i++) {
        if (sl_float_bits(decoded[i]) != sl_float_bits(record->values[i])) {
            fail_msg("%s %s: element %u is %a where the reference has %a", record->type, record->kind, i,
                     (double)decoded[i], (double)record->values[i]);
        }
    }
    free(decoded);
}

/* Checks the records of `kind` and returns how many there were. */
static size_t check_records(const char *kind)
{
    quant_vectors vectors = quant_vectors_open();
    quant_record record;
    size_t n_checked = 0;
    while (quant_vectors_next(&vectors, &record)) {
        if (strcmp(record.kind, kind) == 0) {
            assert_decodes_to(&record, record.blocks);
            n_checked++;
        }
        free(record.values);
    }
    quant_vectors_close(&vectors);
    return n_checked;
}

static void random_blocks_decode_as_the_reference_does(void **state)
{
    (void)state;
    assert_int_equal(check_records("random"), 20);
}

static void the_references_own_blocks_decode_as_it_does(void **state)
{
    (void)state;
    assert_int_equal(check_records("encoded"), 8);
}

static void plain_floats_decode_to_themselves(void **state)
{
    (void)state;
    assert_int_equal(check_records("source"), 1);
}

static void blocks_may_start_at_any_address(void **state)
{
    (void)state;
    quant_vectors vectors = quant_vectors_open();
    quant_record record;
    while (quant_vectors_next(&vectors, &record)) {
        for (size_t shift = 0; shift < 4; shift++) {
            unsigned char *moved = malloc(record.n_bytes + shift);
            assert_non_null(moved);
            memcpy(moved + shift, record.blocks, record.n_bytes);
            assert_decodes_to(&record, moved + shift);
            free(moved);
        }
        free(record.values);
    }
    quant_vectors_close(&vectors);
}

static void every_mxfp4_scale_is_half_its_power_of_two(void **state)
{
    (void)state;
    for (int exponent = 0; exponent < 256; exponent++) {
        assert_true((double)sl_e8m0_half((uint8_t)exponent) == ldexp(1.0, exponent - 128));
    }
}

static void an_empty_row_touches_nothing(void **state)
{
    (void)state;
    for (int number = 0; number < SL_TYPE_FILE_COUNT; number++) {
        const sl_type_traits *traits = sl_type_traits_of(number);
        if (traits != NULL && traits->decode_row != NULL) {
            traits->decode_row(NULL, NULL, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_blocks_decode_as_the_reference_does),
        cmocka_unit_test(the_references_own_blocks_decode_as_it_does),
        cmocka_unit_test(plain_floats_decode_to_themselves),
        cmocka_unit_test(blocks_may_start_at_any_address),
        cmocka_unit_test(every_mxfp4_scale_is_half_its_power_of_two),
        cmocka_unit_test(an_empty_row_touches_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
