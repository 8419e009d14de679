// multiply.h: int32 sums of products of codes, a block of up to 32 rows of a by a panel of b (panels.h): the inner
// loops of the CPU matmul, but for those of AMX. No torch header.
//
// What multiplies bytes directly takes fours of unsigned by signed ones. Codes of other signs are moved by 128 first,
// and the sums that this adds to the products are what the accumulators start with: no sign costs more than another.
// Without such instructions codes are widened to 16 bits. Every sum is exact, as long as it fits. AVX2's loops are in
// multiply_avx2.h, AMX's in multiply_amx.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "arith.h"
#include "cpu/kernels/panels.h"

namespace quaver {

inline constexpr int kBlockRows = 32;

using BlockSums = int32_t[kBlockRows][Panel::kColumns];

// In which form a kernel reads rows of a.
enum class RowForm {
  kFours,  // codes, followed by zeros to a multiple of 4
  kMoved,  // the same, int8 ones moved by 128, so that all are unsigned
  kWide,   // the same in 16 bits, not moved
  kTiles,  // codes, followed by zeros to a whole step of a panel, and by rows that can be read to a whole tile
};

struct BlockOfRows {
  const uint8_t* codes;
  int64_t stride;  // from row to row, in bytes
  int rows;
};

// What products of moved codes start with: for column n and row m, column[n] + row[m].
struct MovedSums {
  int32_t column[Panel::kColumns];
  int32_t row[kBlockRows];
};

// `fours`: how many fours of codes along K there are to multiply.
using MultiplyBlock = void (*)(const BlockOfRows& a, const uint8_t* panel, int64_t fours, const MovedSums& moved,
                               BlockSums& acc);

inline uint32_t load_four(const uint8_t* codes) {
  uint32_t four;
  std::memcpy(&four, codes, sizeof four);
  return four;
}

template <class A, class B>
void multiply_portable(const BlockOfRows& a, const uint8_t* panel, int64_t fours, const MovedSums&, BlockSums& acc) {
  for (int row = 0; row < a.rows; ++row) {
    std::memset(acc[row], 0, sizeof acc[row]);
    const uint8_t* codes = a.codes + row * a.stride;
    const uint8_t* b = panel;
    for (int64_t left = fours; left > 0; left -= Panel::kStepFours, codes += Panel::kStepCodes) {
      const int64_t count = std::min(left, Panel::kStepFours);
      for (int half = 0; half < 2; ++half, b += Panel::kHalfBytes) {
        int32_t* __restrict sum = acc[row] + half * Panel::kHalf;
        for (int64_t four = 0; four < count; ++four)
          for (int column = 0; column < Panel::kHalf; ++column)
            for (int i = 0; i < 4; ++i)
              sum[column] +=
                  static_cast<A>(codes[four * 4 + i]) * static_cast<B>(b[(four * Panel::kHalf + column) * 4 + i]);
      }
    }
  }
}

#if defined(__x86_64__)

#define QUAVER_AVX_VNNI QUAVER_TARGET("avx2,avxvnni")
#define QUAVER_AVX512_VNNI QUAVER_TARGET("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")

template <class Code>
QUAVER_AVX512 inline __m512i widened(__m256i codes) {
  return std::is_same_v<Code, int8_t> ? _mm512_cvtepi8_epi16(codes) : _mm512_cvtepu8_epi16(codes);
}

template <class A, class B, int kRows>
QUAVER_AVX512 void multiply_rows_avx512(const uint8_t* a, int64_t stride, const uint8_t* panel, int64_t fours,
                                        int32_t (*acc)[Panel::kColumns]) {
  constexpr int kVectors = 4;  // of 8 columns
  __m512i sum[kRows][kVectors] = {};
  for (; fours > 0; fours -= Panel::kStepFours, panel += Panel::kStepBytes) {
    const int64_t count = std::min(fours, Panel::kStepFours);
    for (int64_t four = 0; four < count; ++four, a += 4) {
      __m512i codes[kVectors];
      for (int v = 0; v < kVectors; ++v)
        codes[v] = widened<B>(_mm256_loadu_si256(
            reinterpret_cast<const __m256i*>(panel + v / 2 * Panel::kHalfBytes + four * 64 + v % 2 * 32)));
      for (int row = 0; row < kRows; ++row) {
        const uint32_t word = load_four(a + row * stride);
        const __m512i same = widened<A>(_mm256_set1_epi32(static_cast<int32_t>(word)));
        for (int v = 0; v < kVectors; ++v)
          sum[row][v] = _mm512_add_epi32(sum[row][v], _mm512_madd_epi16(same, codes[v]));
      }
    }
  }
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  for (int row = 0; row < kRows; ++row) {
    for (int v = 0; v < kVectors; v += 2) {
      const __m512i first = _mm512_permutex2var_epi32(sum[row][v], even, sum[row][v + 1]);
      const __m512i second = _mm512_permutex2var_epi32(sum[row][v], odd, sum[row][v + 1]);
      _mm512_storeu_si512(acc[row] + v * 8, _mm512_add_epi32(first, second));
    }
  }
}

// The codes of a are moved already; those of b here.
template <class B, int kRows>
QUAVER_AVX_VNNI void multiply_rows_avx_vnni(const uint8_t* a, int64_t stride, const uint8_t* panel, int64_t fours,
                                            const int32_t* column, const int32_t* row_sum,
                                            int32_t (*acc)[Panel::kColumns]) {
  constexpr int kVectors = 2;  // of 8 columns
  const __m256i by = _mm256_set1_epi8(std::is_same_v<B, uint8_t> ? -128 : 0);
  for (int first = 0; first < Panel::kColumns; first += Panel::kHalf) {
    __m256i sum[kRows][kVectors];
    for (int row = 0; row < kRows; ++row)
      for (int v = 0; v < kVectors; ++v)
        sum[row][v] = _mm256_add_epi32(_mm256_set1_epi32(row_sum[row]),
                                       _mm256_loadu_si256(reinterpret_cast<const __m256i*>(column + first + v * 8)));
    const uint8_t* b = panel + first / Panel::kHalf * Panel::kHalfBytes;
    const uint8_t* four_of_a = a;
    for (int64_t left = fours; left > 0; left -= Panel::kStepFours, b += Panel::kStepBytes) {
      const int64_t count = std::min(left, Panel::kStepFours);
      for (int64_t four = 0; four < count; ++four, four_of_a += 4) {
        __m256i codes[kVectors];
        for (int v = 0; v < kVectors; ++v)
          codes[v] = _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + four * 64 + v * 32)), by);
        for (int row = 0; row < kRows; ++row) {
          const uint32_t word = load_four(four_of_a + row * stride);
          const __m256i same = _mm256_set1_epi32(static_cast<int32_t>(word));
          for (int v = 0; v < kVectors; ++v) sum[row][v] = _mm256_dpbusd_avx_epi32(sum[row][v], same, codes[v]);
        }
      }
    }
    for (int row = 0; row < kRows; ++row)
      for (int v = 0; v < kVectors; ++v)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(acc[row] + first + v * 8), sum[row][v]);
  }
}

template <class B, int kRows>
QUAVER_AVX512_VNNI void multiply_rows_avx512_vnni(const uint8_t* a, int64_t stride, const uint8_t* panel, int64_t fours,
                                                  const int32_t* column, const int32_t* row_sum,
                                                  int32_t (*acc)[Panel::kColumns]) {
  constexpr int kVectors = 2;  // of 16 columns
  const __m512i by = _mm512_set1_epi8(std::is_same_v<B, uint8_t> ? -128 : 0);
  __m512i sum[kRows][kVectors];
  for (int row = 0; row < kRows; ++row)
    for (int v = 0; v < kVectors; ++v)
      sum[row][v] = _mm512_add_epi32(_mm512_set1_epi32(row_sum[row]), _mm512_loadu_si512(column + v * 16));
  for (; fours > 0; fours -= Panel::kStepFours, panel += Panel::kStepBytes) {
    const int64_t count = std::min(fours, Panel::kStepFours);
    for (int64_t four = 0; four < count; ++four, a += 4) {
      __m512i codes[kVectors];
      for (int v = 0; v < kVectors; ++v)
        codes[v] = _mm512_xor_si512(_mm512_loadu_si512(panel + v * Panel::kHalfBytes + four * 64), by);
      for (int row = 0; row < kRows; ++row) {
        const uint32_t word = load_four(a + row * stride);
        const __m512i same = _mm512_set1_epi32(static_cast<int32_t>(word));
        for (int v = 0; v < kVectors; ++v) sum[row][v] = _mm512_dpbusd_epi32(sum[row][v], same, codes[v]);
      }
    }
  }
  for (int row = 0; row < kRows; ++row)
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_si512(acc[row] + v * 16, sum[row][v]);
}

// Calls run(number of rows as a constant, first row) for all rows, kMost at a time, and the rest at once.
template <int kMost, class Run>
inline __attribute__((always_inline)) void in_groups(int rows, int first, const Run& run) {
  for (; rows - first >= kMost; first += kMost) run(std::integral_constant<int, kMost>{}, first);
  if constexpr (kMost > 1) in_groups<kMost - 1>(rows, first, run);
}

template <class A, class B>
void multiply_avx512(const BlockOfRows& a, const uint8_t* panel, int64_t fours, const MovedSums&, BlockSums& acc) {
  in_groups<4>(a.rows, 0, [&](auto rows, int first) {
    multiply_rows_avx512<A, B, rows>(a.codes + first * a.stride, a.stride, panel, fours, acc + first);
  });
}

template <class B>
void multiply_avx_vnni(const BlockOfRows& a, const uint8_t* panel, int64_t fours, const MovedSums& moved,
                       BlockSums& acc) {
  in_groups<4>(a.rows, 0, [&](auto rows, int first) {
    multiply_rows_avx_vnni<B, rows>(a.codes + first * a.stride, a.stride, panel, fours, moved.column, moved.row + first,
                                    acc + first);
  });
}

template <class B>
void multiply_avx512_vnni(const BlockOfRows& a, const uint8_t* panel, int64_t fours, const MovedSums& moved,
                          BlockSums& acc) {
  in_groups<8>(a.rows, 0, [&](auto rows, int first) {
    multiply_rows_avx512_vnni<B, rows>(a.codes + first * a.stride, a.stride, panel, fours, moved.column,
                                       moved.row + first, acc + first);
  });
}

#endif

}  // namespace quaver
