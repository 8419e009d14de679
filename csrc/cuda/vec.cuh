// vec.cuh: element types in device memory, to and from float. ARITHMETIC.md "Notation".
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

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
struct TypeTag {
  using type = T;
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

template <class Body>
cudaError_t with_type(CodeType type, const Body& body) {
  switch (type) {
    case CodeType::kInt8:
      return body(TypeTag<int8_t>{});
    case CodeType::kUint8:
      return body(TypeTag<uint8_t>{});
  }
  return cudaErrorInvalidValue;
}

}  // namespace quaver
