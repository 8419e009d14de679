// capability.h: which of the compiled instruction sets the CPU kernels use. No torch header.
//
// QUAVER_CPU_CAPABILITY in the environment, one of the names below, caps the choice; the results are the same bits.
#pragma once

namespace quaver {

// From the least to the most. Each but kAvxVnni holds the ones before it: of those with 512 bits, some machines have
// the instructions of kAvxVnni and some have not.
enum class CpuCapability { kPortable, kAvx2, kAvxVnni, kAvx512, kAvx512Vnni, kAmx };

inline constexpr int kCpuCapabilities = 6;
inline constexpr const char* kCapabilityNames[kCpuCapabilities] = {"portable", "avx2",        "avx_vnni",
                                                                   "avx512",   "avx512_vnni", "amx"};

inline const char* name_of(CpuCapability capability) { return kCapabilityNames[static_cast<int>(capability)]; }

// The best that this machine has and the environment allows; read once. Throws where the environment names none.
CpuCapability cpu_capability();

}  // namespace quaver
