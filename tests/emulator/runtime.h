// runtime.h: what the parts of the stand-in for the CUDA runtime share. It replaces the runtime, not our code: kernels,
// launchers and their questions about the device are the shipped ones.
//
// The runtime acts as if every stream were being captured into a CUDA graph, since any op may be: what a capture
// forbids is refused, with the code that CUDA has for it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

namespace stand_in {

// A kernel as the host knows it, with the PTX that the device would run.
struct Kernel {
  const void* host;  // the host function that stands for it
  const char* name;
  const char* ptx;
  uint64_t ptx_size;
};

// The numbers of the pretended device.
struct Device {
  char name[64];
  int32_t major, minor, multiprocessors;
  int32_t threads_per_block, block_limits[3], grid_limits[3];
  int32_t threads_per_multiprocessor, blocks_per_multiprocessor;
  int32_t registers_per_block, registers_per_multiprocessor;
  int32_t shared_per_block, shared_per_block_with_opting_in, shared_per_multiprocessor, reserved_shared_per_block;
};

// The numbers of a kernel on that device.
struct Attributes {
  int32_t registers, static_shared, local, threads, dynamic_shared, carveout, ptx_version, binary_version;
};

// Who emulates. Each gives a code of cudaError_t.
struct Handlers {
  int (*launch)(const Kernel*, const uint32_t* grid, const uint32_t* block, uint64_t shared, uint64_t stream,
                void** arguments);
  int (*attributes)(const Kernel*, Attributes*);
  int (*set_attribute)(const Kernel*, int attribute, int value);
  int (*resident_blocks)(const Kernel*, int threads, uint64_t shared, int* blocks);
};

const Device& device();
const Handlers& handlers();

// The kernel that a host function stands for; says what is wrong where there is none.
cudaError_t find(const void* host, Kernel* kernel);

// Every function of the runtime notes its name when it is called.
void note_call(const char* name);

// Every function of the runtime gives its error through here, so that cudaGetLastError knows it.
cudaError_t give(int error);

// Notes in words what the stand-in does not do, and why.
cudaError_t refuse(const char* name, cudaError_t error, const std::string& why);

}  // namespace stand_in
