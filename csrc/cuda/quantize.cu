// quantize.cu: quantize on CUDA: x to q of one shape with the parameters of its blocks. Bound by memory: one read of x
// and one write of q for each element.
#include "elementwise.cuh"
#include "launch.h"

namespace quaver {
namespace {

// A code's eight bits are the same whether it is signed or not: the range alone tells int8 from uint8.
template <QuantizeMode kMode, class T>
struct Quantize {
  using Source = T;
  using Result = uint8_t;
  const T* x;
  uint8_t* q;
  CodeRange range;

  __device__ __forceinline__ const T* wide() const { return x; }
  __device__ __forceinline__ const T* source(const Span<kElementwiseTensors>& span) const {
    return x + span.offset[kX] + span.first;
  }
  __device__ __forceinline__ uint8_t* result(const Span<kElementwiseTensors>& span) const {
    return q + span.offset[kQ] + span.first;
  }
  __device__ __forceinline__ uint8_t convert(T value, float scale, int32_t zero) const {
    return static_cast<uint8_t>(quantize<kMode>(to_float(value), scale, zero, range));
  }
};

// Neighbouring threads take neighbouring vectors of kVector elements.
//   x       device, in runs of neighbours
//   q       device, of the same runs
template <QuantizeMode kMode, class T, int kVector>
__global__ void __launch_bounds__(kThreads) quantize_kernel(const ElementwisePlan plan, const T* __restrict__ x,
                                                            uint8_t* __restrict__ q, const CodeRange range) {
  for_each_vector<kVector>(plan, Quantize<kMode, T>{x, q, range});
}

// The same for any strides.
template <QuantizeMode kMode, class T>
__global__ void __launch_bounds__(kThreads) quantize_elements_kernel(const ElementsPlan plan, const T* __restrict__ x,
                                                                     uint8_t* __restrict__ q, const CodeRange range) {
  for_each_element(plan, Quantize<kMode, T>{x, q, range});
}

template <QuantizeMode kMode, class T>
cudaError_t launch(const QuantizeArguments& arguments, cudaStream_t stream) {
  const T* x = static_cast<const T*>(arguments.x);
  uint8_t* q = static_cast<uint8_t*>(arguments.q);
  return choose_elementwise<T>(
      arguments.nest, kSource, kTarget, arguments.scale, arguments.zero_point,
      [&](const ElementwisePlan& plan, auto vector) {
        constexpr int kVector = decltype(vector)::value;
        quantize_kernel<kMode, T, kVector>
            <<<grid_for_vectors(plan.runs.vectors()), kThreads, 0, stream>>>(plan, x, q, arguments.range);
        return cudaGetLastError();
      },
      [&](const ElementsPlan& plan) {
        quantize_elements_kernel<kMode, T>
            <<<grid_for_elements(plan.elements), kThreads, 0, stream>>>(plan, x, q, arguments.range);
        return cudaGetLastError();
      });
}

}  // namespace

cudaError_t launch_quantize(const QuantizeArguments& arguments, cudaStream_t stream) {
  if (arguments.nest.numel() == 0) return cudaSuccess;
  return with_type(arguments.x_type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return arguments.mode == QuantizeMode::kAffine ? launch<QuantizeMode::kAffine, T>(arguments, stream)
                                                   : launch<QuantizeMode::kOnnx, T>(arguments, stream);
  });
}

}  // namespace quaver
