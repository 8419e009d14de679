// ptx.cuh: each PTX instruction that is written by hand, once, with its place in the PTX ISA.
#pragma once

#include <cstdint>

#include "types.h"

namespace quaver {

// What instructions call a shared-memory address.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes. PTX ISA, "Data Movement and Conversion Instructions: st"
__device__ __forceinline__ void store_shared(uint32_t to, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}

// `wanted` of kBytes bytes from global to shared memory, and zeros for the rest: lands later, in the group that is
// committed next. Both addresses are multiples of kBytes.
// PTX ISA, "Data Movement and Conversion Instructions: cp.async"; sm_80 or newer. Whole sectors go past the L1 cache.
// Before, the bytes go through registers, and are there when the next barrier has been passed.
template <int kBytes>
__device__ __forceinline__ void copy_async(uint32_t to, const void* from, int wanted) {
  static_assert(kBytes == 16 || kBytes == 4);
#if __CUDA_ARCH__ >= 800
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(wanted) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(wanted) : "memory");
  }
#else
  uint32_t word[4] = {};
  if (kBytes == 16 && wanted == 16) {
    const uint4 words = __ldg(static_cast<const uint4*>(from));
    word[0] = words.x, word[1] = words.y, word[2] = words.z, word[3] = words.w;
  } else if (kBytes == 4 && wanted == 4) {
    word[0] = __ldg(static_cast<const uint32_t*>(from));
  } else {
#pragma unroll
    for (int i = 0; i < kBytes; ++i)
      if (i < wanted) word[i / 4] |= static_cast<uint32_t>(static_cast<const uint8_t*>(from)[i]) << (i % 4 * 8);
  }
  if constexpr (kBytes == 16) {
    store_shared(to, word[0], word[1], word[2], word[3]);
  } else {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(word[0]) : "memory");
  }
#endif
}
// PTX ISA, "cp.async.commit_group"
__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Until at most kPending of this thread's latest groups are under way. PTX ISA, "cp.async.wait_group"
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// Four matrices of 8 lines of 16 bytes; lane l says where line l % 8 of matrix l / 8 is, and gets bytes 4 (l % 4) to
// 4 (l % 4) + 3 of line l / 4 of each. PTX ISA, "Warp-level matrix load instruction: ldmatrix"; sm_75 or newer.
__device__ __forceinline__ void load_matrices(uint32_t (&matrix)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
               : "r"(from)
               : "memory");
}

// acc [16, 8] + a [16, 32] x b [32, 8]; wraps. Lane l has of a: codes 4 (l % 4) to 4 (l % 4) + 3 of rows l / 4 and
// l / 4 + 8, then the same 16 codes further; of b: those codes of column l / 4; of acc: columns 2 (l % 4) and
// 2 (l % 4) + 1 of both rows. PTX ISA, "Matrix Fragments for mma.m16n8k32"; sm_80 or newer.
// Before, the same in four quarters, each of 8 rows and 16 codes: PTX ISA, "Matrix Fragments for mma.m8n8k16"; sm_75.
#if __CUDA_ARCH__ >= 800
#define QUAVER_MMA(a_type, b_type)                                           \
  asm("mma.sync.aligned.m16n8k32.row.col.s32." a_type "." b_type             \
      ".s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
      : "+r"(acc[0]), "+r"(acc[1]), "+r"(acc[2]), "+r"(acc[3])               \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#else
#define QUAVER_MMA(a_type, b_type)                                                                                 \
  _Pragma("unroll") for (int i = 0; i < 4; ++i) asm("mma.sync.aligned.m8n8k16.row.col.s32." a_type "." b_type      \
                                                    ".s32 {%0, %1}, {%2}, {%3}, {%0, %1};" : "+r"(acc[i % 2 * 2]), \
                                                    "+r"(acc[i % 2 * 2 + 1]) : "r"(a[i]), "r"(b[i / 2]))
#endif

template <CodeType kA, CodeType kB>
__device__ __forceinline__ void multiply_accumulate(int32_t (&acc)[4], const uint32_t (&a)[4], const uint32_t* b) {
  if constexpr (kA == CodeType::kInt8 && kB == CodeType::kInt8) {
    QUAVER_MMA("s8", "s8");
  } else if constexpr (kA == CodeType::kInt8) {
    QUAVER_MMA("s8", "u8");
  } else if constexpr (kB == CodeType::kInt8) {
    QUAVER_MMA("u8", "s8");
  } else {
    QUAVER_MMA("u8", "u8");
  }
}
#undef QUAVER_MMA

}  // namespace quaver
