// dequantize.cu: dequantize on CUDA, the last stage: q to x of one shape with the parameters of its blocks. Bound by
// memory: one read of q and one write of x for each element.
#include "elementwise.cuh"
#include "launch.h"

namespace quaver {
namespace {

// Flipping the highest bit of an int8 code's byte gives the code plus 128, so that codes of both types are bytes less a
// zero point of bytes: `flip` is 128 for int8 and 0 for uint8.
template <class T>
struct Dequantize {
  using Source = uint8_t;
  using Result = T;
  const uint8_t* q;
  T* x;
  int32_t flip;

  __device__ __forceinline__ const T* wide() const { return x; }
  __device__ __forceinline__ const uint8_t* source(const Span<kElementwiseTensors>& span) const {
    return q + span.offset[kQ] + span.first;
  }
  __device__ __forceinline__ T* result(const Span<kElementwiseTensors>& span) const {
    return x + span.offset[kX] + span.first;
  }
  __device__ __forceinline__ T convert(uint8_t byte, float scale, int32_t zero) const {
    T value;
    from_float(dequantize(byte ^ flip, scale, wrapping_add(zero, flip)), value);
    return value;
  }
};

// Neighbouring threads take neighbouring vectors of kVector elements.
//   q       device, in runs of neighbours
//   x       device, of the same runs
template <class T, int kVector>
__global__ void __launch_bounds__(kThreads) dequantize_kernel(const ElementwisePlan plan, const uint8_t* __restrict__ q,
                                                              T* __restrict__ x, const int32_t flip) {
  for_each_vector<kVector>(plan, Dequantize<T>{q, x, flip});
}

// The same for any strides.
template <class T>
__global__ void __launch_bounds__(kThreads)
    dequantize_elements_kernel(const ElementsPlan plan, const uint8_t* __restrict__ q, T* __restrict__ x,
                               const int32_t flip) {
  for_each_element(plan, Dequantize<T>{q, x, flip});
}

}  // namespace

cudaError_t launch_dequantize(const DequantizeArguments& arguments, cudaStream_t stream) {
  if (arguments.nest.numel() == 0) return cudaSuccess;
  const uint8_t* q = static_cast<const uint8_t*>(arguments.q);
  const int32_t flip = arguments.q_type == CodeType::kInt8 ? 128 : 0;
  return with_type(arguments.x_type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* x = static_cast<T*>(arguments.x);
    return choose_elementwise<T>(
        arguments.nest, kTarget, kSource, arguments.scale, arguments.zero_point,
        [&](const ElementwisePlan& plan, auto vector) {
          constexpr int kVector = decltype(vector)::value;
          dequantize_kernel<T, kVector>
              <<<grid_for_vectors(plan.runs.vectors()), kThreads, 0, stream>>>(plan, q, x, flip);
          return cudaGetLastError();
        },
        [&](const ElementsPlan& plan) {
          dequantize_elements_kernel<T><<<grid_for_elements(plan.elements), kThreads, 0, stream>>>(plan, q, x, flip);
          return cudaGetLastError();
        });
  });
}

}  // namespace quaver
