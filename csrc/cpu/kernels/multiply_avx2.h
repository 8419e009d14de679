// multiply_avx2.h: a block of rows by a panel with AVX2, whose sums of products of bytes saturate: those of pairs of 16
// bits do not. No torch header.
//
// The codes of a are widened once, when a chunk of rows is taken (matmul_rows.h); those of b on the way. Six rows by
// two vectors are what fits into 16 registers: 12 sums, two vectors of b, one of a, and a product. A product of fours
// is two neighbouring sums of pairs, which are added in the end.
#pragma once

#if defined(__x86_64__)

#include "cpu/kernels/multiply.h"
#include "cpu/kernels/stream.h"

namespace quaver {

#define QUAVER_AVX2 QUAVER_TARGET("avx2")

inline int64_t load_eight(const uint8_t* codes) {
  int64_t eight;
  std::memcpy(&eight, codes, sizeof eight);
  return eight;
}

template <class Code>
QUAVER_AVX2 inline __m256i widened(__m128i codes) {
  return std::is_same_v<Code, int8_t> ? _mm256_cvtepi8_epi16(codes) : _mm256_cvtepu8_epi16(codes);
}

// sum + the products of pairs. Written so that the sum stays in its register: left alone, a compiler makes all products
// first, and spills sums for them.
QUAVER_AVX2 inline __m256i add_products(__m256i sum, __m256i a, __m256i b) {
  asm volatile("vpaddd %1, %0, %0" : "+x"(sum) : "x"(_mm256_madd_epi16(a, b)));
  return sum;
}

// As many fours as leave their part of a panel, 16 kB, and that of six rows, 6 kB, in the first cache.
inline constexpr int64_t kFirstCacheFours = 8 * Panel::kStepFours;

// Adds kRows rows by kVectors vectors of 4 columns at a time to acc.
template <class B, int kRows, int kVectors>
QUAVER_AVX2 void add_rows_avx2(const uint8_t* a, int64_t stride, const uint8_t* panel, int64_t fours,
                               int32_t (*acc)[Panel::kColumns]) {
  constexpr int kVectorsOfHalf = Panel::kHalf / 4;
  for (int first = 0; first < 2 * kVectorsOfHalf; first += kVectors) {
    __m256i sum[kRows][kVectors] = {};
    const uint8_t* b = panel + first / kVectorsOfHalf * Panel::kHalfBytes + first % kVectorsOfHalf * 16;
    const uint8_t* four_of_a = a;
    for (int64_t left = fours; left > 0; left -= Panel::kStepFours, b += Panel::kStepBytes) {
      const uint8_t* const end = b + std::min(left, Panel::kStepFours) * Panel::kFourBytes;
      if constexpr (kRows <= 2) fetch_ahead(b, kVectors / kVectorsOfHalf * Panel::kHalfBytes);  // few wait for memory
      for (const uint8_t* four = b; four != end; four += Panel::kFourBytes, four_of_a += 4 * sizeof(int16_t)) {
        __m256i codes[kVectors];
        for (int v = 0; v < kVectors; ++v)
          codes[v] = widened<B>(_mm_loadu_si128(reinterpret_cast<const __m128i*>(
              four + v / kVectorsOfHalf * Panel::kHalfBytes + v % kVectorsOfHalf * 16)));
        for (int row = 0; row < kRows; ++row) {
          const __m256i same = _mm256_set1_epi64x(load_eight(four_of_a + row * stride));
          for (int v = 0; v < kVectors; ++v) sum[row][v] = add_products(sum[row][v], same, codes[v]);
        }
      }
    }
    for (int row = 0; row < kRows; ++row) {
      for (int v = 0; v < kVectors; v += 2) {
        const __m256i added = _mm256_hadd_epi32(sum[row][v], sum[row][v + 1]);  // within halves of vectors
        __m256i* const to = reinterpret_cast<__m256i*>(acc[row] + (first + v) * 4);
        _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), _mm256_permute4x64_epi64(added, 0xD8)));
      }
    }
  }
}

template <class B>
void multiply_avx2(const BlockOfRows& a, const uint8_t* panel, int64_t fours, const MovedSums&, BlockSums& acc) {
  std::memset(acc, 0, a.rows * sizeof acc[0]);
  for (int64_t begin = 0; begin < fours; begin += kFirstCacheFours) {
    const int64_t count = std::min(fours - begin, kFirstCacheFours);
    const uint8_t* const b = panel + begin / Panel::kStepFours * Panel::kStepBytes;
    in_groups<6>(a.rows, 0, [&](auto rows, int first) {
      constexpr int kVectors = rows == 1 ? 8 : rows == 2 ? 4 : 2;
      add_rows_avx2<B, rows, kVectors>(a.codes + first * a.stride + begin * 8, a.stride, b, count, acc + first);
    });
  }
}

}  // namespace quaver

#endif
