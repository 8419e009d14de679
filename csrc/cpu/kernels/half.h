// half.h: rows of float16 to and from float, by the instructions made for it where a machine has them: the numbers of
// convert.h, and NaN for NaN. No torch header.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cpu/fused.h"
#include "cpu/kernels/convert.h"

namespace quaver {

inline __attribute__((always_inline)) void widen_half(const Float16* __restrict from, int64_t n, float* __restrict to,
                                                      Fused<0>) {
  for (int64_t i = 0; i < n; ++i) to[i] = to_float(from[i]);
}

inline __attribute__((always_inline)) void narrow_half(const float* __restrict from, int64_t n, Float16* __restrict to,
                                                       Fused<0>) {
  for (int64_t i = 0; i < n; ++i) from_float(from[i], to[i]);
}

#if defined(__x86_64__)
// Instructions need functions of their own: what is inlined into a body may use those of every target only.
QUAVER_TARGET("avx2,f16c") inline void widen_half(const Float16* from, int64_t n, float* to, Fused<8>) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  widen_half(from + i, n - i, to + i, Fused<0>{});
}

QUAVER_TARGET("avx2,f16c") inline void narrow_half(const float* from, int64_t n, Float16* to, Fused<8>) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  narrow_half(from + i, n - i, to + i, Fused<0>{});
}

QUAVER_TARGET("avx512f,avx512bw,avx512vl")
inline void widen_half(const Float16* from, int64_t n, float* to, Fused<16>) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 rest = n - i < 16 ? (1u << (n - i)) - 1 : 0xFFFFu;
    _mm512_mask_storeu_ps(to + i, rest, _mm512_maskz_cvtph_ps(rest, _mm256_maskz_loadu_epi16(rest, from + i)));
  }
}

QUAVER_TARGET("avx512f,avx512bw,avx512vl")
inline void narrow_half(const float* from, int64_t n, Float16* to, Fused<16>) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 rest = n - i < 16 ? (1u << (n - i)) - 1 : 0xFFFFu;
    const __m512 x = _mm512_maskz_loadu_ps(rest, from + i);
    _mm256_mask_storeu_epi16(to + i, rest, _mm512_maskz_cvtps_ph(rest, x, _MM_FROUND_TO_NEAREST_INT));
  }
}
#endif

}  // namespace quaver
