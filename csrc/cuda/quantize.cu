// quantize.cu: quantize on CUDA: x to q of one shape with the parameters of its blocks. Bound by memory: one read of x
// and one write of q for each element. Only the mode "stochastic", with ten rounds of Philox for four elements, has
// about as much to compute.
#include "elementwise.cuh"
#include "launch.h"
#include "numbered.cuh"
#include "quotient.cuh"

namespace quaver {
namespace {

// A code's eight bits are the same whether it is signed or not: the range alone tells int8 from uint8.
template <QuantizeMode kMode, class T>
struct Quantize {
  using Source = T;
  using Result = uint8_t;
  using Wide = T;
  const T* x;
  uint8_t* q;
  CodeRange range;

  struct Shared : SharedScale<kMode> {
    Shared() = default;
    __device__ __forceinline__ Shared(float scale, int32_t zero, const Quantize& operation)
        : SharedScale<kMode>(scale, zero, operation.range) {}
  };

  __device__ __forceinline__ const T* wide() const { return x; }
  __device__ __forceinline__ const T* source(const int64_t (&offset)[kElementwiseTensors]) const {
    return x + offset[kX];
  }
  __device__ __forceinline__ uint8_t* result(const int64_t (&offset)[kElementwiseTensors]) const {
    return q + offset[kQ];
  }

  template <int kVector>
  __device__ __forceinline__ Vector<uint8_t, kVector> convert(const Vector<T, kVector>& vector,
                                                              const Shared& shared) const {
    int32_t code[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) code[i] = shared.code(to_float(vector.get(i)));
    return pack_bytes(code);
  }

  template <int kVector>
  __device__ __forceinline__ Vector<uint8_t, kVector> convert_each(const Vector<T, kVector>& vector,
                                                                   const Shared (&shared)[kVector]) const {
    int32_t code[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) code[i] = shared[i].code(to_float(vector.get(i)));
    return pack_bytes(code);
  }

  __device__ __forceinline__ uint8_t convert_one(T value, float scale, int32_t zero) const {
    return static_cast<uint8_t>(quantize<kMode>(to_float(value), scale, zero, range));
  }
};

// x, q: device, in runs of neighbours
template <QuantizeMode kMode, class T, int kVector>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const VectorsPlan plan, const T* __restrict__ x, uint8_t* __restrict__ q, const CodeRange range) {
  for_each_vector<kVector>(plan, Quantize<kMode, T>{x, q, range});
}

// The same with parameters that change from element to element.
template <QuantizeMode kMode, class T, int kVector>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const EachPlan plan, const T* __restrict__ x, uint8_t* __restrict__ q, const CodeRange range) {
  for_each_vector<kVector>(plan, Quantize<kMode, T>{x, q, range});
}

// x, q: device, rows with a scale for each column
template <QuantizeMode kMode, class T, int kVector>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const ColumnsPlan plan, const T* __restrict__ x, uint8_t* __restrict__ q, const CodeRange range) {
  for_each_column(plan, Quantize<kMode, T>{x, q, range});
}

// x, q: device, any strides
template <QuantizeMode kMode, class T, int kVector>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const ElementsPlan plan, const T* __restrict__ x, uint8_t* __restrict__ q, const CodeRange range) {
  for_each_element(plan, Quantize<kMode, T>{x, q, range});
}

template <QuantizeMode kMode, class T>
cudaError_t launch(const QuantizeArguments& arguments, cudaStream_t stream) {
  const T* x = static_cast<const T*>(arguments.x);
  uint8_t* q = static_cast<uint8_t*>(arguments.q);
  return choose_elementwise<T>(arguments.nest, kSource, kTarget, x, q, arguments.scale, arguments.zero_point,
                               [&](const auto& plan, auto vector) {
                                 quantize_kernel<kMode, T, decltype(vector)::value>
                                     <<<plan.blocks(), kThreads, 0, stream>>>(plan, x, q, arguments.range);
                                 return cudaGetLastError();
                               });
}

// x, q: device, any strides; elements have numbers
template <class T>
__global__ void __launch_bounds__(kThreads)
    quantize_stochastic_kernel(const NumberedPlan plan, const T* __restrict__ x, uint8_t* __restrict__ q,
                               const CodeRange range, const int64_t seed) {
  for_each_numbered(plan, x, q, true, seed, [=](float value, float scale, int32_t zero, float uniform) {
    return static_cast<uint8_t>(quantize(value, scale, zero, range, QuantizeMode::kStochastic, uniform));
  });
}

template <class T>
cudaError_t launch_stochastic(const QuantizeArguments& arguments, cudaStream_t stream) {
  const NumberedPlan plan(arguments.nest, kWidest<T>, arguments.scale, arguments.zero_point);
  quantize_stochastic_kernel<<<plan.blocks(), kThreads, 0, stream>>>(
      plan, static_cast<const T*>(arguments.x), static_cast<uint8_t*>(arguments.q), arguments.range, arguments.seed);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_quantize(const QuantizeArguments& arguments, cudaStream_t stream) {
  if (arguments.nest.numel() == 0) return cudaSuccess;
  return with_type(arguments.x_type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    switch (arguments.mode) {
      case QuantizeMode::kOnnx:
        return launch<QuantizeMode::kOnnx, T>(arguments, stream);
      case QuantizeMode::kAffine:
        return launch<QuantizeMode::kAffine, T>(arguments, stream);
      case QuantizeMode::kReciprocal:
        return launch<QuantizeMode::kReciprocal, T>(arguments, stream);
      case QuantizeMode::kStochastic:
        return launch_stochastic<T>(arguments, stream);
    }
    return cudaErrorInvalidValue;
  });
}

}  // namespace quaver
