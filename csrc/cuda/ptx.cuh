// ptx.cuh: each PTX instruction that is written by hand, once, with its place in the PTX ISA.
#pragma once

#include <cstdint>

#include "types.h"

namespace quaver {

// acc + the sum of the products of four codes in a and four in b; wraps.
// PTX ISA, "Integer Arithmetic Instructions: dp4a": dp4a.atype.btype d, a, b, c; sm_61 or newer.
template <CodeType kA, CodeType kB>
__device__ __forceinline__ int32_t dp4a(uint32_t a, uint32_t b, int32_t acc) {
  int32_t sum;
  if constexpr (kA == CodeType::kInt8 && kB == CodeType::kInt8) {
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
  } else if constexpr (kA == CodeType::kInt8) {
    asm("dp4a.s32.u32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
  } else if constexpr (kB == CodeType::kInt8) {
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
  } else {
    asm("dp4a.u32.u32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
  }
  return sum;
}

}  // namespace quaver
