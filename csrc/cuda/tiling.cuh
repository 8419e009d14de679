// tiling.cuh: the tiles of a matmul's result, and the order in which blocks take them.
#pragma once

#include "plan.h"

namespace quaver {

// Tiles of kGroup rows of them side by side follow each other, so that blocks that run together share rows of a and
// columns of b in the L2 cache. Of several parts of K, and of several batches, one follows the other.
struct Tiling {
  static constexpr int kGroup = 8;
  int64_t row_tiles;
  int64_t column_tiles;
  int64_t tiles;    // of all batches and parts of K
  int64_t results;  // of all batches
  int32_t splits;
  int32_t split_codes;  // of K, for each part

  Tiling(const MatmulProblem& problem, const MatmulPlan& plan)
      : row_tiles(tiles_along(problem.m, tile_of(plan.kernel).m)),
        column_tiles(tiles_along(problem.n, tile_of(plan.kernel).n)),
        tiles(row_tiles * column_tiles * problem.batches() * plan.splits),
        results(problem.batches() * problem.m * problem.n),
        splits(plan.splits),
        split_codes(static_cast<int32_t>(quaver::split_codes(problem.k, plan.splits))) {}
};

struct TilePlace {
  int64_t batch;
  int64_t row_tile;
  int64_t column_tile;
  int32_t split;
};

__device__ __forceinline__ TilePlace tile_place(const Tiling& tiling, int64_t tile) {
  TilePlace place;
  const int64_t matrix = tiling.row_tiles * tiling.column_tiles;
  const int64_t copy = tile / matrix;
  place.split = static_cast<int32_t>(copy % tiling.splits);
  place.batch = copy / tiling.splits;
  const int64_t in_matrix = tile - copy * matrix;
  const int64_t in_group = Tiling::kGroup * tiling.column_tiles;
  const int64_t group = in_matrix / in_group;
  const int64_t rows = min(tiling.row_tiles - group * Tiling::kGroup, static_cast<int64_t>(Tiling::kGroup));
  const int64_t rest = in_matrix - group * in_group;
  place.column_tile = rest / rows;
  place.row_tile = group * Tiling::kGroup + (rest - place.column_tile * rows);
  return place;
}

// The same number, of which the compiler knows nothing: what follows from it is computed again, and holds no registers
// through the main loop.
__device__ __forceinline__ uint32_t computed_anew(uint32_t value) {
  asm volatile("" : "+r"(value));
  return value;
}

// The tile that a block takes in its first round, its second and so on.
__device__ __forceinline__ int64_t tile_in_round(uint32_t round) {
  return blockIdx.x + static_cast<int64_t>(round) * gridDim.x;
}

}  // namespace quaver
