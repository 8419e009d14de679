// epilogue_avx512.h: epilogue.h's results in vectors of 16, but for those of the fixed mode, and codes by a division
// that is none. No torch header.
//
// v / s, rounded to nearest, comes of three products fused with sums, from 1 / s rounded and what that rounding left;
// csrc/cuda/quotient.cuh has the proof. As there, scales far from 1 are first brought near it by a power of 2, and v is
// cut to what the codes' range needs.
#pragma once

#if defined(__x86_64__)

#include "cpu/kernels/epilogue.h"

namespace quaver {

#define QUAVER_AVX512_INLINE \
  inline __attribute__((always_inline)) QUAVER_TARGET("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")

// 16 columns' division by out_scale.
struct VectorQuotient {
  __m512 factor, scale, reciprocal, rest, lowest, highest;
  __m512i zero_point;

  VectorQuotient() = default;
  QUAVER_AVX512_INLINE VectorQuotient(const ColumnValues& columns, int first, CodeRange range)
      : zero_point(_mm512_load_si512(columns.out_zero_point + first)) {
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 given = _mm512_load_ps(columns.out_scale + first);
    const __mmask16 small = _mm512_cmp_ps_mask(given, _mm512_set1_ps(0x1p-60f), _CMP_LT_OQ);
    const __mmask16 large = _mm512_cmp_ps_mask(given, _mm512_set1_ps(0x1p60f), _CMP_GT_OQ);
    factor =
        _mm512_mask_mov_ps(_mm512_mask_mov_ps(one, small, _mm512_set1_ps(0x1p100f)), large, _mm512_set1_ps(0x1p-80f));
    scale = _mm512_mul_ps(given, factor);
    reciprocal = _mm512_div_ps(one, scale);
    rest = _mm512_mul_ps(_mm512_fnmadd_ps(scale, reciprocal, one), reciprocal);
    const __m512i least = _mm512_sub_epi32(_mm512_set1_epi32(range.q_min), zero_point);
    const __m512i most = _mm512_sub_epi32(_mm512_set1_epi32(range.q_max), zero_point);
    lowest = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(least));
    highest = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(most));
  }

  QUAVER_AVX512_INLINE __m512i codes(__m512 v) const {
    const __m512 number = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, v, _CMP_ORD_Q), v);
    const __m512 cut = _mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(number, factor), lowest), highest);
    const __m512 near = _mm512_fmadd_ps(cut, reciprocal, _mm512_mul_ps(cut, rest));
    const __m512 quotient = _mm512_fmadd_ps(_mm512_fnmadd_ps(near, scale, cut), reciprocal, near);
    const __m512i rounded = _mm512_cvt_roundps_epi32(quotient, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm512_add_epi32(rounded, zero_point);
  }
};

// As from_float of convert.h.
QUAVER_AVX512_INLINE __m256i bfloat16_of(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __m512i high = _mm512_mask_mov_epi32(_mm512_srli_epi32(rounded, 16), _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q),
                                             _mm512_set1_epi32(0x7FC0));
  return _mm512_cvtepi32_epi16(high);
}

QUAVER_AVX512_INLINE __m256i float16_of(__m512 v) {
  const __m256i half = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256i sign = _mm256_and_si256(half, _mm256_set1_epi16(static_cast<int16_t>(0x8000)));
  const __m256i nan = _mm256_or_si256(sign, _mm256_set1_epi16(0x7E00));
  return _mm256_mask_mov_epi16(half, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), nan);
}

template <class Out>
struct EpilogueAvx512 : StoredBlock {
  static constexpr int kVector = 16;

  EpilogueAvx512() = default;
  QUAVER_AVX512_INLINE explicit EpilogueAvx512(const StoredBlock& block)
      : StoredBlock(block),
        zero_points(has_zero_points(*problem)),
        has_bias(problem->bias.data != nullptr),
        relu(problem->relu),
        whole(columns->count == Panel::kColumns) {
    for (int half = 0; half < 2; ++half) {
      const int left = columns->count - half * kVector;
      stored[half] = static_cast<__mmask16>(left >= kVector ? 0xFFFF : left <= 0 ? 0 : (1 << left) - 1);
      scale[half] = _mm512_load_ps(columns->scale + half * kVector);
      bias[half] = _mm512_load_ps(columns->bias + half * kVector);
      if constexpr (kIsCode<Out>) quotient[half] = VectorQuotient(*columns, half * kVector, problem->range);
    }
  }

  QUAVER_AVX512_INLINE void row(int i) const {
    Out* const to = static_cast<Out*>(out) + i * pitch;
    if constexpr (kIsCode<Out>) {
      if (whole) {
        const __m256i codes = _mm256_set_m128i(codes_of(i, 1), codes_of(i, 0));
        return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), codes);
      }
    }
    for (int half = 0; half < 2; ++half) store(i, half, to + half * kVector);
  }

 private:
  bool zero_points = false;
  bool has_bias = false;
  bool relu = false;
  bool whole = false;
  __mmask16 stored[2];
  __m512 scale[2];
  __m512 bias[2];
  VectorQuotient quotient[2];

  QUAVER_AVX512_INLINE __m512i products(int i, int half) const {
    const int first = half * kVector;
    const __m512i acc = _mm512_loadu_si512((*sums)[i] + first);
    if (!zero_points) return acc;
    const __m512i of_a =
        _mm512_mullo_epi32(_mm512_set1_epi32(row_values->zero_point[i]), _mm512_load_si512(columns->sum + first));
    const __m512i of_b =
        _mm512_mullo_epi32(_mm512_set1_epi32(row_values->sum[i]), _mm512_load_si512(columns->zero_point + first));
    return _mm512_sub_epi32(_mm512_sub_epi32(acc, of_a), of_b);
  }

  QUAVER_AVX512_INLINE __m512 scaled(int i, int half) const {
    const __m512 by = _mm512_mul_ps(_mm512_set1_ps(row_values->scale[i]), scale[half]);
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(products(i, half)), by);
    if (has_bias) v = _mm512_add_ps(v, bias[half]);
    if (relu) v = _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LE_OQ), _mm512_setzero_ps());
    return v;
  }

  QUAVER_AVX512_INLINE __m128i codes_of(int i, int half) const {
    return _mm512_cvtepi32_epi8(quotient[half].codes(scaled(i, half)));
  }

  QUAVER_AVX512_INLINE void store(int i, int half, Out* to) const {
    const __mmask16 mask = stored[half];
    if constexpr (std::is_same_v<Out, int32_t>) _mm512_mask_storeu_epi32(to, mask, products(i, half));
    if constexpr (std::is_same_v<Out, float>) _mm512_mask_storeu_ps(to, mask, scaled(i, half));
    if constexpr (std::is_same_v<Out, BFloat16>) _mm256_mask_storeu_epi16(to, mask, bfloat16_of(scaled(i, half)));
    if constexpr (std::is_same_v<Out, Float16>) _mm256_mask_storeu_epi16(to, mask, float16_of(scaled(i, half)));
    if constexpr (kIsCode<Out>) _mm_mask_storeu_epi8(to, mask, codes_of(i, half));
  }
};

}  // namespace quaver

#endif
