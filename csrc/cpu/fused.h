// fused.h: one loop, compiled for each instruction set as in simd.h, and told whether that set has what is exact but
// not arith.h's way: a fused multiply-add, and conversions of float16. No torch header.
#pragma once

#include <type_traits>

#include "cpu/simd.h"

namespace quaver {

#if defined(__x86_64__)
template <class Body>
QUAVER_TARGET("avx2,fma,f16c")
void run_avx2_fused(const Body& body) {
  body();
}

inline bool machine_fuses() {
  static const bool fuses = __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  return fuses;
}
#endif

// What `vectorized_fused` gives a body: the number of floats in a vector whose instructions are fused, or 0.
template <int kWidth>
using Fused = std::integral_constant<int, kWidth>;

// Runs body(Fused<...>) for the best instruction set.
template <class Body>
void vectorized_fused(const Body& body) {
#if defined(__x86_64__)
  if (cpu_capability() >= CpuCapability::kAvx512) return run_avx512([&]() QUAVER_INLINE { body(Fused<16>{}); });
  if (cpu_capability() >= CpuCapability::kAvx2 && machine_fuses())
    return run_avx2_fused([&]() QUAVER_INLINE { body(Fused<8>{}); });
#endif
  vectorized([&]() QUAVER_INLINE { body(Fused<0>{}); });
}

}  // namespace quaver
