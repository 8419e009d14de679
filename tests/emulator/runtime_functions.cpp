// runtime_functions.cpp: of the stand-in for the CUDA runtime: a kernel's attributes and its occupancy.
#include "runtime.h"

using namespace stand_in;

namespace {

cudaError_t resident_blocks(const char* name, int* blocks, const void* host, int threads, size_t shared) {
  note_call(name);
  if (threads <= 0) return give(cudaErrorInvalidValue);
  Kernel kernel;
  const cudaError_t error = find(host, &kernel);
  if (error != cudaSuccess) return give(error);
  return give(handlers().resident_blocks(&kernel, threads, shared, blocks));
}

}  // namespace

#pragma GCC visibility push(default)

extern "C" {

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* host) {
  note_call("cudaFuncGetAttributes");
  Kernel kernel;
  Attributes numbers;
  cudaError_t error = find(host, &kernel);
  if (error == cudaSuccess) error = static_cast<cudaError_t>(handlers().attributes(&kernel, &numbers));
  if (error != cudaSuccess) return give(error);
  *attributes = {};
  attributes->sharedSizeBytes = static_cast<size_t>(numbers.static_shared);
  attributes->localSizeBytes = static_cast<size_t>(numbers.local);
  attributes->maxThreadsPerBlock = numbers.threads;
  attributes->numRegs = numbers.registers;
  attributes->ptxVersion = numbers.ptx_version;
  attributes->binaryVersion = numbers.binary_version;
  attributes->maxDynamicSharedSizeBytes = numbers.dynamic_shared;
  attributes->preferredShmemCarveout = numbers.carveout;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute attribute, int value) {
  note_call("cudaFuncSetAttribute");
  Kernel kernel;
  const cudaError_t error = find(host, &kernel);
  if (error != cudaSuccess) return give(error);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize &&
      attribute != cudaFuncAttributePreferredSharedMemoryCarveout)
    return refuse("cudaFuncSetAttribute", cudaErrorNotSupported,
                  "attribute " + std::to_string(attribute) + " is not emulated");
  return give(handlers().set_attribute(&kernel, attribute, value));
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* host, int threads, size_t shared) {
  return resident_blocks("cudaOccupancyMaxActiveBlocksPerMultiprocessor", blocks, host, threads, shared);
}

// The flags are about a cache that no pretended device has.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* host, int threads,
                                                                   size_t shared, unsigned) {
  return resident_blocks("cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", blocks, host, threads, shared);
}

}  // extern "C"
