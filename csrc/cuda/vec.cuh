// vec.cuh: elements in device memory as vectors of up to 16 bytes, to and from float. ARITHMETIC.md "Notation".
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "types.h"

namespace quaver {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

// One rounding, to even.
__device__ __forceinline__ void from_float(float value, float& out) { out = value; }
__device__ __forceinline__ void from_float(float value, __half& out) { out = __float2half_rn(value); }
__device__ __forceinline__ void from_float(float value, __nv_bfloat16& out) { out = __float2bfloat16_rn(value); }

template <class T>
__device__ __forceinline__ auto pair_from_floats(float first, float second) {
  if constexpr (std::is_same_v<T, __half>) return __floats2half2_rn(first, second);
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return __floats2bfloat162_rn(first, second);
}

// The widest access, in elements.
template <class T>
inline constexpr int kWidest = 16 / sizeof(T);

// How far an address lies behind the last multiple of `count` elements.
template <int kCount, class T>
__device__ __forceinline__ int misalignment(const T* address) {
  return static_cast<int>(reinterpret_cast<uint64_t>(address) / sizeof(T) % kCount);
}

// kCount neighbouring elements in registers, as the words of one access.
template <class T, int kCount>
struct Vector {
  static constexpr int kBytes = kCount * sizeof(T);
  static constexpr int kWords = (kBytes + 3) / 4;
  static constexpr int kInWord = sizeof(T) < 4 ? std::min<int>(4 / sizeof(T), kCount) : 1;  // elements
  uint32_t word[kWords];

  __device__ __forceinline__ T get(int i) const {
    T value;
    if constexpr (sizeof(T) > 4) {
      memcpy(&value, word + i * (sizeof(T) / 4), sizeof value);
    } else {
      const uint32_t bits = word[i / kInWord] >> (8 * sizeof(T) * (i % kInWord));
      memcpy(&value, &bits, sizeof value);
    }
    return value;
  }

  // Elements are put in from the first to the last; those before may be left out where the vector began as zeros.
  __device__ __forceinline__ void put(int i, T value) {
    if constexpr (sizeof(T) > 4) {
      memcpy(word + i * (sizeof(T) / 4), &value, sizeof value);
    } else {
      uint32_t bits = 0;
      memcpy(&bits, &value, sizeof value);
      const int shift = 8 * sizeof(T) * (i % kInWord);
      word[i / kInWord] = shift == 0 ? bits : word[i / kInWord] | bits << shift;
    }
  }
};

// Two at a time where hardware can, to the bits of from_float.
template <class T, int kCount>
__device__ __forceinline__ Vector<T, kCount> from_floats(const float (&value)[kCount]) {
  Vector<T, kCount> vector{};
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < kCount; i += 2) {
      const auto pair = pair_from_floats<T>(value[i], value[i + 1]);
      memcpy(&vector.word[i / 2], &pair, sizeof pair);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) vector.put(i, value[i]);
  }
  return vector;
}

// The lowest bytes of integers, side by side.
template <class T, int kCount>
__device__ __forceinline__ Vector<uint8_t, kCount> pack_bytes(const T (&value)[kCount]) {
  static_assert(kCount % 4 == 0);
  Vector<uint8_t, kCount> vector;
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    const uint32_t low = __byte_perm(value[i], value[i + 1], 0x0040);
    const uint32_t high = __byte_perm(value[i + 2], value[i + 3], 0x0040);
    vector.word[i / 4] = __byte_perm(low, high, 0x5410);
  }
  return vector;
}

// `from` is aligned to the whole vector; nothing writes there while the kernel runs.
template <int kCount, class T>
__device__ __forceinline__ Vector<T, kCount> load_vector(const T* __restrict__ from) {
  using Result = Vector<T, kCount>;
  if constexpr (Result::kBytes == 16) {
    const uint4 words = __ldg(reinterpret_cast<const uint4*>(from));
    return {{words.x, words.y, words.z, words.w}};
  } else if constexpr (Result::kBytes == 8) {
    const uint2 words = __ldg(reinterpret_cast<const uint2*>(from));
    return {{words.x, words.y}};
  } else if constexpr (Result::kBytes == 4) {
    return {{__ldg(reinterpret_cast<const uint32_t*>(from))}};
  } else if constexpr (Result::kBytes == 2) {
    return {{__ldg(reinterpret_cast<const uint16_t*>(from))}};
  } else {
    static_assert(Result::kBytes == 1);
    return {{__ldg(reinterpret_cast<const uint8_t*>(from))}};
  }
}

// The intrinsics keep one store whole, which the compiler may take apart otherwise.
template <class T, int kCount>
__device__ __forceinline__ void store_vector(const Vector<T, kCount>& vector, T* __restrict__ to) {
  constexpr int kBytes = Vector<T, kCount>::kBytes;
  if constexpr (kBytes == 16) {
    __stwb(reinterpret_cast<uint4*>(to), make_uint4(vector.word[0], vector.word[1], vector.word[2], vector.word[3]));
  } else if constexpr (kBytes == 8) {
    __stwb(reinterpret_cast<uint2*>(to), make_uint2(vector.word[0], vector.word[1]));
  } else if constexpr (kBytes == 4) {
    __stwb(reinterpret_cast<uint32_t*>(to), vector.word[0]);
  } else if constexpr (kBytes == 2) {
    *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(vector.word[0]);
  } else {
    static_assert(kBytes == 1);
    *reinterpret_cast<uint8_t*>(to) = static_cast<uint8_t>(vector.word[0]);
  }
}

// The first `count` of kCount elements, which need an aligned address only where all are read; zeros for the others.
template <int kCount, class T>
__device__ __forceinline__ Vector<T, kCount> load_span(const T* __restrict__ from, int count) {
  if (count == kCount && misalignment<kCount>(from) == 0) return load_vector<kCount>(from);
  Vector<T, kCount> vector{};
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    if (i < count) vector.put(i, from[i]);
  return vector;
}

template <class T, int kCount>
__device__ __forceinline__ void store_span(const Vector<T, kCount>& vector, T* __restrict__ to, int count) {
  if (count == kCount && misalignment<kCount>(to) == 0) return store_vector(vector, to);
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    if (i < count) to[i] = vector.get(i);
}

// Elements begin, begin + 1, ... of a row, `step` apart in memory: the first `count` of kCount, and zeros.
template <int kCount, class T>
__device__ __forceinline__ Vector<T, kCount> load_of_row(const T* __restrict__ row, int64_t step, int begin,
                                                         int count) {
  const T* from = row + begin * step;
  if (count == kCount && step == 1 && misalignment<kCount>(from) == 0) return load_vector<kCount>(from);
  Vector<T, kCount> vector{};
#pragma unroll
  for (int i = 0; i < kCount; ++i, from += step)
    if (i < count) vector.put(i, *from);
  return vector;
}

template <class T>
struct TypeTag {
  using type = T;
};

template <int kNumber>
struct CountTag {
  static constexpr int value = kNumber;
};

// Calls body(TypeTag<T>{}) with the type in memory and returns its result.
template <class Body>
cudaError_t with_type(FloatType type, const Body& body) {
  switch (type) {
    case FloatType::kFloat32:
      return body(TypeTag<float>{});
    case FloatType::kFloat16:
      return body(TypeTag<__half>{});
    case FloatType::kBFloat16:
      return body(TypeTag<__nv_bfloat16>{});
  }
  return cudaErrorInvalidValue;
}

}  // namespace quaver
