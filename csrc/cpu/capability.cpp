// capability.cpp: reads the machine's features and the environment's cap once.
#include "cpu/capability.h"

#include <cstdlib>
#include <cstring>

namespace quaver {
namespace {

CpuCapability machine_capability() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return CpuCapability::kAvx512;
  if (__builtin_cpu_supports("avx2")) return CpuCapability::kAvx2;
#endif
  return CpuCapability::kPortable;
}

CpuCapability allowed_capability() {
  const char* cap = std::getenv("QUAVER_CPU_CAPABILITY");
  if (cap != nullptr && std::strcmp(cap, "portable") == 0) return CpuCapability::kPortable;
  if (cap != nullptr && std::strcmp(cap, "avx2") == 0) return CpuCapability::kAvx2;
  return CpuCapability::kAvx512;
}

}  // namespace

CpuCapability cpu_capability() {
  static const CpuCapability choice =
      allowed_capability() < machine_capability() ? allowed_capability() : machine_capability();
  return choice;
}

}  // namespace quaver
