// types.h: the element types and named choices that ops, CPU kernels and CUDA kernels agree on. No torch header.
#pragma once

#include <cstdint>

namespace quaver {

enum class FloatType : int32_t { kFloat32, kFloat16, kBFloat16 };
enum class CodeType : int32_t { kInt8, kUint8 };

// How a quotient becomes a code: ARITHMETIC.md (2).
enum class QuantizeMode : int32_t { kOnnx, kAffine, kReciprocal, kStochastic };

// How an int32 product becomes a code: in floats, ARITHMETIC.md (7) and (8), or by an integer multiplier, (10).
enum class RequantizeMode : int32_t { kFloat, kFixed };

// Codes are kept inside [q_min, q_max], a part of their type's range.
struct CodeRange {
  int32_t q_min;
  int32_t q_max;
};

inline constexpr CodeRange full_range(CodeType type) {
  return type == CodeType::kInt8 ? CodeRange{-128, 127} : CodeRange{0, 255};
}

}  // namespace quaver
