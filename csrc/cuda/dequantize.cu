// dequantize.cu: dequantize on CUDA, the last stage: q to x of one shape with the parameters of its blocks. Bound by
// memory: one read of q and one write of x for each element.
#include "elementwise.cuh"
#include "launch.h"

namespace quaver {
namespace {

// Flipping the highest bit of an int8 code's byte gives the code plus 128, so that codes of both types are bytes less a
// zero point of bytes: `flip` is 128 for int8 and 0 for uint8.
//
// A byte put below the exponent of 2^23 makes the float 2^23 + byte, and 2^23 + the zero point is a float too: their
// difference is exact, without a conversion of integers.
template <class T>
struct Dequantize {
  using Source = uint8_t;
  using Result = T;
  using Wide = T;
  const uint8_t* q;
  T* x;
  int32_t flip;

  struct Shared {
    float scale;
    float shifted_zero;

    Shared() = default;
    __device__ __forceinline__ Shared(float scale, int32_t zero, const Dequantize& operation)
        : scale(scale), shifted_zero(add(kShift, static_cast<float>(wrapping_add(zero, operation.flip)))) {}
  };

  static constexpr float kShift = 8388608.0f;
  static constexpr uint32_t kShiftBits = 0x4B000000;

  __device__ __forceinline__ const T* wide() const { return x; }
  __device__ __forceinline__ const uint8_t* source(const int64_t (&offset)[kElementwiseTensors]) const {
    return q + offset[kQ];
  }
  __device__ __forceinline__ T* result(const int64_t (&offset)[kElementwiseTensors]) const { return x + offset[kX]; }

  template <int kVector, class SharedOf>
  __device__ __forceinline__ Vector<T, kVector> convert_by(const Vector<uint8_t, kVector>& vector,
                                                           const SharedOf& shared_of) const {
    float value[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const uint32_t bytes = vector.word[i / 4] ^ (0x01010101u * flip);
      const float shifted = __uint_as_float(__byte_perm(bytes, kShiftBits, 0x7650 + i % 4));
      value[i] = multiply(subtract(shifted, shared_of(i).shifted_zero), shared_of(i).scale);
    }
    return from_floats<T>(value);
  }

  template <int kVector>
  __device__ __forceinline__ Vector<T, kVector> convert(const Vector<uint8_t, kVector>& vector,
                                                        const Shared& shared) const {
    return convert_by(vector, [&](int) -> const Shared& { return shared; });
  }
  template <int kVector>
  __device__ __forceinline__ Vector<T, kVector> convert_each(const Vector<uint8_t, kVector>& vector,
                                                             const Shared (&shared)[kVector]) const {
    return convert_by(vector, [&](int i) -> const Shared& { return shared[i]; });
  }

  __device__ __forceinline__ T convert_one(uint8_t byte, float scale, int32_t zero) const {
    T value;
    from_float(dequantize(byte ^ flip, scale, wrapping_add(zero, flip)), value);
    return value;
  }
};

// q, x: device, in runs of neighbours
template <class T, int kVector>
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(const VectorsPlan plan, const uint8_t* __restrict__ q, T* __restrict__ x, const int32_t flip) {
  for_each_vector<kVector>(plan, Dequantize<T>{q, x, flip});
}

// q, x: device, rows with a scale for each column
template <class T, int kVector>
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(const ColumnsPlan plan, const uint8_t* __restrict__ q, T* __restrict__ x, const int32_t flip) {
  for_each_column(plan, Dequantize<T>{q, x, flip});
}

// q, x: device, any strides
template <class T, int kVector>
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(const ElementsPlan plan, const uint8_t* __restrict__ q, T* __restrict__ x, const int32_t flip) {
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
    return choose_elementwise<T>(arguments.nest, kTarget, kSource, x, q, arguments.scale, arguments.zero_point,
                                 [&](const auto& plan, auto vector) {
                                   dequantize_kernel<T, decltype(vector)::value>
                                       <<<plan.blocks(), kThreads, 0, stream>>>(plan, q, x, flip);
                                   return cudaGetLastError();
                                 });
  });
}

}  // namespace quaver
