// product_rows.cuh: int32 products [..., M, N] and results of their shape, by rows of neighbouring columns; what
// requantize.cu and rescale.cu share.
#pragma once

#include "arguments.h"
#include "arith.h"
#include "grid.cuh"
#include "vec.cuh"
#include "walk.cuh"

namespace quaver {

constexpr int kVector = kWidest<int32_t>;  // neighbouring columns of a thread

// Rows of neighbouring columns, where a thread keeps what its columns bring. Several such planes have each its own.
struct RowsPlan {
  static constexpr int kTogether = 2;  // rows that a thread reads before it works on the first
  static constexpr int kMostRounds = 16;
  static constexpr int64_t kEnoughBlocks = 256;

  Walk<kProductOperands> outer;  // over planes
  int64_t rows = 1;
  int64_t columns;
  int64_t row_stride[kProductOperands] = {};
  int32_t step[kProductOperands];  // from column to column: 0 or 1
  int32_t across = 1;              // threads side by side in a row: a power of 2
  int32_t across_log2 = 0;
  int64_t rows_of_block;
  Divisor tiles;  // of a row
  Divisor parts;  // of a plane's rows
  int64_t blocks;

  explicit RowsPlan(ProductNest nest) : columns(inner_size(nest)) {
    for (int i = 0; i < kProductOperands; ++i) step[i] = static_cast<int32_t>(inner_stride(nest, i));
    nest = outer_loops(nest);
    if (has_row_loop(nest)) {
      rows = inner_size(nest);
      for (int i = 0; i < kProductOperands; ++i) row_stride[i] = inner_stride(nest, i);
      nest = outer_loops(nest);
    }
    outer = Walk<kProductOperands>(nest);
    // A warp side by side, more of them where rows are few.
    const int64_t vectors = columns / kVector;
    while (across < vectors && (across < kLanes || (across < kThreads && rows * across < kThreads))) {
      across *= 2;
      ++across_log2;
    }
    tiles = Divisor((vectors + across - 1) / across);
    rows_of_block = kTogether * (kThreads / across);
    const int64_t most = kMostRounds * rows_of_block;
    while (rows_of_block < most && nest.numel() * tiles.divisor * rows > rows_of_block * kEnoughBlocks)
      rows_of_block *= 2;
    parts = Divisor((rows + rows_of_block - 1) / rows_of_block);
    blocks = nest.numel() * tiles.divisor * parts.divisor;
  }

  // What columns bring stays the same from one round of this loop to the next.
  static bool has_row_loop(const ProductNest& nest) {
    for (int i = kProductBScale; i < kProductOperands; ++i)
      if (nest.loops == 0 || inner_stride(nest, i) != 0) return false;
    return true;
  }

  // Whether rows are runs of whole, aligned vectors, and planes large enough for blocks of their own.
  template <class Result>
  static bool serves(const ProductNest& nest, const int32_t* acc, const Result* results) {
    if (nest.loops == 0 || inner_size(nest) % kVector != 0) return false;
    for (int i = 0; i < kProductOperands; ++i) {
      const int64_t stride = inner_stride(nest, i);
      const bool fits = i <= kProductResult ? stride == 1 : stride == 0 || (stride == 1 && i != kProductAScale);
      if (!fits) return false;
    }
    for (int loop = 0; loop < nest.loops - 1; ++loop)
      if (nest.stride[loop][kProductAcc] % kVector != 0 || nest.stride[loop][kProductResult] % kVector != 0)
        return false;
    if (reinterpret_cast<uint64_t>(acc) % 16 != 0 ||
        reinterpret_cast<uint64_t>(results) % (kVector * sizeof(Result)) != 0)
      return false;
    const RowsPlan plan(nest);
    return plan.rows * plan.columns >= kThreads && plan.blocks <= INT32_MAX;
  }
};

// Where a thread's part of a plane begins, and the rows that it has.
template <class Data>
struct RowsOfThread {
  const RowsPlan& plan;
  const Data& data;
  int64_t offset[kProductOperands];  // of its first column, in the plane's first row
  int64_t row;
  int64_t end;

  // Of this thread in a grid of plan.blocks. False where its columns would lie beyond the last.
  __device__ __forceinline__ bool take_place() {
    const int64_t row_part = plan.tiles.quotient(blockIdx.x);
    const int64_t plane = plan.parts.quotient(row_part);
    const int64_t first_vector = (blockIdx.x - row_part * plan.tiles.divisor) << plan.across_log2;
    const int64_t column = (first_vector + (threadIdx.x & (plan.across - 1))) * kVector;
    if (column >= plan.columns) return false;
    const int64_t first_row = (row_part - plane * plan.parts.divisor) * plan.rows_of_block;
#pragma unroll
    for (int i = 0; i < kProductOperands; ++i) offset[i] = column * plan.step[i];
    plan.outer.add_offsets(plane, offset);
    row = first_row + (threadIdx.x >> plan.across_log2);
    end = min(first_row + plan.rows_of_block, plan.rows);
    return true;
  }

  // What the thread's columns bring of one kind.
  template <class T>
  __device__ __forceinline__ void load(const T* values, int operand, T (&value)[kVector]) const {
    const T* from = values + offset[operand];
    if (plan.step[operand] == 1) {
      const Vector<T, kVector> vector = load_span<kVector>(from, kVector);
#pragma unroll
      for (int i = 0; i < kVector; ++i) value[i] = vector.get(i);
    } else {
      const T only = __ldg(from);
#pragma unroll
      for (int i = 0; i < kVector; ++i) value[i] = only;
    }
  }

  // The same, 0 where nobody gave any.
  template <class T>
  __device__ __forceinline__ void load_given(const T* values, int operand, T (&value)[kVector]) const {
    if (values != nullptr) return load(values, operand, value);
#pragma unroll
    for (int i = 0; i < kVector; ++i) value[i] = 0;
  }

  // convert(vector of products, a_scale) gives the results of a row's part. Without kScales it gets no a_scale.
  template <int kTogether, bool kScales, class Result, class Convert>
  __device__ __forceinline__ void for_each(Result* results, const Convert& convert) const {
    const int32_t* acc = data.acc + offset[kProductAcc];
    const float* a_scale = data.a_scale + offset[kProductAScale];
    results += offset[kProductResult];
    const int32_t apart = kThreads >> plan.across_log2;
    for (int64_t first = row; first < end; first += kTogether * apart) {
      Vector<int32_t, kVector> products[kTogether];
      float scale[kTogether]{};
#pragma unroll
      for (int u = 0; u < kTogether; ++u) {
        const int64_t at = first + u * apart;
        if (u > 0 && at >= end) break;
        products[u] = load_vector<kVector>(acc + at * plan.row_stride[kProductAcc]);
        if constexpr (kScales) scale[u] = __ldg(a_scale + at * plan.row_stride[kProductAScale]);
      }
#pragma unroll
      for (int u = 0; u < kTogether; ++u) {
        const int64_t at = first + u * apart;
        if (u > 0 && at >= end) break;
        store_vector(convert(products[u], scale[u]), results + at * plan.row_stride[kProductResult]);
      }
    }
  }
};

}  // namespace quaver
