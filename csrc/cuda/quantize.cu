// quantize.cu: quantize on CUDA: x to q of one shape with the parameters of its blocks. Bound by memory: one read of x
// and one write of q for each element.
#include "arith.h"
#include "grid.cuh"
#include "launch.h"
#include "vec.cuh"

namespace quaver {
namespace {

// Each thread takes every gridDim.x * kThreads-th element in the order of q's memory.
//   nest              loops over x, q, scale and zero_point together
//   x, q              device, any strides
//   scale             device, one for each block of x
//   zero_point        the same, or null: 0 everywhere
template <QuantizeMode kMode, class T, class Code>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const ElementwiseNest nest, const T* __restrict__ x, Code* __restrict__ q,
                    const float* __restrict__ scale, const int32_t* __restrict__ zero_point, const CodeRange range) {
  const int64_t elements = nest.numel();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < elements; i += step) {
    int64_t offset[kElementwiseOperands];
    nest.offsets(i, offset);
    const int32_t zero = zero_point == nullptr ? 0 : zero_point[offset[kZeroPoint]];
    const float value = to_float(x[offset[kSource]]);
    q[offset[kTarget]] = static_cast<Code>(quantize<kMode>(value, scale[offset[kScale]], zero, range));
  }
}

template <QuantizeMode kMode, class T, class Code>
cudaError_t launch(const QuantizeArguments& arguments, cudaStream_t stream) {
  quantize_kernel<kMode><<<grid_for_elements(arguments.nest.numel()), kThreads, 0, stream>>>(
      arguments.nest, static_cast<const T*>(arguments.x), static_cast<Code*>(arguments.q), arguments.scale,
      arguments.zero_point, arguments.range);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_quantize(const QuantizeArguments& arguments, cudaStream_t stream) {
  if (arguments.nest.numel() == 0) return cudaSuccess;
  return with_type(arguments.x_type, [&](auto x_tag) {
    return with_type(arguments.q_type, [&](auto q_tag) {
      using T = typename decltype(x_tag)::type;
      using Code = typename decltype(q_tag)::type;
      return arguments.mode == QuantizeMode::kAffine ? launch<QuantizeMode::kAffine, T, Code>(arguments, stream)
                                                     : launch<QuantizeMode::kOnnx, T, Code>(arguments, stream);
    });
  });
}

}  // namespace quaver
