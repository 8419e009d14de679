// depthwise_taps.h: the sums of a pixel's taps for 16 channels at a time, where each channel is convolved for itself.
// No torch header.
//
// Taps come in pairs, the last with one whose weights are 0 if their number is odd: AVX2 adds up pairs of products.
#pragma once

#include <cstdint>

#include "arith.h"
#include "cpu/kernels/multiply_avx2.h"
#include "cpu/simd.h"

namespace quaver {

inline constexpr int kTapChannels = 16;

// Where the pixels are that the taps lie over: offsets from the first, or, with an origin of 0, their addresses.
struct TapPlaces {
  uintptr_t origin;
  const intptr_t* offset;

  inline __attribute__((always_inline)) const uint8_t* operator[](int64_t tap) const {
    return reinterpret_cast<const uint8_t*>(origin + offset[tap]);
  }
};

// sum[i] = first[i] + the codes of channels [channel, channel + 16) of all taps times [pair][channel of 16][tap of 2]
// weights.
using SumTaps = void (*)(TapPlaces taps, int64_t pairs, int64_t channel, const int16_t* weight, const int32_t* first,
                         int32_t* sum);

template <class Code>
void sum_taps_portable(TapPlaces taps, int64_t pairs, int64_t channel, const int16_t* __restrict weight,
                       const int32_t* __restrict first, int32_t* __restrict sum) {
  for (int i = 0; i < kTapChannels; ++i) sum[i] = first[i];
  for (int64_t pair = 0; pair < pairs; ++pair, weight += 2 * kTapChannels) {
    const Code* const even = reinterpret_cast<const Code*>(taps[2 * pair]) + channel;
    const Code* const odd = reinterpret_cast<const Code*>(taps[2 * pair + 1]) + channel;
    for (int i = 0; i < kTapChannels; ++i)
      sum[i] = wrapping_add(sum[i], even[i] * weight[2 * i] + odd[i] * weight[2 * i + 1]);
  }
}

#if defined(__x86_64__)
template <class Code>
QUAVER_AVX2 void sum_taps_avx2(TapPlaces taps, int64_t pairs, int64_t channel, const int16_t* weight,
                               const int32_t* first, int32_t* sum) {
  __m256i sums[2];  // of 8 channels
  for (int half = 0; half < 2; ++half)
    sums[half] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first + half * 8));
  taps.origin += channel;
  for (int64_t pair = 0; pair < pairs; ++pair, weight += 2 * kTapChannels) {
    const __m128i even = _mm_loadu_si128(reinterpret_cast<const __m128i*>(taps[2 * pair]));
    const __m128i odd = _mm_loadu_si128(reinterpret_cast<const __m128i*>(taps[2 * pair + 1]));
    const __m128i neighbours[2] = {_mm_unpacklo_epi8(even, odd), _mm_unpackhi_epi8(even, odd)};
    for (int half = 0; half < 2; ++half) {
      const __m256i by = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weight + half * 16));
      sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(widened<Code>(neighbours[half]), by));
    }
  }
  for (int half = 0; half < 2; ++half) _mm256_storeu_si256(reinterpret_cast<__m256i*>(sum + half * 8), sums[half]);
}
#endif

template <class Code>
SumTaps choose_sum_taps(CpuCapability capability) {
#if defined(__x86_64__)
  if (capability >= CpuCapability::kAvx2) return sum_taps_avx2<Code>;
#endif
  return sum_taps_portable<Code>;
}

}  // namespace quaver
