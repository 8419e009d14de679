// held_rows.cuh: rows that are computed from two tensors, held in registers, and quantized with the scale of what they
// became: one read of each input, one write of each result. Bound by memory.
//
// A row is taken by a power of 2 of warps that stand side by side, and each thread holds kHeldVectors vectors of 16
// bytes of the inputs' type: element j is number j % kVector of vector j / kVector, which is number u = j / kVector /
// threads of thread j / kVector % threads. So the bits of j tell, from the highest to the lowest: u, warp, lane, place
// in the vector. Where a row or its length is not aligned, vectors are read and written element by element.
#pragma once

#include <algorithm>

#include "arguments.h"
#include "grid.cuh"
#include "quotient.cuh"
#include "state.cuh"
#include "vec.cuh"
#include "walk.cuh"

namespace quaver {

inline constexpr int kHeldVectors = 4;

template <class T>
inline constexpr int kMostHeldThreads = kLongestHeldRow / (kHeldVectors * kWidest<T>);

template <class T>
using HeldFloats = float[kHeldVectors][kWidest<T>];

struct HeldRows {
  Walk<kRowOperands> walk;
  int64_t count;
  int32_t length;
  int32_t warps;  // of a row

  int rows_of_block() const { return std::max(kThreads / (kLanes * warps), 1); }  // short rows share one
  int threads_of_block() const { return rows_of_block() * warps * kLanes; }
  unsigned blocks() const { return grid_for((count + rows_of_block() - 1) / rows_of_block()); }
};

template <class T>
HeldRows held_rows(const RowNest& nest, const RowCodes& codes) {
  HeldRows rows{Walk<kRowOperands>(nest), codes.rows, static_cast<int32_t>(codes.length), 1};
  while (rows.warps * kLanes * kHeldVectors * kWidest<T> < codes.length) rows.warps *= 2;
  return rows;
}

// What a thread has of its row.
template <int kVector>
struct HeldPart {
  int thread;   // its number within the row
  int threads;  // of the row
  int length;   // of the row
  bool exists;  // the row; else its length is 0
  int64_t row;
  int64_t offset[kRowOperands];

  __device__ __forceinline__ HeldPart(const HeldRows& rows, int64_t first)
      : threads(rows.warps * kLanes), row(first + threadIdx.x / threads), offset() {
    thread = threadIdx.x % threads;
    exists = row < rows.count;
    length = exists ? rows.length : 0;
    if (exists) rows.walk.add_offsets(row, offset);
  }

  __device__ __forceinline__ int begin(int u) const { return (thread + u * threads) * kVector; }
  __device__ __forceinline__ int count(int u) const { return max(min(kVector, length - begin(u)), 0); }
};

// The held numbers to codes, with the parameters of their row. A number that stands for no element is 0 or NaN.
template <class T>
__device__ __forceinline__ void quantize_held(const HeldFloats<T>& y, const HeldPart<kWidest<T>>& part,
                                              const RowCodes& codes) {
  constexpr int kVector = kWidest<T>;
  Range found;
#pragma unroll
  for (int u = 0; u < kHeldVectors; ++u)
#pragma unroll
    for (int i = 0; i < kVector; ++i) found.take(y[u][i]);
  join_threads(found, part.threads);
  const ScaleAndZeroPoint chosen = choose_qparams(found.lo, found.hi, codes.symmetric, codes.range, 0.0f);
  const SharedScale<QuantizeMode::kOnnx> shared(chosen.scale, chosen.zero_point, codes.range);

  Sum sum;
  uint8_t* const q = codes.q + part.row * codes.length;
#pragma unroll
  for (int u = 0; u < kHeldVectors; ++u) {
    const int count = part.count(u);
    if (count == 0) continue;
    int32_t code[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) code[i] = shared.code(y[u][i]);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum.take(code[i]);
    sum.take(-(kVector - count) * chosen.zero_point);  // what stands for no element has the code of 0
    store_span(pack_bytes(code), q + part.begin(u), count);
  }
  if (codes.row_sum != nullptr) join_threads(sum, part.threads);
  if (part.thread == 0 && part.exists) {
    codes.scale[part.row] = chosen.scale;
    codes.zero_point[part.row] = chosen.zero_point;
    if (codes.row_sum != nullptr) codes.row_sum[part.row] = sum.value;
  }
}

}  // namespace quaver
