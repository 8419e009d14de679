// multiply.h: int32 += int16 x int16 over packed operands, the inner loops of the CPU matmul. No torch header.
//
// b's codes lie in pairs along k, pair by pair for all columns of a tile, so that one multiply-add-pairs instruction
// serves as many columns as it has int32 lanes and nothing is ever summed across lanes.
#pragma once

#include <cstdint>
#include <cstring>

#include "arith.h"
#include "cpu/capability.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quaver {

inline constexpr int kTileColumns = 64;
inline constexpr int kRowsAtOnce = 4;

// acc [kRowsAtOnce][kTileColumns] += a [kRowsAtOnce][2 * pairs] x b [pairs][kTileColumns][2]
using MultiplyRows = void (*)(const int16_t* a, const int16_t* b, int pairs, int32_t* acc);

inline void multiply_rows_portable(const int16_t* __restrict a, const int16_t* __restrict b, int pairs,
                                   int32_t* __restrict acc) {
  for (int row = 0; row < kRowsAtOnce; ++row) {
    const int16_t* a_row = a + row * 2 * pairs;
    int32_t* sums = acc + row * kTileColumns;
    for (int pair = 0; pair < pairs; ++pair) {
      const int32_t first = a_row[2 * pair];
      const int32_t second = a_row[2 * pair + 1];
      const int16_t* b_pair = b + pair * 2 * kTileColumns;
      for (int n = 0; n < kTileColumns; ++n)
        sums[n] = wrapping_add(sums[n], wrapping_add(wrapping_multiply(first, b_pair[2 * n]),
                                                     wrapping_multiply(second, b_pair[2 * n + 1])));
    }
  }
}

#if defined(__x86_64__)

inline int32_t load_pair(const int16_t* pair) {
  int32_t both;
  std::memcpy(&both, pair, sizeof both);
  return both;
}

// Sixteen accumulators: four rows of 64 columns.
__attribute__((target("avx512f,avx512bw"))) inline void multiply_rows_avx512(const int16_t* a, const int16_t* b,
                                                                             int pairs, int32_t* acc) {
  constexpr int kLanes = 16;
  constexpr int kVectors = kTileColumns / kLanes;
  __m512i sum[kRowsAtOnce][kVectors];
  for (int row = 0; row < kRowsAtOnce; ++row)
    for (int v = 0; v < kVectors; ++v) sum[row][v] = _mm512_loadu_si512(acc + row * kTileColumns + v * kLanes);
  for (int pair = 0; pair < pairs; ++pair) {
    __m512i columns[kVectors];
    for (int v = 0; v < kVectors; ++v) columns[v] = _mm512_loadu_si512(b + (pair * kTileColumns + v * kLanes) * 2);
    for (int row = 0; row < kRowsAtOnce; ++row) {
      const __m512i both = _mm512_set1_epi32(load_pair(a + (row * pairs + pair) * 2));
      for (int v = 0; v < kVectors; ++v)
        sum[row][v] = _mm512_add_epi32(sum[row][v], _mm512_madd_epi16(both, columns[v]));
    }
  }
  for (int row = 0; row < kRowsAtOnce; ++row)
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_si512(acc + row * kTileColumns + v * kLanes, sum[row][v]);
}

// Eight accumulators at a time: two halves of the columns, two rows of each.
__attribute__((target("avx2"))) inline void multiply_rows_avx2(const int16_t* a, const int16_t* b, int pairs,
                                                               int32_t* acc) {
  constexpr int kLanes = 8;
  constexpr int kVectors = kTileColumns / kLanes / 2;
  constexpr int kRows = 2;
  for (int first_row = 0; first_row < kRowsAtOnce; first_row += kRows) {
    for (int first = 0; first < kTileColumns; first += kVectors * kLanes) {
      __m256i sum[kRows][kVectors];
      int32_t* sums = acc + first_row * kTileColumns + first;
      for (int row = 0; row < kRows; ++row)
        for (int v = 0; v < kVectors; ++v)
          sum[row][v] = _mm256_loadu_si256(reinterpret_cast<__m256i*>(sums + row * kTileColumns + v * kLanes));
      for (int pair = 0; pair < pairs; ++pair) {
        const int16_t* b_pair = b + (pair * kTileColumns + first) * 2;
        for (int row = 0; row < kRows; ++row) {
          const __m256i both = _mm256_set1_epi32(load_pair(a + ((first_row + row) * pairs + pair) * 2));
          for (int v = 0; v < kVectors; ++v) {
            const __m256i columns = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b_pair + v * kLanes * 2));
            sum[row][v] = _mm256_add_epi32(sum[row][v], _mm256_madd_epi16(both, columns));
          }
        }
      }
      for (int row = 0; row < kRows; ++row)
        for (int v = 0; v < kVectors; ++v)
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + row * kTileColumns + v * kLanes), sum[row][v]);
    }
  }
}

#endif

inline MultiplyRows choose_multiply_rows() {
#if defined(__x86_64__)
  switch (cpu_capability()) {
    case CpuCapability::kAvx512:
      return multiply_rows_avx512;
    case CpuCapability::kAvx2:
      return multiply_rows_avx2;
    default:
      break;
  }
#endif
  return multiply_rows_portable;
}

}  // namespace quaver
