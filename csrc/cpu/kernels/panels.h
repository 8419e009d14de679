// panels.h: b of a matmul in the order in which every instruction set multiplies it. No torch header.
//
// A panel is 32 columns of b. Along K it has steps of 64 codes, each two halves of 16 columns; a half has its columns'
// codes in fours along K: [k / 4 of 16][column of 16][k % 4 of 4], a kibibyte, which is a tile of AMX and 16 vectors of
// what multiplies fours of bytes. Zeros stand beyond K and beyond the last column. Behind its steps a panel has the
// sums of its columns' codes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "arith.h"
#include "cpu/kernels/element_types.h"
#include "cpu/simd.h"
#include "matmul_problem.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quaver {

struct Panel {
  static constexpr int kColumns = 32;
  static constexpr int kHalf = 16;
  static constexpr int kStepCodes = 64;
  static constexpr int64_t kStepFours = kStepCodes / 4;
  static constexpr int64_t kFourBytes = 4 * kHalf;
  static constexpr int64_t kHalfBytes = int64_t{kHalf} * kStepCodes;
  static constexpr int64_t kStepBytes = 2 * kHalfBytes;
  static constexpr int64_t kSumBytes = kColumns * 4;

  static int64_t steps(int64_t k) { return (k + kStepCodes - 1) / kStepCodes; }
  static int64_t bytes(int64_t k) { return steps(k) * kStepBytes + kSumBytes; }
  static int64_t count(int64_t n) { return (n + kColumns - 1) / kColumns; }
};

// What a panel is made of: columns of b, contiguous along K, across it, or neither.
struct PanelSource {
  const uint8_t* codes;
  int64_t k_stride;
  int64_t column_stride;
  int64_t k;
  int columns;  // up to Panel::kColumns
  CodeType type;
};

// The codes of columns [first, first + 16) in a step that begins at k, as lines [column of 16][k of 64]; beyond the
// last column and K, zeros.
inline void gather_lines(const PanelSource& source, int first, int64_t k, uint8_t (&line)[Panel::kHalf][64]) {
  std::memset(line, 0, sizeof line);
  const int columns = std::min(source.columns - first, Panel::kHalf);
  const int count = static_cast<int>(std::min<int64_t>(source.k - k, Panel::kStepCodes));
  const uint8_t* const codes = source.codes + first * source.column_stride + k * source.k_stride;
  if (source.k_stride == 1) {
    for (int column = 0; column < columns; ++column)
      std::memcpy(line[column], codes + column * source.column_stride, count);
    return;
  }
  for (int i = 0; i < count; ++i)
    for (int column = 0; column < columns; ++column)
      line[column][i] = codes[i * source.k_stride + column * source.column_stride];
}

// Adds the codes of a half to its columns' sums.
template <class Code>
inline __attribute__((always_inline)) void add_half(const uint8_t* __restrict half, int32_t* __restrict sum) {
  for (int four = 0; four < Panel::kHalf; ++four)
    for (int column = 0; column < Panel::kHalf; ++column)
      for (int i = 0; i < 4; ++i)
        sum[column] = wrapping_add(sum[column], static_cast<Code>(half[(four * Panel::kHalf + column) * 4 + i]));
}

// Lines [column of 16][k of 64] of 64 bytes, `stride` apart, to a half.
inline __attribute__((always_inline)) void half_of_lines(const uint8_t* line, int64_t stride, uint8_t* half) {
  for (int column = 0; column < Panel::kHalf; ++column)
    for (int four = 0; four < Panel::kHalf; ++four)
      std::memcpy(half + (four * Panel::kHalf + column) * 4, line + column * stride + four * 4, 4);
}

// Lines [k of 64][column of 16] of 16 bytes, `stride` apart, to a half.
inline void half_of_columns(const uint8_t* line, int64_t stride, uint8_t* half) {
#if defined(__x86_64__)
  for (int four = 0; four < Panel::kHalf; ++four, line += 4 * stride) {
    __m128i row[4];
    for (int i = 0; i < 4; ++i) row[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(line + i * stride));
    const __m128i low01 = _mm_unpacklo_epi8(row[0], row[1]);
    const __m128i low23 = _mm_unpacklo_epi8(row[2], row[3]);
    const __m128i high01 = _mm_unpackhi_epi8(row[0], row[1]);
    const __m128i high23 = _mm_unpackhi_epi8(row[2], row[3]);
    __m128i* to = reinterpret_cast<__m128i*>(half + four * Panel::kStepCodes);
    _mm_storeu_si128(to, _mm_unpacklo_epi16(low01, low23));
    _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(low01, low23));
    _mm_storeu_si128(to + 2, _mm_unpacklo_epi16(high01, high23));
    _mm_storeu_si128(to + 3, _mm_unpackhi_epi16(high01, high23));
  }
#else
  for (int four = 0; four < Panel::kHalf; ++four)
    for (int column = 0; column < Panel::kHalf; ++column)
      for (int i = 0; i < 4; ++i) half[(four * Panel::kHalf + column) * 4 + i] = line[(four * 4 + i) * stride + column];
#endif
}

#if defined(__x86_64__)
#define QUAVER_AVX512 QUAVER_TARGET("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")

// The same: 16 x 16 words are transposed, first in blocks of 4 x 4 within quarters of vectors, then the quarters.
QUAVER_AVX512 inline void half_of_lines_avx512(const uint8_t* line, int64_t stride, uint8_t* half) {
  __m512i row[16], pair[16];
  for (int i = 0; i < 16; ++i) row[i] = _mm512_loadu_si512(line + i * stride);
  for (int i = 0; i < 16; i += 2) {
    pair[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
    pair[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {  // row[i + j], quarter q: word 4 q + j of lines i to i + 3
    row[i] = _mm512_unpacklo_epi64(pair[i], pair[i + 2]);
    row[i + 1] = _mm512_unpackhi_epi64(pair[i], pair[i + 2]);
    row[i + 2] = _mm512_unpacklo_epi64(pair[i + 1], pair[i + 3]);
    row[i + 3] = _mm512_unpackhi_epi64(pair[i + 1], pair[i + 3]);
  }
  for (int j = 0; j < 4; ++j) {
    const __m512i low01 = _mm512_shuffle_i32x4(row[j], row[j + 4], 0x44);  // quarters 0 and 1 of both
    const __m512i low23 = _mm512_shuffle_i32x4(row[j + 8], row[j + 12], 0x44);
    const __m512i high01 = _mm512_shuffle_i32x4(row[j], row[j + 4], 0xEE);
    const __m512i high23 = _mm512_shuffle_i32x4(row[j + 8], row[j + 12], 0xEE);
    _mm512_storeu_si512(half + j * 64, _mm512_shuffle_i32x4(low01, low23, 0x88));
    _mm512_storeu_si512(half + (j + 4) * 64, _mm512_shuffle_i32x4(low01, low23, 0xDD));
    _mm512_storeu_si512(half + (j + 8) * 64, _mm512_shuffle_i32x4(high01, high23, 0x88));
    _mm512_storeu_si512(half + (j + 12) * 64, _mm512_shuffle_i32x4(high01, high23, 0xDD));
  }
}

template <class Code>
QUAVER_AVX512 inline void add_half_avx512(const uint8_t* half, int32_t* sum) {
  constexpr bool kSigned = std::is_same_v<Code, int8_t>;
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sums = _mm512_loadu_si512(sum);
  for (int four = 0; four < Panel::kHalf; ++four) {
    const __m512i codes = _mm512_loadu_si512(half + four * 64);
    const __m512i pairs = kSigned ? _mm512_maddubs_epi16(ones, codes) : _mm512_maddubs_epi16(codes, ones);
    sums = _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
  _mm512_storeu_si512(sum, sums);
}
#endif

// A half of lines that are all there: contiguous along K, or across it.
inline void make_half(const uint8_t* line, int64_t k_stride, int64_t column_stride, uint8_t* half) {
  if (k_stride != 1) return half_of_columns(line, k_stride, half);
#if defined(__x86_64__)
  if (cpu_capability() >= CpuCapability::kAvx512) return half_of_lines_avx512(line, column_stride, half);
#endif
  half_of_lines(line, column_stride, half);
}

template <class Code>
void add_sums(const uint8_t* half, int32_t* sum) {
#if defined(__x86_64__)
  if (cpu_capability() >= CpuCapability::kAvx512) return add_half_avx512<Code>(half, sum);
#endif
  vectorized([&]() QUAVER_INLINE { add_half<Code>(half, sum); });
}

// `to` has Panel::bytes(k).
inline void make_panel(const PanelSource& source, uint8_t* to) {
  uint8_t lines[Panel::kHalf][Panel::kStepCodes];
  int32_t sum[Panel::kColumns] = {};
  const bool contiguous = source.k_stride == 1 || source.column_stride == 1;
  with_type(source.type, [&](auto tag) {
    for (int64_t k = 0; k < source.k; k += Panel::kStepCodes) {
      for (int first = 0; first < Panel::kColumns; first += Panel::kHalf, to += Panel::kHalfBytes) {
        if (contiguous && source.columns - first >= Panel::kHalf && source.k - k >= Panel::kStepCodes) {
          make_half(source.codes + first * source.column_stride + k * source.k_stride, source.k_stride,
                    source.column_stride, to);
        } else {
          gather_lines(source, first, k, lines);
          make_half(lines[0], 1, Panel::kStepCodes, to);
        }
        add_sums<typename decltype(tag)::type>(to, sum + first);
      }
    }
  });
  std::memcpy(to, sum, sizeof sum);
}

}  // namespace quaver
