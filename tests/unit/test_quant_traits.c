/* The table of element types. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

#include <ctype.h>
#include <limits.h>
#include <string.h>

#include "quant/blocks.h"
#include "quant/traits.h"

/* The GGUF format's own numbers and sizes, written out once more. */
typedef struct format_row {
    int number;
    const char *name;
    uint32_t elements;
    uint32_t bytes;
    char access; /* 'w': read and written, 'r': read, '-': only its size is known */
} format_row;

static const format_row format[] = {
    {0, "F32", 1, 4, 'w'},         {1, "F16", 1, 2, 'w'},         {2, "Q4_0", 32, 18, 'w'},
    {3, "Q4_1", 32, 20, 'w'},      {6, "Q5_0", 32, 22, 'w'},      {7, "Q5_1", 32, 24, 'w'},
    {8, "Q8_0", 32, 34, 'w'},      {9, "Q8_1", 32, 36, '-'},      {10, "Q2_K", 256, 84, 'r'},
    {11, "Q3_K", 256, 110, 'r'},   {12, "Q4_K", 256, 144, 'w'},   {13, "Q5_K", 256, 176, 'w'},
    {14, "Q6_K", 256, 210, 'w'},   {15, "Q8_K", 256, 292, '-'},   {16, "IQ2_XXS", 256, 66, 'r'},
    {17, "IQ2_XS", 256, 74, 'r'},  {18, "IQ3_XXS", 256, 98, 'r'}, {19, "IQ1_S", 256, 50, 'r'},
    {20, "IQ4_NL", 32, 18, 'w'},   {21, "IQ3_S", 256, 110, 'r'},  {22, "IQ2_S", 256, 82, 'r'},
    {23, "IQ4_XS", 256, 136, 'r'}, {24, "I8", 1, 1, '-'},         {25, "I16", 1, 2, '-'},
    {26, "I32", 1, 4, '-'},        {27, "I64", 1, 8, '-'},        {28, "F64", 1, 8, '-'},
    {29, "IQ1_M", 256, 56, 'r'},   {30, "BF16", 1, 2, 'w'},       {39, "MXFP4", 32, 17, 'w'},
};
enum { N_FORMATS = sizeof format / sizeof format[0] };

static void every_type_of_the_format_has_its_name_and_sizes(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FORMATS; i++) {
        const sl_type_traits *traits = sl_type_traits_of(format[i].number);
        assert_non_null(traits);
        assert_string_equal(traits->name, format[i].name);
        assert_int_equal(traits->block_elements, format[i].elements);
        assert_int_equal(traits->block_bytes, format[i].bytes);
        assert_int_equal(traits->decode_row != NULL, format[i].access != '-');
        assert_int_equal(traits->encode_row != NULL, format[i].access == 'w');
    }
}

static void no_other_number_names_a_type(void **state)
{
    (void)state;
    size_t n_named = 0;
    for (int number = 0; number < SL_TYPE_FILE_COUNT; number++) {
        n_named += sl_type_traits_of(number) != NULL;
    }
    assert_int_equal(n_named, N_FORMATS);
    const int outside[] = {-1, INT_MIN, SL_TYPE_COUNT, 4, 5, 38, 1000, INT_MAX};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        assert_null(sl_type_traits_of(outside[i]));
    }
}

static void the_activation_partner_follows_the_block_size(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FORMATS; i++) {
        int expected = format[i].elements == 256  ? SL_TYPE_ACT_Q8_256
                       : format[i].elements == 32 ? SL_TYPE_ACT_Q8_32
                                                  : SL_TYPE_F32;
        assert_int_equal(sl_type_traits_of(format[i].number)->activation_type, expected);
    }
}

static void activation_types_have_sizes_and_no_rows(void **state)
{
    (void)state;
    const sl_type_traits *small = sl_type_traits_of(SL_TYPE_ACT_Q8_32);
    const sl_type_traits *large = sl_type_traits_of(SL_TYPE_ACT_Q8_256);
    assert_int_equal(small->block_elements, 32);
    assert_int_equal(small->block_bytes, sizeof(sl_block_act_q8_32));
    assert_int_equal(large->block_elements, 256);
    assert_int_equal(large->block_bytes, sizeof(sl_block_act_q8_256));
    assert_null(small->decode_row);
    assert_null(large->encode_row);
}

static void names_are_parsed_in_either_case(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FORMATS; i++) {
        char lower[16] = {0};
        for (size_t j = 0; format[i].name[j] != 0; j++) {
            lower[j] = (char)tolower((unsigned char)format[i].name[j]);
        }
        sl_type type = SL_TYPE_COUNT;
        assert_true(sl_type_parse(format[i].name, &type));
        assert_int_equal(type, format[i].number);
        type = SL_TYPE_COUNT;
        assert_true(sl_type_parse(lower, &type));
        assert_int_equal(type, format[i].number);
    }
}

static void unknown_names_are_refused(void **state)
{
    (void)state;
    const char *const names[] = {"", "Q4", "Q4_K_M", " Q4_K", "Q4_K ", "Q9_0", "ACT_Q8_32", "ACT_Q8_256"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        sl_type type = SL_TYPE_COUNT;
        assert_false(sl_type_parse(names[i], &type));
        assert_int_equal(type, SL_TYPE_COUNT);
    }
}

static void row_bytes_are_whole_blocks(void **state)
{
    (void)state;
    assert_int_equal(sl_type_row_bytes(SL_TYPE_F32, 3), 12);
    assert_int_equal(sl_type_row_bytes(SL_TYPE_Q4_0, 2880), 2880 / 32 * 18);
    assert_int_equal(sl_type_row_bytes(SL_TYPE_Q4_K, 2048), 8 * 144);
    assert_int_equal(sl_type_row_bytes(SL_TYPE_Q6_K, UINT64_C(1) << 40), (UINT64_C(1) << 32) * 210);
    assert_int_equal(sl_type_row_bytes(SL_TYPE_MXFP4, 0), 0);
}

static void part_of_a_block_has_no_row_bytes(void **state)
{
    (void)state;
    assert_int_equal(sl_type_row_bytes(SL_TYPE_Q4_0, 31), 0);
    assert_int_equal(sl_type_row_bytes(SL_TYPE_Q4_0, 33), 0);
    assert_int_equal(sl_type_row_bytes(SL_TYPE_Q4_K, 2880), 0);
}

static void row_bytes_that_overflow_are_refused(void **state)
{
    (void)state;
    assert_int_equal(sl_type_row_bytes(SL_TYPE_F32, UINT64_MAX), 0);
    assert_int_equal(sl_type_row_bytes(SL_TYPE_F64, (UINT64_MAX >> 3) + 1), 0);
    assert_int_equal(sl_type_row_bytes(SL_TYPE_F64, UINT64_MAX >> 3), UINT64_MAX & ~UINT64_C(7));
    assert_int_equal(sl_type_row_bytes(SL_TYPE_Q8_0, UINT64_MAX & ~UINT64_C(31)), 0);
}

static void a_type_that_is_not_in_use_has_no_row_bytes(void **state)
{
    (void)state;
    assert_int_equal(sl_type_row_bytes((sl_type)4, 32), 0);
    assert_int_equal(sl_type_row_bytes(SL_TYPE_COUNT, 32), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_of_the_format_has_its_name_and_sizes),
        cmocka_unit_test(no_other_number_names_a_type),
        cmocka_unit_test(the_activation_partner_follows_the_block_size),
        cmocka_unit_test(activation_types_have_sizes_and_no_rows),
        cmocka_unit_test(names_are_parsed_in_either_case),
        cmocka_unit_test(unknown_names_are_refused),
        cmocka_unit_test(row_bytes_are_whole_blocks),
        cmocka_unit_test(part_of_a_block_has_no_row_bytes),
        cmocka_unit_test(row_bytes_that_overflow_are_refused),
        cmocka_unit_test(a_type_that_is_not_in_use_has_no_row_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
