// convert.h: float16 and bfloat16 in memory to and from float, by integer operations that vectorize everywhere and
// flush nothing. Rounding is half to even; ARITHMETIC.md "Notation". No torch header.
#pragma once

#include <cstdint>
#include <cstring>

#include "arith.h"

namespace quaver {

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

QUAVER_FUNCTION uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
QUAVER_FUNCTION float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

QUAVER_FUNCTION float to_float(float value) { return value; }

QUAVER_FUNCTION float to_float(BFloat16 value) { return float_of(static_cast<uint32_t>(value.bits) << 16); }

// float16 has its exponent and mantissa 13 bits lower and its exponent's bias 112 smaller; the smallest exponent means
// a subnormal (mantissa * 2^-24, exact as a float product), the largest one infinity or NaN.
QUAVER_FUNCTION float to_float(Float16 value) {
  constexpr uint32_t kBias = 112u << 23;
  const uint32_t body = value.bits & 0x7FFFu;
  const uint32_t normal = (body << 13) + kBias;
  const uint32_t subnormal = bits_of(static_cast<float>(static_cast<int32_t>(body)) * 0x1p-24f);
  uint32_t bits = body < 0x0400u ? subnormal : normal;
  bits = body >= 0x7C00u ? normal + kBias : bits;
  return float_of(bits | (static_cast<uint32_t>(value.bits & 0x8000u) << 16));
}

QUAVER_FUNCTION void from_float(float value, float& out) { out = value; }

// The same for what is no NaN.
QUAVER_FUNCTION void from_number(float value, float& out) { out = value; }

QUAVER_FUNCTION void from_number(float value, BFloat16& out) {
  const uint32_t bits = bits_of(value);
  out.bits = static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

QUAVER_FUNCTION void from_float(float value, BFloat16& out) {
  from_number(value, out);
  if (is_nan(value)) out.bits = 0x7FC0u;
}

// Below 2^-14 the result is a multiple of 2^-24, which is one unit in the last place of floats in [0.5, 1): adding 0.5
// rounds. From 65520 on, half way past the largest float16, the result is infinity.
QUAVER_FUNCTION void from_float(float value, Float16& out) {
  constexpr uint32_t kBias = 112u << 23;
  const uint32_t sign = bits_of(value) & 0x80000000u;
  const uint32_t body = bits_of(value) ^ sign;
  const float size = float_of(body);
  const uint32_t normal = (body - kBias + 0xFFFu + ((body >> 13) & 1u)) >> 13;
  const uint32_t subnormal = bits_of(size + 0.5f) - bits_of(0.5f);
  uint32_t bits = size < 0x1p-14f ? subnormal : normal;
  bits = size >= 65520.0f ? 0x7C00u : bits;
  bits = is_nan(value) ? 0x7E00u : bits;
  out.bits = static_cast<uint16_t>(bits | (sign >> 16));
}

}  // namespace quaver
