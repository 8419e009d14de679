// simd.h: one loop, compiled for each instruction set, run with the best one. No torch header.
//
// A kernel's loops are plain C++ over arith.h. The compiler vectorizes them once for each target below; since every
// float operation is written out and -ffp-contract=off holds, all of them give the same bits.
#pragma once

#include "cpu/capability.h"

// Compiles a function for instruction sets; tests/instruction_sets replaces it where it emulates them.
#ifndef QUAVER_TARGET
#define QUAVER_TARGET(names) __attribute__((target(names)))
#endif

// Marks a lambda that `vectorized` inlines into each of its targets.
#define QUAVER_INLINE __attribute__((always_inline))

namespace quaver {

#if defined(__x86_64__)
template <class Body>
QUAVER_TARGET("avx2")
void run_avx2(const Body& body) {
  body();
}

template <class Body>
QUAVER_TARGET("avx2,avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")
void run_avx512(const Body& body) {
  body();
}
#endif

template <class Body>
void vectorized(const Body& body) {
#if defined(__x86_64__)
  if (cpu_capability() >= CpuCapability::kAvx512) return run_avx512(body);
  if (cpu_capability() >= CpuCapability::kAvx2) return run_avx2(body);
#endif
  body();
}

}  // namespace quaver
