// mma_tile.cuh: the tiles of the tensor-core matmuls: their shapes, where codes lie in shared memory, and a warp's
// fragments.
//
// A stage holds kM lines of a, then kN lines of b (rows of a and columns of b are lines along K), kK = 64 codes of
// each: four chunks of 16. Two lines fill the 32 banks once, and chunk c of line l lies at place c ^ (l / 2 % 4) of its
// line: so the eight lines of a matrix that ldmatrix reads have their chunks in eight different groups of banks, and so
// do the eight chunks of two lines that neighbouring threads write.
#pragma once

#include "grid.cuh"
#include "plan.h"
#include "ptx.cuh"

namespace quaver {

template <MatmulKernel kKernel_, int kWarpM_, int kWarpN_>
struct MmaTile {
  static constexpr MatmulKernel kKernel = kKernel_;
  static constexpr bool kAnyLayout = tile_of(kKernel).any_layout;
  static constexpr int kM = tile_of(kKernel).m;
  static constexpr int kN = tile_of(kKernel).n;
  static constexpr int kK = kStageCodes;
  static constexpr int kChunk = 16;            // bytes that are copied at once
  static constexpr int kChunks = kK / kChunk;  // of a line
  static constexpr int kStages = tile_of(kKernel).stages;
  static constexpr int kBlocks = tile_of(kKernel).blocks;

  // What a warp computes, as mma's of 16 rows, 8 columns and 32 codes along K.
  static constexpr int kWarpM = kWarpM_;
  static constexpr int kWarpN = kWarpN_;
  static constexpr int kWarps = kM / kWarpM * (kN / kWarpN);
  static constexpr int kThreads = kWarps * kLanes;
  static constexpr int kStepK = 32;
  static constexpr int kSteps = kK / kStepK;
  static constexpr int kMmaM = kWarpM / 16;
  static constexpr int kMmaN = kWarpN / 8;

  static constexpr int kStageBytes = (kM + kN) * kK;
  static constexpr int kRing = kStages * kStageBytes;

  static_assert(kM % kWarpM == 0 && kN % kWarpN == 0 && kWarps == tile_of(kKernel).warps);
  static_assert(kWarpM % 16 == 0 && kWarpN % 16 == 0, "ldmatrix reads 16 lines of each operand");
  static_assert(kThreads % (2 * kChunks) == 0, "neighbouring threads write whole pairs of lines");
  static_assert(kSteps == 2, "two steps take turns with two sets of fragments");
  static_assert(kStages >= 3, "one stage is read, one is awaited, and one is written");
};

// Where a chunk of a line lies among an operand's lines of a stage.
__device__ __forceinline__ uint32_t chunk_offset(int line, int chunk) {
  return static_cast<uint32_t>(line * kStageCodes + ((chunk ^ (line / 2 % 4)) * 16));
}

// A warp's operands of one step along K.
template <class Tile>
struct Fragments {
  uint32_t a[Tile::kMmaM][4];
  uint32_t b[Tile::kMmaN / 2][4];  // of two neighbouring mma's
};

// A warp's part of a tile.
template <class Tile>
struct WarpPart {
  int row;                          // the first
  int column;                       // the first
  uint32_t a_offset[Tile::kSteps];  // where this lane's first line of each operand lies in a stage
  uint32_t b_offset[Tile::kSteps];

  __device__ __forceinline__ explicit WarpPart(int thread) {
    const int warp = thread / kLanes;
    const int lane = thread % kLanes;
    row = warp % (Tile::kM / Tile::kWarpM) * Tile::kWarpM;
    column = warp / (Tile::kM / Tile::kWarpM) * Tile::kWarpN;
    // ldmatrix's four matrices: of a two times 8 rows, then the next chunk of both; of b two chunks of 8 columns, then
    // of the next 8.
#pragma unroll
    for (int step = 0; step < Tile::kSteps; ++step) {
      const int chunk = step * (Tile::kStepK / Tile::kChunk);
      a_offset[step] = chunk_offset(row + lane % 16, chunk + lane / 16);
      b_offset[step] = Tile::kM * Tile::kK + chunk_offset(column + lane % 8 + lane / 16 * 8, chunk + lane / 8 % 2);
    }
  }

  __device__ __forceinline__ void load(Fragments<Tile>& fragments, uint32_t stage, int step) const {
    constexpr int kLines16 = 16 * Tile::kK;  // bytes of 16 lines, which change no place of a chunk
#pragma unroll
    for (int i = 0; i < Tile::kMmaM; ++i) load_matrices(fragments.a[i], stage + a_offset[step] + i * kLines16);
#pragma unroll
    for (int j = 0; j < Tile::kMmaN / 2; ++j) load_matrices(fragments.b[j], stage + b_offset[step] + j * kLines16);
  }
};

// What a lane has of its warp's results: rows l / 4 and l / 4 + 8 of each mma, two columns from 2 (l % 4) on.
template <class Tile>
using Accumulators = int32_t[Tile::kMmaM][Tile::kMmaN][4];

template <class Tile, CodeType kA, CodeType kB>
__device__ __forceinline__ void multiply(Accumulators<Tile>& acc, const Fragments<Tile>& fragments) {
#pragma unroll
  for (int i = 0; i < Tile::kMmaM; ++i)
#pragma unroll
    for (int j = 0; j < Tile::kMmaN; ++j)
      multiply_accumulate<kA, kB>(acc[i][j], fragments.a[i], fragments.b[j / 2] + j % 2 * 2);
}

}  // namespace quaver
