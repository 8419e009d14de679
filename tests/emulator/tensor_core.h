// tensor_core.h: what a warp does as one on 8-bit matrices: mma on fragments held by its lanes, and ldmatrix, which
// deals rows of shared memory out to them, with stmatrix, which collects them. Layouts: PTX ISA, "Matrix Fragments for
// mma.m8n8k16, m16n8k16, m16n8k32", "ldmatrix".
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "machine.h"

namespace emulator {

// .aligned: all 32 lanes execute it together and none has exited; anything else is undefined.
inline bool is_whole_warp(Warp& warp) {
  if (warp.mask == kAllLanes) return true;
  warp.machine->report("divergent warp instruction", warp, __builtin_ctz(warp.mask), 0,
                       "only some of the warp's lanes execute it: mask " + std::to_string(warp.mask));
  return false;
}

// d = a * b + c with A [kM,kK] by rows, B [kK,8] by columns, C and D [kM,8].
// A's registers take turns in blocks of 8 rows, then of 16 columns: lane l has row l / 4 of the block and four columns
// from l % 4 * 4. B's register r holds rows r * 16 + 0..15: lane l has column l / 4 and four rows from l % 4 * 4. C's
// register r holds row r / 2 * 8 + l / 4 and column l % 4 * 2 + r % 2. Sums wrap; with kSaturates, the exact sum is
// clamped to 32 bits.
template <class A, class B, int kM, int kK, bool kSaturates>
inline void multiply_matrices(Warp& warp, uint32_t* const* d, const uint32_t* const* a, const uint32_t* const* b,
                              const uint32_t* const* c) {
  if (!is_whole_warp(warp)) return;
  constexpr int kN = 8;
  constexpr int kRowBlocks = kM / 8;
  constexpr int kColumnBlocks = kK / 16;
  // Codes as 16 bits, for which the compiler has one instruction to multiply and add.
  int16_t rows[kM][kK], columns[kN][kK];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int outer = lane / 4, inner = lane % 4 * 4;
    for (int r = 0; r < kRowBlocks * kColumnBlocks; ++r)
      for (int i = 0; i < 4; ++i)
        rows[r % kRowBlocks * 8 + outer][r / kRowBlocks * 16 + inner + i] = static_cast<A>(a[r][lane] >> 8 * i);
    for (int r = 0; r < kColumnBlocks; ++r)
      for (int i = 0; i < 4; ++i) columns[outer][r * 16 + inner + i] = static_cast<B>(b[r][lane] >> 8 * i);
  }
  for (int m = 0; m < kM; ++m) {
    for (int n = 0; n < kN; ++n) {
      int32_t sum = 0;  // at most 32 * 255 * 255
      for (int k = 0; k < kK; ++k) sum += static_cast<int32_t>(rows[m][k]) * static_cast<int32_t>(columns[n][k]);
      const int r = m / 8 * 2 + n % 2;
      const int lane = m % 8 * 4 + n / 2;
      if constexpr (kSaturates) {
        using Limits = std::numeric_limits<int32_t>;
        const int64_t exact = static_cast<int64_t>(static_cast<int32_t>(c[r][lane])) + sum;
        d[r][lane] = static_cast<uint32_t>(std::clamp<int64_t>(exact, Limits::min(), Limits::max()));
      } else {
        d[r][lane] = c[r][lane] + static_cast<uint32_t>(sum);
      }
    }
  }
}

// kCount matrices of 8 rows of 8 elements of 16 bits: lane 8 * m + r has the address of row r of matrix m. Of matrix m,
// lane l gets elements l % 4 * 2 and the next of row l / 4; transposed, of column l / 4. With kEveryAddress, the other
// lanes' addresses must be good too, though nothing is read there: so the ISA wants it for sm_75.
template <int kCount, bool kTransposed, bool kEveryAddress>
inline void load_matrices(Warp& warp, uint32_t* const* d, const uint64_t (&address)[kLanes]) {
  if (!is_whole_warp(warp)) return;
  uint16_t matrix[kCount][8][8];
  for (int lane = 0; lane < 8 * kCount; ++lane)
    load_shared_for_warp(warp, lane, address[lane], 16, matrix[lane / 8][lane % 8]);
  if constexpr (kEveryAddress)
    for (int lane = 8 * kCount; lane < kLanes; ++lane) can_access_shared(warp, lane, address[lane], 16);
  for (int m = 0; m < kCount; ++m) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const int outer = lane / 4, inner = lane % 4 * 2;
      const uint32_t low = kTransposed ? matrix[m][inner][outer] : matrix[m][outer][inner];
      const uint32_t high = kTransposed ? matrix[m][inner + 1][outer] : matrix[m][outer][inner + 1];
      d[m][lane] = high << 16 | low;
    }
  }
  warp.mask = kAllLanes >> (kLanes - 8 * kCount);  // only these lanes' addresses are used
  count_shared(warp, address, 16);
  warp.mask = kAllLanes;
}

// The other way round: of matrix m, lane l has elements l % 4 * 2 and the next of row l / 4; transposed, of column l
// / 4.
template <int kCount, bool kTransposed>
inline void store_matrices(Warp& warp, const uint32_t* const* a, const uint64_t (&address)[kLanes]) {
  if (!is_whole_warp(warp)) return;
  for (int m = 0; m < kCount; ++m) {
    uint16_t matrix[8][8];
    for (int lane = 0; lane < kLanes; ++lane) {
      const int outer = lane / 4, inner = lane % 4 * 2;
      (kTransposed ? matrix[inner][outer] : matrix[outer][inner]) = static_cast<uint16_t>(a[m][lane]);
      (kTransposed ? matrix[inner + 1][outer] : matrix[outer][inner + 1]) = static_cast<uint16_t>(a[m][lane] >> 16);
    }
    for (int row = 0; row < 8; ++row) store_shared_for_warp(warp, 8 * m + row, address[8 * m + row], 16, matrix[row]);
  }
  warp.mask = kAllLanes >> (kLanes - 8 * kCount);  // only these lanes' addresses are used
  count_shared(warp, address, 16);
  warp.mask = kAllLanes;
}

}  // namespace emulator
