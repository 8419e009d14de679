// epilogue_avx2.h: epilogue.h's results that are codes, but for those of the fixed mode, in vectors of 8: a compiler
// makes three times as many instructions of the equations, since it may not take a minimum of floats for one. No torch
// header.
#pragma once

#if defined(__x86_64__)

#include "cpu/kernels/epilogue.h"
#include "cpu/kernels/multiply_avx2.h"

namespace quaver {

#define QUAVER_AVX2_INLINE inline __attribute__((always_inline)) QUAVER_AVX2

template <class Code>
struct EpilogueAvx2 : StoredBlock {
  static constexpr int kVector = 8;

  QUAVER_AVX2_INLINE explicit EpilogueAvx2(const StoredBlock& block)
      : StoredBlock(block), zero_points(has_zero_points(*problem)), has_bias(problem->bias.data != nullptr) {}

  QUAVER_AVX2_INLINE void row(int i) const {
    uint8_t* const to = static_cast<uint8_t*>(out) + i * pitch;
    const __m256i codes = in_range(codes_of(i, 0), codes_of(i, 1), codes_of(i, 2), codes_of(i, 3));
    if (columns->count == Panel::kColumns) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), codes);
    uint8_t part[Panel::kColumns];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(part), codes);
    std::memcpy(to, part, columns->count);
  }

 private:
  bool zero_points;
  bool has_bias;

  template <class T>
  QUAVER_AVX2_INLINE static __m256i integers(const T* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }

  QUAVER_AVX2_INLINE __m256i products(int i, int first) const {
    const __m256i acc = integers((*sums)[i] + first);
    if (!zero_points) return acc;
    const __m256i of_a =
        _mm256_mullo_epi32(_mm256_set1_epi32(row_values->zero_point[i]), integers(columns->sum + first));
    const __m256i of_b =
        _mm256_mullo_epi32(_mm256_set1_epi32(row_values->sum[i]), integers(columns->zero_point + first));
    return _mm256_sub_epi32(_mm256_sub_epi32(acc, of_a), of_b);
  }

  QUAVER_AVX2_INLINE __m256 scaled(int i, int first) const {
    const __m256 by = _mm256_mul_ps(_mm256_set1_ps(row_values->scale[i]), _mm256_load_ps(columns->scale + first));
    __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(products(i, first)), by);
    if (has_bias) v = _mm256_add_ps(v, _mm256_load_ps(columns->bias + first));
    if (problem->relu) v = _mm256_andnot_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LE_OQ), v);
    return v;
  }

  // Before they are brought into the range.
  QUAVER_AVX2_INLINE __m256i codes_of(int i, int vector) const {
    const int first = vector * kVector;
    const __m256 steps = _mm256_div_ps(scaled(i, first), _mm256_load_ps(columns->out_scale + first));
    const __m256 number = _mm256_and_ps(steps, _mm256_cmp_ps(steps, steps, _CMP_ORD_Q));
    const __m256 cut = _mm256_min_ps(_mm256_max_ps(number, _mm256_set1_ps(-512.0f)), _mm256_set1_ps(512.0f));
    return _mm256_add_epi32(_mm256_cvtps_epi32(cut), integers(columns->out_zero_point + first));
  }

  // Saturation on the way to bytes cuts at the type's ends, as wide as any range.
  QUAVER_AVX2_INLINE __m256i in_range(__m256i a, __m256i b, __m256i c, __m256i d) const {
    const __m256i low = _mm256_packs_epi32(a, b);  // within halves of vectors
    const __m256i high = _mm256_packs_epi32(c, d);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i q_min = _mm256_set1_epi8(static_cast<char>(problem->range.q_min));
    const __m256i q_max = _mm256_set1_epi8(static_cast<char>(problem->range.q_max));
    if constexpr (std::is_same_v<Code, int8_t>) {
      const __m256i codes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
      return _mm256_min_epi8(_mm256_max_epi8(codes, q_min), q_max);
    } else {
      const __m256i codes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
      return _mm256_min_epu8(_mm256_max_epu8(codes, q_min), q_max);
    }
  }
};

}  // namespace quaver

#endif
