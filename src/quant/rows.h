/* The row functions behind the traits table. Other rooms reach them through sl_type_traits_of. */
#ifndef SL_QUANT_ROWS_H
#define SL_QUANT_ROWS_H

#include "quant/traits.h"

sl_decode_row_fn sl_decode_row_f32, sl_decode_row_f16, sl_decode_row_bf16;
sl_decode_row_fn sl_decode_row_q4_0, sl_decode_row_q4_1, sl_decode_row_q5_0, sl_decode_row_q5_1, sl_decode_row_q8_0;
sl_decode_row_fn sl_decode_row_q2_k, sl_decode_row_q3_k, sl_decode_row_q4_k, sl_decode_row_q5_k, sl_decode_row_q6_k;
sl_decode_row_fn sl_decode_row_iq4_nl, sl_decode_row_iq4_xs, sl_decode_row_mxfp4;
sl_decode_row_fn sl_decode_row_iq1_s, sl_decode_row_iq1_m, sl_decode_row_iq2_xxs, sl_decode_row_iq2_xs;
sl_decode_row_fn sl_decode_row_iq2_s, sl_decode_row_iq3_xxs, sl_decode_row_iq3_s;

sl_encode_row_fn sl_encode_row_f32, sl_encode_row_f16, sl_encode_row_bf16;
sl_encode_row_fn sl_encode_row_q4_0, sl_encode_row_q4_1, sl_encode_row_q5_0, sl_encode_row_q5_1, sl_encode_row_q8_0;
sl_encode_row_fn sl_encode_row_q4_k, sl_encode_row_q5_k, sl_encode_row_q6_k;
sl_encode_row_fn sl_encode_row_iq4_nl, sl_encode_row_mxfp4;

#endif
