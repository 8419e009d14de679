// capability.h: which of the compiled instruction sets the CPU kernels use. No torch header.
//
// QUAVER_CPU_CAPABILITY=portable|avx2|avx512 in the environment caps the choice; the results are the same bits.
#pragma once

namespace quaver {

enum class CpuCapability { kPortable, kAvx2, kAvx512 };

inline const char* name_of(CpuCapability capability) {
  switch (capability) {
    case CpuCapability::kAvx512:
      return "avx512";
    case CpuCapability::kAvx2:
      return "avx2";
    default:
      return "portable";
  }
}

// The best that this machine has and the environment allows; read once.
CpuCapability cpu_capability();

}  // namespace quaver
