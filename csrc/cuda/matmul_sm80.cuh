// matmul_sm80.cuh: int8 matmul on tensor cores for sm_80 and newer: a [..., M, K] x b [..., K, N] to out [..., M, N]
// through the whole epilogue, for every shape, stride and signedness.
//
// A block computes a tile of results by the loop of mma_loop.cuh.
//   shared memory   the loop's ring of stages; afterwards slices of results (store_tile.cuh)
// Operands that are contiguous along K and aligned to 16 bytes are only copied. Others take the kernels for any layout,
// in which codes that must be moved apart go through registers.
#pragma once

#include "launch.h"
#include "mma_loads.cuh"
#include "mma_loop.cuh"
#include "plan.h"
#include "store_tile.cuh"
#include "tiling.cuh"

namespace quaver {
namespace {

// What each warp computes.
using Large = MmaTile<MatmulKernel::kLarge, 64, 64>;
using Medium = MmaTile<MatmulKernel::kMedium, 64, 64>;
using Small = MmaTile<MatmulKernel::kSmall, 32, 32>;
using Skinny = MmaTile<MatmulKernel::kSkinny, 32, 32>;
using AnyMedium = MmaTile<MatmulKernel::kAnyMedium, 32, 64>;
using AnySmall = MmaTile<MatmulKernel::kAnySmall, 32, 32>;

template <class Tile>
__device__ __forceinline__ ResultPlace result_place(const MatmulProblem& problem, const Tiling& tiling, int64_t tile) {
  const TilePlace place = tile_place(tiling, tile);
  const WarpPart<Tile> part(threadIdx.x);
  return {batch_place(problem, place.batch), place.split * tiling.results + place.batch * problem.m * problem.n,
          problem.n, place.row_tile * Tile::kM + part.row, place.column_tile * Tile::kN + part.column};
}

__device__ __forceinline__ Lines lines_of(const MatrixView& view, const BatchPlace& batch, int64_t line_stride,
                                          int64_t k_stride, int64_t lines) {
  return {static_cast<const uint8_t*>(view.data) + offset_of(batch, view.batch_stride), line_stride, k_stride, lines};
}

// What brings both operands' codes.
template <class Tile>
struct ChunkOperands {
  ChunkLoads<Tile, Tile::kM> a;
  ChunkLoads<Tile, Tile::kN> b;
  int left;  // codes from this thread's next chunk to the end

  __device__ __forceinline__ ChunkOperands(const Lines& a_lines, const Lines& b_lines, OperandLayout, OperandLayout,
                                           int64_t row, int64_t column, int k, int end)
      : a(a_lines, row, k, 0),
        b(b_lines, column, k, Tile::kM * Tile::kK),
        left(end - k - a.chunk_of_thread() * Tile::kChunk) {}

  __device__ __forceinline__ void load_next(uint32_t stage) {
    a.next(stage, left);
    b.next(stage, left);
    left -= Tile::kK;
  }
};

template <class Tile>
struct AnyOperands {
  AnyLoads<Tile, Tile::kM> a;
  AnyLoads<Tile, Tile::kN> b;

  __device__ __forceinline__ AnyOperands(const Lines& a_lines, const Lines& b_lines, OperandLayout a_layout,
                                         OperandLayout b_layout, int64_t row, int64_t column, int k, int end)
      : a{a_lines, a_layout, row, k, end, 0}, b{b_lines, b_layout, column, k, end, Tile::kM * Tile::kK} {}

  __device__ __forceinline__ void load_next(uint32_t stage) {
    a.next(stage);
    b.next(stage);
  }
};

template <class Tile, template <class> class Operands, CodeType kA, CodeType kB>
__device__ __forceinline__ void multiply_tiles(const MatmulProblem& problem, const Tiling& tiling,
                                               OperandLayout a_layout, OperandLayout b_layout) {
  extern __shared__ __align__(128) uint8_t smem[];
  const uint32_t ring = shared_address(smem);
  for (uint32_t round = 0; tile_in_round(round) < tiling.tiles; ++round) {
    const WarpPart<Tile> part(computed_anew(threadIdx.x));
    const TilePlace place = tile_place(tiling, tile_in_round(round));
    const BatchPlace batch = batch_place(problem, place.batch);
    const int64_t row = place.row_tile * Tile::kM;
    const int64_t column = place.column_tile * Tile::kN;
    const int k = place.split * tiling.split_codes;
    const int end = min(k + tiling.split_codes, static_cast<int>(problem.k));
    Operands<Tile> operands(lines_of(problem.a, batch, problem.a.row_stride, problem.a.column_stride, problem.m),
                            lines_of(problem.b, batch, problem.b.column_stride, problem.b.row_stride, problem.n),
                            a_layout, b_layout, row, column, k, end);

    Accumulators<Tile> acc = {};
    multiply_stages<Tile, kA, kB>(operands, part, ring, k, end, acc);
    store_tile<Tile>(problem, result_place<Tile>(problem, tiling, tile_in_round(computed_anew(round))), smem, acc);
    __syncthreads();
  }
}

// sm_75 takes the kernels for any layout alone, whose copies and products ptx.cuh makes of what it has.
template <class Tile, template <class> class Operands, CodeType kA, CodeType kB>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksTogether<Tile>)
    matmul_sm80_kernel(const MatmulProblem problem, const Tiling tiling, const OperandLayout a_layout,
                       const OperandLayout b_layout) {
#if __CUDA_ARCH__ >= 800
  multiply_tiles<Tile, Operands, kA, kB>(problem, tiling, a_layout, b_layout);
#else
  if constexpr (Tile::kAnyLayout) multiply_tiles<Tile, Operands, kA, kB>(problem, tiling, a_layout, b_layout);
#endif
}

template <class Tile, template <class> class Operands, CodeType kA, CodeType kB>
cudaError_t launch_tiles(const MatmulProblem& problem, const MatmulPlan& plan, cudaStream_t stream) {
  const Tiling tiling(problem, plan);
  const auto kernel = matmul_sm80_kernel<Tile, Operands, kA, kB>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kRing);
  if (error != cudaSuccess) return error;
  kernel<<<grid_for(tiling.tiles), Tile::kThreads, Tile::kRing, stream>>>(problem, tiling, plan.a_layout,
                                                                          plan.b_layout);
  return cudaGetLastError();
}

template <CodeType kA, CodeType kB>
cudaError_t launch_tile(const MatmulProblem& problem, const MatmulPlan& plan, cudaStream_t stream) {
  if (plan.kernel == Large::kKernel) return launch_tiles<Large, ChunkOperands, kA, kB>(problem, plan, stream);
  if (plan.kernel == Medium::kKernel) return launch_tiles<Medium, ChunkOperands, kA, kB>(problem, plan, stream);
  if (plan.kernel == Small::kKernel) return launch_tiles<Small, ChunkOperands, kA, kB>(problem, plan, stream);
  if (plan.kernel == Skinny::kKernel) return launch_tiles<Skinny, ChunkOperands, kA, kB>(problem, plan, stream);
  if (plan.kernel == AnyMedium::kKernel) return launch_tiles<AnyMedium, AnyOperands, kA, kB>(problem, plan, stream);
  return launch_tiles<AnySmall, AnyOperands, kA, kB>(problem, plan, stream);
}

}  // namespace
}  // namespace quaver
