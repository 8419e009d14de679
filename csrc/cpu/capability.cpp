// capability.cpp: reads the machine's features and the environment's cap once.
#include "cpu/capability.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace quaver {
namespace {

#if defined(__x86_64__)
// Tiles are a large state, which Linux gives to processes that ask for it.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool has(CpuCapability capability) {
  switch (capability) {
    case CpuCapability::kAmx:
      return has(CpuCapability::kAvx512Vnni) && __builtin_cpu_supports("amx-int8") && may_use_tiles();
    case CpuCapability::kAvx512Vnni:
      return has_avx512() && __builtin_cpu_supports("avx512vnni");
    case CpuCapability::kAvx512:
      return has_avx512();
    case CpuCapability::kAvxVnni:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avxvnni");
    case CpuCapability::kAvx2:
      return __builtin_cpu_supports("avx2");
    case CpuCapability::kPortable:
      return true;
  }
  return false;
}
#else
bool has(CpuCapability capability) { return capability == CpuCapability::kPortable; }
#endif

int allowed() {
  const char* given = std::getenv("QUAVER_CPU_CAPABILITY");
  if (given == nullptr || *given == '\0') return kCpuCapabilities - 1;
  std::string names;
  for (int i = 0; i < kCpuCapabilities; ++i) {
    if (std::string(given) == kCapabilityNames[i]) return i;
    names += (i == 0 ? "" : ", ") + std::string(kCapabilityNames[i]);
  }
  throw std::runtime_error("QUAVER_CPU_CAPABILITY must be one of " + names + ", got " + given);
}

CpuCapability choose() {
  for (int i = allowed(); i > 0; --i)
    if (has(static_cast<CpuCapability>(i))) return static_cast<CpuCapability>(i);
  return CpuCapability::kPortable;
}

}  // namespace

CpuCapability cpu_capability() {
  static const CpuCapability choice = choose();
  return choice;
}

}  // namespace quaver
