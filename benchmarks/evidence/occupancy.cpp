// occupancy.cpp: NVIDIA's occupancy calculator as a filter. Each line of the input is a kernel on a multiprocessor:
//   major minor threads_of_sm registers_of_sm shared_of_sm shared_of_block reserved_of_block
//   registers static_shared threads_of_block dynamic_shared
// Each line of the output is how many of its blocks the multiprocessor holds.
#include <cstdio>
#include <iostream>
#include <limits>

#include "cuda_occupancy.h"

int main() {
  cudaOccDeviceProp sm{};
  sm.maxThreadsPerBlock = 1024;
  sm.warpSize = 32;
  sm.sharedMemPerBlock = 48 * 1024;
  sm.numSms = 1;
  cudaOccFuncAttributes kernel{};
  kernel.maxThreadsPerBlock = sm.maxThreadsPerBlock;
  kernel.maxDynamicSharedSizeBytes = std::numeric_limits<int>::max();
  kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  const cudaOccDeviceState state;
  int threads;
  size_t dynamic_shared;
  while (std::cin >> sm.computeMajor >> sm.computeMinor >> sm.maxThreadsPerMultiprocessor >> sm.regsPerMultiprocessor >>
         sm.sharedMemPerMultiprocessor >> sm.sharedMemPerBlockOptin >> sm.reservedSharedMemPerBlock >> kernel.numRegs >>
         kernel.sharedSizeBytes >> threads >> dynamic_shared) {
    sm.regsPerBlock = sm.regsPerMultiprocessor;
    cudaOccResult result;
    const cudaOccError error =
        cudaOccMaxActiveBlocksPerMultiprocessor(&result, &sm, &kernel, &state, threads, dynamic_shared);
    if (error != CUDA_OCC_SUCCESS) {
      std::fprintf(stderr, "cuda_occupancy.h refuses a kernel: error %d\n", error);
      return 1;
    }
    std::cout << result.activeBlocksPerMultiprocessor << '\n';
  }
}
