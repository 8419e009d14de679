// dequantize.cu: dequantize on CUDA, the last stage: q to x of one shape with the parameters of its blocks. Bound by
// memory: one read of q and one write of x for each element.
#include "arith.h"
#include "grid.cuh"
#include "launch.h"
#include "vec.cuh"

namespace quaver {
namespace {

// Each thread takes every gridDim.x * kThreads-th element in the order of x's memory.
//   nest              loops over q, x, scale and zero_point together
//   q, x              device, any strides
//   scale             device, one for each block of q
//   zero_point        the same, or null: 0 everywhere
template <class T, class Code>
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(const ElementwiseNest nest, const Code* __restrict__ q, T* __restrict__ x,
                      const float* __restrict__ scale, const int32_t* __restrict__ zero_point) {
  const int64_t elements = nest.numel();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < elements; i += step) {
    int64_t offset[kElementwiseOperands];
    nest.offsets(i, offset);
    const int32_t zero = zero_point == nullptr ? 0 : zero_point[offset[kZeroPoint]];
    from_float(dequantize(q[offset[kSource]], scale[offset[kScale]], zero), x[offset[kTarget]]);
  }
}

}  // namespace

cudaError_t launch_dequantize(const DequantizeArguments& arguments, cudaStream_t stream) {
  if (arguments.nest.numel() == 0) return cudaSuccess;
  return with_type(arguments.x_type, [&](auto x_tag) {
    return with_type(arguments.q_type, [&](auto q_tag) {
      using T = typename decltype(x_tag)::type;
      using Code = typename decltype(q_tag)::type;
      dequantize_kernel<T, Code><<<grid_for_elements(arguments.nest.numel()), kThreads, 0, stream>>>(
          arguments.nest, static_cast<const Code*>(arguments.q), static_cast<T*>(arguments.x), arguments.scale,
          arguments.zero_point);
      return cudaGetLastError();
    });
  });
}

}  // namespace quaver
