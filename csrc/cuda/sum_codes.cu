// sum_codes.cu: sums of codes along one dimension: the row sums of dynamic_quantize, and what matmuls with zero points
// need of an operand. Bound by reading the codes.
#include "arith.h"
#include "grid.cuh"
#include "launch.h"
#include "vec.cuh"

namespace quaver {
namespace {

// One block of threads makes one sum at a time.
//   loops       the codes' loops: those over sums, those inside a sum
//   q           device, read once
//   sum         device, one for each result; wraps
template <class Code>
__global__ void __launch_bounds__(kThreads) sum_codes_kernel(const SplitReduction loops, const Code* __restrict__ q,
                                                             int32_t* __restrict__ sum, const int64_t sums) {
  __shared__ int32_t smem_sum[kThreads];
  const int thread = threadIdx.x;
  const int64_t elements = loops.folded.numel();
  for (int64_t result = blockIdx.x; result < sums; result += gridDim.x) {
    int64_t base[kReductionOperands];
    loops.kept.offsets(result, base);
    int32_t part = 0;
    for (int64_t i = thread; i < elements; i += kThreads) {
      int64_t offset[kReductionOperands];
      loops.folded.offsets(i, offset);
      part = wrapping_add(part, q[base[kReduced] + offset[kReduced]]);
    }
    smem_sum[thread] = part;
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
      if (thread < half) smem_sum[thread] = wrapping_add(smem_sum[thread], smem_sum[thread + half]);
      __syncthreads();
    }
    if (thread == 0) sum[base[kResult]] = smem_sum[0];
    __syncthreads();  // before the next sum's parts overwrite this
  }
}

}  // namespace

cudaError_t launch_sum_codes(const SumArguments& arguments, cudaStream_t stream) {
  if (arguments.sums == 0) return cudaSuccess;
  return with_type(arguments.q_type, [&](auto tag) {
    using Code = typename decltype(tag)::type;
    sum_codes_kernel<Code><<<grid_for(arguments.sums), kThreads, 0, stream>>>(
        split(arguments.nest), static_cast<const Code*>(arguments.q), arguments.sum, arguments.sums);
    return cudaGetLastError();
  });
}

}  // namespace quaver
