// store_tile.cuh: a warp's part of a tile from its accumulators through shared memory and the epilogue to device
// memory.
#pragma once

#include "epilogue.cuh"
#include "mma_tile.cuh"

namespace quaver {

// The warp's results pass through shared memory 16 rows at a time: lanes have scattered pairs of them, and store
// neighbouring ones. A row's pitch makes the four rows that half a warp writes at once lie in different banks.
template <class Tile>
struct ResultSlice {
  static constexpr int kRows = 16;
  static constexpr int kPitch = Tile::kWarpN + 8;
  static constexpr int kBytes = kRows * kPitch * 4;
  static_assert(kPitch % 16 == 8);
  static_assert(Tile::kWarps * kBytes <= Tile::kRing, "slices lie where stages were");

  int32_t (*row)[kPitch];

  __device__ __forceinline__ explicit ResultSlice(uint8_t* smem)
      : row(reinterpret_cast<int32_t (*)[kPitch]>(smem + threadIdx.x / kLanes * kBytes)) {}

  __device__ __forceinline__ void take(const int32_t (&acc)[Tile::kMmaN][4]) const {
    const int lane = threadIdx.x % kLanes;
#pragma unroll
    for (int j = 0; j < Tile::kMmaN; ++j) {
      const int column = 8 * j + lane % 4 * 2;
      *reinterpret_cast<int2*>(&row[lane / 4][column]) = {acc[j][0], acc[j][1]};
      *reinterpret_cast<int2*>(&row[lane / 4 + 8][column]) = {acc[j][2], acc[j][3]};
    }
  }
};

// What the columns of a lane's vectors bring: neighbouring lanes read neighbouring columns, and exchange them where
// slices will lie.
template <class Tile>
__device__ __forceinline__ void load_columns(const MatmulProblem& problem, const BatchPlace& batch, int64_t first,
                                             const ResultSlice<Tile>& slice,
                                             EpilogueColumn (&column)[kResultsOfVector]) {
  constexpr int kFields = sizeof(EpilogueColumn) / 4;
  static_assert(kFields <= ResultSlice<Tile>::kRows);
#pragma unroll
  for (int in_row = threadIdx.x % kLanes; in_row < Tile::kWarpN; in_row += kLanes) {
    const EpilogueColumn one = epilogue_column(problem, batch, min(first + in_row, problem.n - 1));
    int32_t field[kFields];
    memcpy(field, &one, sizeof one);
#pragma unroll
    for (int i = 0; i < kFields; ++i) slice.row[i][in_row] = field[i];
  }
  __syncwarp();
  const int in_row = threadIdx.x % (Tile::kWarpN / kResultsOfVector) * kResultsOfVector;
  int32_t field[kResultsOfVector][kFields];
#pragma unroll
  for (int i = 0; i < kFields; ++i) {
    const int4 values = *reinterpret_cast<const int4*>(&slice.row[i][in_row]);
    field[0][i] = values.x;
    field[1][i] = values.y;
    field[2][i] = values.z;
    field[3][i] = values.w;
  }
#pragma unroll
  for (int j = 0; j < kResultsOfVector; ++j) memcpy(&column[j], field[j], sizeof column[j]);
  __syncwarp();
}

// Where a tile's results go.
struct ResultPlace {
  BatchPlace batch;
  int64_t first;  // the batch's first result in out
  int64_t pitch;  // from row to row of results
  int64_t row;    // of the warp's part
  int64_t column;
};

// A lane keeps four columns and what they bring.
template <class Tile>
__device__ __forceinline__ void store_slice_in_vectors(const MatmulProblem& problem, const ResultPlace& place,
                                                       const ResultSlice<Tile>& slice,
                                                       const EpilogueColumn (&column)[kResultsOfVector],
                                                       int64_t first_row) {
  constexpr int kLanesOfRow = Tile::kWarpN / kResultsOfVector;
  const int lane = threadIdx.x % kLanes;
  const int in_row = lane % kLanesOfRow * kResultsOfVector;
  if (place.column + in_row >= problem.n) return;
#pragma unroll 1
  for (int i = lane / kLanesOfRow; i < slice.kRows; i += kLanes / kLanesOfRow) {
    const int64_t row = first_row + i;
    if (row >= problem.m) return;
    store_results(problem, epilogue_row(problem, place.batch, row), column,
                  *reinterpret_cast<const int4*>(&slice.row[i][in_row]),
                  place.first + row * place.pitch + place.column + in_row);
  }
}

// Neighbouring lanes store neighbouring results, one by one.
template <class Tile>
__device__ __forceinline__ void store_slice_one_by_one(const MatmulProblem& problem, const ResultPlace& place,
                                                       const ResultSlice<Tile>& slice, int64_t first_row) {
#pragma unroll 1
  for (int in_row = threadIdx.x % kLanes; in_row < Tile::kWarpN; in_row += kLanes) {
    const int64_t column = place.column + in_row;
    if (column >= problem.n) return;
    const EpilogueColumn of_column = epilogue_column(problem, place.batch, column);
#pragma unroll 1
    for (int i = 0; i < slice.kRows; ++i) {
      const int64_t row = first_row + i;
      if (row >= problem.m) break;
      store_result(problem, epilogue_row(problem, place.batch, row), of_column, slice.row[i][in_row],
                   place.first + row * place.pitch + column);
    }
  }
}

// Calls store(first row) with the slice that has 16 rows of the warp's results, one after the other. The accumulators
// move down, so that the code of the epilogue is there once and not for each of them.
template <class Tile, class Store>
__device__ __forceinline__ void in_slices(const ResultSlice<Tile>& slice, int64_t row, Accumulators<Tile>& acc,
                                          const Store& store) {
#pragma unroll 1
  for (int i = 0; i < Tile::kMmaM; ++i) {
    slice.take(acc[0]);
    __syncwarp();
    store(row + i * slice.kRows);
    __syncwarp();
#pragma unroll
    for (int next = 1; next < Tile::kMmaM; ++next)
#pragma unroll
      for (int j = 0; j < Tile::kMmaN; ++j)
#pragma unroll
        for (int element = 0; element < 4; ++element) acc[next - 1][j][element] = acc[next][j][element];
  }
}

// `smem` is free: no thread of the block reads or awaits anything there.
template <class Tile>
__device__ __forceinline__ void store_tile(const MatmulProblem& problem, const ResultPlace& place, uint8_t* smem,
                                           Accumulators<Tile>& acc) {
  const ResultSlice<Tile> slice(smem);
  const bool vectors = stores_vectors(problem);
  EpilogueColumn column[kResultsOfVector];
  if (vectors) load_columns<Tile>(problem, place.batch, place.column, slice, column);
  in_slices<Tile>(slice, place.row, acc, [&](int64_t first_row) {
    if (vectors) {
      store_slice_in_vectors<Tile>(problem, place, slice, column, first_row);
    } else {
      store_slice_one_by_one<Tile>(problem, place, slice, first_row);
    }
  });
}

}  // namespace quaver
