// matmul_gemv.cu: int8 matmul of up to 16 rows by a weight: a [..., M <= 16, K] x b [..., K, N] to out [..., M, N]
// through the whole epilogue. How it goes and what bounds it: gemv.cuh.
#include "gemv.cuh"
#include "launch.h"

namespace quaver {
namespace {

template <CodeType kA, CodeType kB>
__global__ void __launch_bounds__(Gemv::kThreads, Gemv::kBlocks)
    matmul_gemv_kernel(const MatmulProblem problem, const Tiling tiling) {
  __shared__ GemvSums smem_sum;
  for (uint32_t round = 0; tile_in_round(round) < tiling.tiles; ++round) {
    GemvAccumulators acc = {};
    {
      const TilePlace place = tile_place(tiling, tile_in_round(round));
      const BatchPlace batch = batch_place(problem, place.batch);
      const int first = place.split * tiling.split_codes;
      const int end = min(first + tiling.split_codes, static_cast<int>(problem.k));
      multiply_rows<kA, kB>(problem, batch, RowsOfMemory(problem, batch), place.column_tile * Gemv::kColumns, first,
                            end, acc);
    }
    const GemvResult result = join_warps(acc, smem_sum);
    const TilePlace place = tile_place(tiling, tile_in_round(computed_anew(round)));
    const BatchPlace batch = batch_place(problem, place.batch);
    const int64_t column = place.column_tile * Gemv::kColumns + result.column;
    if (result.row < problem.m && column < problem.n)
      store_result(problem, epilogue_row(problem, batch, result.row), epilogue_column(problem, batch, column),
                   result.product,
                   place.split * tiling.results + (place.batch * problem.m + result.row) * problem.n + column);
    __syncthreads();
  }
}

template <CodeType kA, CodeType kB>
cudaError_t launch(const MatmulProblem& problem, const MatmulPlan& plan, cudaStream_t stream) {
  const Tiling tiling(problem, plan);
  matmul_gemv_kernel<kA, kB><<<grid_for(tiling.tiles), Gemv::kThreads, 0, stream>>>(problem, tiling);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_matmul_gemv(const MatmulProblem& problem, const MatmulPlan& plan, cudaStream_t stream) {
  constexpr CodeType kSigned = CodeType::kInt8;
  constexpr CodeType kUnsigned = CodeType::kUint8;
  if (problem.a_type == kSigned)
    return problem.b_type == kSigned ? launch<kSigned, kSigned>(problem, plan, stream)
                                     : launch<kSigned, kUnsigned>(problem, plan, stream);
  return problem.b_type == kSigned ? launch<kUnsigned, kSigned>(problem, plan, stream)
                                   : launch<kUnsigned, kUnsigned>(problem, plan, stream);
}

}  // namespace quaver
