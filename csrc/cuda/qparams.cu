// qparams.cu: choose_qparams on CUDA, the first stage: x to scale [blocks] and zero_point [blocks]. Bound by reading x.
#include "arith.h"
#include "grid.cuh"
#include "launch.h"
#include "vec.cuh"

namespace quaver {
namespace {

// One block of threads finds the range of one block of x at a time; the ranges of threads are joined in shared memory.
//   loops       x's loops: those over results, those inside a result
//   x           device, read once
//   arguments   scale and zero_point are written, one each for a result
template <class T>
__global__ void __launch_bounds__(kThreads)
    choose_qparams_kernel(const SplitReduction loops, const T* __restrict__ x, const QparamsArguments arguments) {
  __shared__ float smem_lo[kThreads];
  __shared__ float smem_hi[kThreads];
  const int thread = threadIdx.x;
  const int64_t elements = loops.folded.numel();
  for (int64_t result = blockIdx.x; result < arguments.blocks; result += gridDim.x) {
    int64_t base[kReductionOperands];
    loops.kept.offsets(result, base);
    float lo = 0.0f;
    float hi = 0.0f;
    for (int64_t i = thread; i < elements; i += kThreads) {
      int64_t offset[kReductionOperands];
      loops.folded.offsets(i, offset);
      const float value = finite_or_zero(to_float(x[base[kReduced] + offset[kReduced]]));
      lo = smaller(value, lo);
      hi = larger(value, hi);
    }
    smem_lo[thread] = lo;
    smem_hi[thread] = hi;
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
      if (thread < half) {
        smem_lo[thread] = smaller(smem_lo[thread + half], smem_lo[thread]);
        smem_hi[thread] = larger(smem_hi[thread + half], smem_hi[thread]);
      }
      __syncthreads();
    }
    if (thread == 0) {
      const ScaleAndZeroPoint chosen =
          choose_qparams(smem_lo[0], smem_hi[0], arguments.symmetric, arguments.range, arguments.eps);
      arguments.scale[base[kResult]] = chosen.scale;
      arguments.zero_point[base[kResult]] = chosen.zero_point;
    }
    __syncthreads();  // before the next result's ranges overwrite these
  }
}

}  // namespace

cudaError_t launch_choose_qparams(const QparamsArguments& arguments, cudaStream_t stream) {
  if (arguments.blocks == 0) return cudaSuccess;
  return with_type(arguments.x_type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    choose_qparams_kernel<T><<<grid_for(arguments.blocks), kThreads, 0, stream>>>(
        split(arguments.nest), static_cast<const T*>(arguments.x), arguments);
    return cudaGetLastError();
  });
}

}  // namespace quaver
