// gemv.cuh: few rows by a weight, as at each step of decoding: the codes of b go from memory straight into the
// registers of mma.sync, and no shared memory is between. Bound by reading b once.
//
// A sum over K may take its codes in any order, as long as both operands take the same. A lane reads 16 neighbouring
// codes of its column, and what mma calls the codes 4 (l % 4) to 4 (l % 4) + 3 and those 16 further are here the lane's
// first eight, then, for the next mma, its second eight. Four lanes of a column read 64 codes, two whole sectors.
//   a block         8 warps, which take turns with those 64 codes along K, for 16 columns
//   bytes in flight 2 loads of 16 columns x 64 codes for each warp: 2 KiB, 16 KiB for a block, four of which fit
//   shared memory   GemvSums: the warps' sums, 12,288 bytes
#pragma once

#include "epilogue.cuh"
#include "grid.cuh"
#include "ptx.cuh"
#include "tiling.cuh"

namespace quaver {

struct Gemv {
  static constexpr MatmulTile kTile = tile_of(MatmulKernel::kGemv);
  static constexpr int kRows = kTile.m;
  static constexpr int kColumns = kTile.n;
  static constexpr int kWarps = kTile.warps;
  static constexpr int kThreads = kWarps * kLanes;
  static constexpr int kMmaColumns = 8;
  static constexpr int kMmas = kColumns / kMmaColumns;  // side by side
  static constexpr int kTurn = 64;                      // codes along K that a warp takes at once
  static constexpr int kUnroll = 2;                     // turns whose codes are under way together
  static constexpr int kBlocks = kTile.blocks;
  static_assert(kRows == 16 && kColumns % kMmaColumns == 0);
  static_assert(kThreads == kRows * kColumns && kColumns * 2 == kLanes, "a thread for each result");
};

// 16 codes of a lane.
struct LaneCodes {
  uint32_t word[4];
};

__device__ __forceinline__ LaneCodes load_codes(const uint8_t* from, bool exists) {
  if (!exists) return {};
  const Vector<uint8_t, 16> codes = load_vector<16>(from);
  return {{codes.word[0], codes.word[1], codes.word[2], codes.word[3]}};
}

// The codes of the lane's row of a, and of the one 8 further.
struct RowsOfMemory {
  const uint8_t* from[2];
  bool exists[2];

  __device__ __forceinline__ RowsOfMemory(const MatmulProblem& problem, const BatchPlace& batch) {
    const int lane = threadIdx.x % kLanes;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = lane / 4 + 8 * i;
      exists[i] = row < problem.m;
      from[i] = static_cast<const uint8_t*>(problem.a.data) + offset_of(batch, problem.a.batch_stride) +
                (exists[i] ? row : 0) * problem.a.row_stride + lane % 4 * 16;
    }
  }

  __device__ __forceinline__ LaneCodes load(int i, int k, bool in_k) const {
    return load_codes(from[i] + k, in_k && exists[i]);
  }
};

using GemvAccumulators = int32_t[Gemv::kMmas][4];
using GemvSums = int32_t[Gemv::kWarps][Gemv::kRows][Gemv::kColumns + 8];  // half a warp's rows lie in different banks

// This warp's part of the products with codes [first, end) along K.
template <CodeType kA, CodeType kB, class Rows>
__device__ __forceinline__ void multiply_rows(const MatmulProblem& problem, const BatchPlace& batch, const Rows& rows,
                                              int64_t first_column, int first, int end, GemvAccumulators& acc) {
  const int warp = threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  const int own = lane % 4 * 16;  // this lane's codes in each turn
  const uint8_t* b_from[Gemv::kMmas];
#pragma unroll
  for (int j = 0; j < Gemv::kMmas; ++j) {
    const int64_t column = min(first_column + Gemv::kMmaColumns * j + lane / 4, problem.n - 1);
    b_from[j] = static_cast<const uint8_t*>(problem.b.data) + offset_of(batch, problem.b.batch_stride) +
                column * problem.b.column_stride + own;
  }
  constexpr int kAround = Gemv::kWarps * Gemv::kTurn;
#pragma unroll 1
  for (int k = first + warp * Gemv::kTurn; k < end; k += Gemv::kUnroll * kAround) {
    LaneCodes a[Gemv::kUnroll][2];
    LaneCodes b[Gemv::kUnroll][Gemv::kMmas];
#pragma unroll
    for (int u = 0; u < Gemv::kUnroll; ++u) {
      const int at = k + u * kAround;
      const bool in_k = at + own < end;
#pragma unroll
      for (int j = 0; j < Gemv::kMmas; ++j) b[u][j] = load_codes(b_from[j] + at, in_k);
#pragma unroll
      for (int i = 0; i < 2; ++i) a[u][i] = rows.load(i, at, in_k);
    }
#pragma unroll
    for (int u = 0; u < Gemv::kUnroll; ++u) {
#pragma unroll
      for (int half = 0; half < 4; half += 2) {
        const uint32_t codes[4] = {a[u][0].word[half], a[u][1].word[half], a[u][0].word[half + 1],
                                   a[u][1].word[half + 1]};
#pragma unroll
        for (int j = 0; j < Gemv::kMmas; ++j) multiply_accumulate<kA, kB>(acc[j], codes, b[u][j].word + half);
      }
    }
  }
}

// A thread's result of those of all warps. Its place in the tile: a warp's two rows are 2 apart, so that their sums lie
// in different banks.
struct GemvResult {
  int row;
  int column;
  int32_t product;
};

// A result, or what stands in the place of one.
__device__ __forceinline__ int32_t sum_of_warps(const GemvSums& smem_sum, int row, int column) {
  int32_t sum = 0;
#pragma unroll
  for (int i = 0; i < Gemv::kWarps; ++i) sum = wrapping_add(sum, smem_sum[i][row][column]);
  return sum;
}

__device__ __forceinline__ GemvResult join_warps(const GemvAccumulators& acc, GemvSums& smem_sum) {
  const int warp = threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
#pragma unroll
  for (int j = 0; j < Gemv::kMmas; ++j) {
    const int column = Gemv::kMmaColumns * j + lane % 4 * 2;
    *reinterpret_cast<int2*>(&smem_sum[warp][lane / 4][column]) = make_int2(acc[j][0], acc[j][1]);
    *reinterpret_cast<int2*>(&smem_sum[warp][lane / 4 + 8][column]) = make_int2(acc[j][2], acc[j][3]);
  }
  __syncthreads();
  const int row = warp / 2 * 4 + warp % 2 + lane / Gemv::kColumns * 2;
  const int column = lane % Gemv::kColumns;
  return {row, column, sum_of_warps(smem_sum, row, column)};
}

}  // namespace quaver
