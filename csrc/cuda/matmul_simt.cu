// matmul_simt.cu: int8 matmul by dp4a, for every GPU, shape, stride and signedness: a [..., M, K] x b [..., K, N] to
// out [..., M, N] through the whole epilogue. Bound by dp4a issue and by its byte loads: the plain kernel that is right
// everywhere.
#include "epilogue.cuh"
#include "grid.cuh"
#include "launch.h"
#include "ptx.cuh"

namespace quaver {
namespace {

struct SimtTile {
  static constexpr int kM = 64;
  static constexpr int kN = 64;
  static constexpr int kWords = 8;  // of K, four codes each
  static constexpr int kK = 4 * kWords;
  static constexpr int kSide = 16;               // threads are 16 x 16
  static constexpr int kPerThread = kM / kSide;  // each has 4 rows and 4 columns, kSide apart
  static constexpr int kPitch = kM + 4;  // words between two of K: eight of them by four lines fill all banks once
};
static_assert(SimtTile::kSide * SimtTile::kSide == kThreads);
static_assert(SimtTile::kM == SimtTile::kN, "a's and b's tiles are loaded by the same code");

// One operand as lines (rows of a, columns of b) along K.
struct Lines {
  const uint8_t* codes;  // of this batch
  int64_t line_stride;
  int64_t k_stride;
  int64_t lines;
  int64_t k;
};

// Four codes of a line from k on, as one word; zeros beyond the operand's end, which add nothing to a product.
__device__ __forceinline__ uint32_t load_word(const Lines& operand, int64_t line, int64_t k) {
  uint32_t word = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (line < operand.lines && k + i < operand.k) {
      const uint32_t code = operand.codes[line * operand.line_stride + (k + i) * operand.k_stride];
      word |= code << (8 * i);
    }
  }
  return word;
}

// A tile of an operand to shared memory [kWords][kPitch]. Neighbouring threads take neighbouring words of a line where
// K is contiguous, neighbouring lines elsewhere.
__device__ __forceinline__ void load_tile(const Lines& operand, int64_t first_line, int64_t first_k,
                                          uint32_t (&smem_tile)[SimtTile::kWords][SimtTile::kPitch]) {
  constexpr int kLines = SimtTile::kM;
  const bool along_k = operand.k_stride == 1;
#pragma unroll
  for (int i = threadIdx.x; i < kLines * SimtTile::kWords; i += kThreads) {
    const int word = along_k ? i % SimtTile::kWords : i / kLines;
    const int line = along_k ? i / SimtTile::kWords : i % kLines;
    smem_tile[word][line] = load_word(operand, first_line + line, first_k + 4 * word);
  }
}

// A block computes tiles of 64 x 64 results, one after the other. Thread (y, x) has rows y + 16 i and columns x + 16 j:
// a warp reads two words of a's tile (broadcast) and 16 neighbouring ones of b's.
//   shared memory   smem_a, smem_b: uint32 [8][68] each, 4,352 bytes in all
//   overlap         none: load, barrier, multiply, barrier
template <CodeType kA, CodeType kB>
__global__ void __launch_bounds__(kThreads, 2) matmul_simt_kernel(const MatmulProblem problem, const int64_t row_tiles,
                                                                  const int64_t column_tiles, const int64_t tiles) {
  using Tile = SimtTile;
  __shared__ uint32_t smem_a[Tile::kWords][Tile::kPitch];
  __shared__ uint32_t smem_b[Tile::kWords][Tile::kPitch];
  const int y = threadIdx.x / Tile::kSide;
  const int x = threadIdx.x % Tile::kSide;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t batch = tile / (row_tiles * column_tiles);
    const int64_t in_batch = tile - batch * (row_tiles * column_tiles);
    const int64_t first_row = in_batch % row_tiles * Tile::kM;
    const int64_t first_column = in_batch / row_tiles * Tile::kN;
    const BatchPlace place = batch_place(problem, batch);
    const Lines a{static_cast<const uint8_t*>(problem.a.data) + offset_of(place, problem.a.batch_stride),
                  problem.a.row_stride, problem.a.column_stride, problem.m, problem.k};
    const Lines b{static_cast<const uint8_t*>(problem.b.data) + offset_of(place, problem.b.batch_stride),
                  problem.b.column_stride, problem.b.row_stride, problem.n, problem.k};

    int32_t acc[Tile::kPerThread][Tile::kPerThread] = {};
    for (int64_t k = 0; k < problem.k; k += Tile::kK) {
      load_tile(a, first_row, k, smem_a);
      load_tile(b, first_column, k, smem_b);
      __syncthreads();
#pragma unroll
      for (int word = 0; word < Tile::kWords; ++word) {
#pragma unroll
        for (int i = 0; i < Tile::kPerThread; ++i)
#pragma unroll
          for (int j = 0; j < Tile::kPerThread; ++j)
            acc[i][j] = dp4a<kA, kB>(smem_a[word][y + Tile::kSide * i], smem_b[word][x + Tile::kSide * j], acc[i][j]);
      }
      __syncthreads();
    }

#pragma unroll
    for (int i = 0; i < Tile::kPerThread; ++i) {
      const int64_t row = first_row + y + Tile::kSide * i;
      if (row >= problem.m) continue;
      const EpilogueRow of_row = epilogue_row(problem, place, row);
#pragma unroll
      for (int j = 0; j < Tile::kPerThread; ++j) {
        const int64_t column = first_column + x + Tile::kSide * j;
        if (column >= problem.n) continue;
        store_result(problem, of_row, epilogue_column(problem, place, column), acc[i][j],
                     (batch * problem.m + row) * problem.n + column);
      }
    }
  }
}

template <CodeType kA, CodeType kB>
cudaError_t launch(const MatmulProblem& problem, cudaStream_t stream) {
  const int64_t row_tiles = (problem.m + SimtTile::kM - 1) / SimtTile::kM;
  const int64_t column_tiles = (problem.n + SimtTile::kN - 1) / SimtTile::kN;
  const int64_t tiles = problem.batches() * row_tiles * column_tiles;
  if (tiles == 0) return cudaSuccess;
  matmul_simt_kernel<kA, kB><<<grid_for(tiles), kThreads, 0, stream>>>(problem, row_tiles, column_tiles, tiles);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_matmul(const MatmulProblem& problem, cudaStream_t stream) {
  constexpr CodeType kSigned = CodeType::kInt8;
  constexpr CodeType kUnsigned = CodeType::kUint8;
  if (problem.a_type == kSigned)
    return problem.b_type == kSigned ? launch<kSigned, kSigned>(problem, stream)
                                     : launch<kSigned, kUnsigned>(problem, stream);
  return problem.b_type == kSigned ? launch<kUnsigned, kSigned>(problem, stream)
                                   : launch<kUnsigned, kUnsigned>(problem, stream);
}

}  // namespace quaver
