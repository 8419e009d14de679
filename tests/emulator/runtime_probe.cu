// runtime_probe.cu: kernels and launchers that ask the stand-in for the CUDA runtime all that it answers; what
// tests/test_emulator_runtime.py drives. Built like the emulated library: PTX alone, uncompressed.
#include <cuda_occupancy.h>

#include <cstdint>

namespace {

__global__ void plain(int* out, int count) {
  const int at = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (at < count) out[at] = at;
}

// Hands values to the neighbour through shared memory, whose size the launch gives.
__global__ void dynamic_shared(int* out, int count) {
  extern __shared__ int values[];
  const int at = static_cast<int>(threadIdx.x);
  values[at] = at;
  __syncthreads();
  if (at < count) out[at] = values[blockDim.x - 1 - threadIdx.x];
}

__global__ void static_shared(int* out, int count) {
  __shared__ int values[1024];
  const int at = static_cast<int>(threadIdx.x);
  values[at] = at;
  __syncthreads();
  if (at < count) out[at] = values[blockDim.x - 1 - threadIdx.x];
}

__global__ void __launch_bounds__(128) bounded(int* out, int count) {
  if (static_cast<int>(threadIdx.x) < count) out[threadIdx.x] = 1;
}

// Every value is needed until the end: more registers than 1024 threads can have.
__global__ void many_registers(int* out, int count) {
  int values[96];
#pragma unroll
  for (int i = 0; i < 96; ++i) values[i] = out[i % count];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 96; ++i) out[(i + 1) % count] = values[i];
}

using Function = void (*)(int*, int);
constexpr Function kFunctions[] = {plain, dynamic_shared, static_shared, bounded, many_registers};

const void* address(int function) { return reinterpret_cast<const void*>(kFunctions[function]); }

}  // namespace

extern "C" {

int probe_launch(int function, dim3 grid, dim3 block, size_t shared, int* out, int count) {
  kFunctions[function]<<<grid, block, shared>>>(out, count);
  return cudaPeekAtLastError();
}

int probe_launch_with(int function, int threads, int* out, int count, int attributes) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  cudaLaunchConfig_t config = {};
  config.gridDim = 1;
  config.blockDim = threads;
  config.attrs = &attribute;
  config.numAttrs = attributes;
  return cudaLaunchKernelEx(&config, kFunctions[function], out, count);
}

// A host function that no kernel was registered for.
int probe_launch_nothing() {
  return cudaLaunchKernel(reinterpret_cast<const void*>(&probe_launch_with), 1, 1, nullptr, 0, nullptr);
}

int probe_last_error() { return cudaGetLastError(); }
int probe_peek() { return cudaPeekAtLastError(); }
const char* probe_error_name(int error) { return cudaGetErrorName(static_cast<cudaError_t>(error)); }
const char* probe_error_words(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

int probe_set_attribute(int function, int attribute, int value) {
  return cudaFuncSetAttribute(address(function), static_cast<cudaFuncAttribute>(attribute), value);
}

int probe_attributes(int function, int* values) {
  cudaFuncAttributes from;
  const cudaError_t error = cudaFuncGetAttributes(&from, address(function));
  if (error != cudaSuccess) return error;
  const int all[] = {static_cast<int>(from.sharedSizeBytes),
                     static_cast<int>(from.localSizeBytes),
                     from.maxThreadsPerBlock,
                     from.numRegs,
                     from.ptxVersion,
                     from.binaryVersion,
                     from.maxDynamicSharedSizeBytes,
                     from.preferredShmemCarveout};
  for (const int value : all) *values++ = value;
  return error;
}

int probe_occupancy(int function, int threads, size_t shared, int with_flags, int* blocks) {
  if (with_flags)
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, address(function), threads, shared,
                                                                  cudaOccupancyDisableCachingOverride);
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, address(function), threads, shared);
}

int probe_best_block(int function, size_t shared, int* grid, int* block) {
  return cudaOccupancyMaxPotentialBlockSize(grid, block, kFunctions[function], shared);
}

// NVIDIA's own reckoning, from the properties that the runtime gives; -1 for what it refuses.
int probe_true_occupancy(int registers, int static_bytes, int most_dynamic, int barriers, int carveout, int threads,
                         size_t shared) {
  cudaDeviceProp device;
  if (cudaGetDeviceProperties(&device, 0) != cudaSuccess) return -1;
  const cudaOccDeviceProp properties(device);
  cudaOccFuncAttributes function;
  function.maxThreadsPerBlock = device.maxThreadsPerBlock;
  function.numRegs = registers;
  function.sharedSizeBytes = static_bytes;
  function.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  function.maxDynamicSharedSizeBytes = most_dynamic;
  function.numBlockBarriers = barriers;
  cudaOccDeviceState state;
  state.carveoutConfig = carveout;
  cudaOccResult result;
  const cudaOccError error =
      cudaOccMaxActiveBlocksPerMultiprocessor(&result, &properties, &function, &state, threads, shared);
  return error == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : -1;
}

int probe_device_attribute(int attribute, int device, int* value) {
  return cudaDeviceGetAttribute(value, static_cast<cudaDeviceAttr>(attribute), device);
}

int probe_properties(int device, cudaDeviceProp* properties) { return cudaGetDeviceProperties(properties, device); }
const char* probe_name(const cudaDeviceProp* properties) { return properties->name; }
size_t probe_size_of_properties() { return sizeof(cudaDeviceProp); }

// Every attribute that the properties have a field for has that field's value; gives the first that has not.
int probe_attribute_unlike(const cudaDeviceProp* from) {
  const struct {
    cudaDeviceAttr attribute;
    size_t value;
  } all[] = {
      {cudaDevAttrMaxThreadsPerBlock, static_cast<size_t>(from->maxThreadsPerBlock)},
      {cudaDevAttrMaxBlockDimX, static_cast<size_t>(from->maxThreadsDim[0])},
      {cudaDevAttrMaxBlockDimY, static_cast<size_t>(from->maxThreadsDim[1])},
      {cudaDevAttrMaxBlockDimZ, static_cast<size_t>(from->maxThreadsDim[2])},
      {cudaDevAttrMaxGridDimX, static_cast<size_t>(from->maxGridSize[0])},
      {cudaDevAttrMaxGridDimY, static_cast<size_t>(from->maxGridSize[1])},
      {cudaDevAttrMaxGridDimZ, static_cast<size_t>(from->maxGridSize[2])},
      {cudaDevAttrMaxSharedMemoryPerBlock, from->sharedMemPerBlock},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, from->sharedMemPerBlockOptin},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, from->sharedMemPerMultiprocessor},
      {cudaDevAttrReservedSharedMemoryPerBlock, from->reservedSharedMemPerBlock},
      {cudaDevAttrMaxRegistersPerBlock, static_cast<size_t>(from->regsPerBlock)},
      {cudaDevAttrMaxRegistersPerMultiprocessor, static_cast<size_t>(from->regsPerMultiprocessor)},
      {cudaDevAttrMaxThreadsPerMultiProcessor, static_cast<size_t>(from->maxThreadsPerMultiProcessor)},
      {cudaDevAttrMaxBlocksPerMultiprocessor, static_cast<size_t>(from->maxBlocksPerMultiProcessor)},
      {cudaDevAttrMultiProcessorCount, static_cast<size_t>(from->multiProcessorCount)},
      {cudaDevAttrComputeCapabilityMajor, static_cast<size_t>(from->major)},
      {cudaDevAttrComputeCapabilityMinor, static_cast<size_t>(from->minor)},
      {cudaDevAttrWarpSize, static_cast<size_t>(from->warpSize)},
  };
  for (const auto& each : all) {
    int value = -1;
    if (cudaDeviceGetAttribute(&value, each.attribute, 0) != cudaSuccess || value != static_cast<int>(each.value))
      return each.attribute;
  }
  return 0;
}

int probe_devices(int* count, int* current) {
  const cudaError_t error = cudaGetDeviceCount(count);
  return error == cudaSuccess ? cudaGetDevice(current) : error;
}
int probe_set_device(int device) { return cudaSetDevice(device); }

int probe_versions(int* driver, int* runtime, int* header) {
  *header = CUDART_VERSION;
  const cudaError_t error = cudaDriverGetVersion(driver);
  return error == cudaSuccess ? cudaRuntimeGetVersion(runtime) : error;
}

int probe_is_capturing(int* capturing, unsigned long long* id) {
  cudaStreamCaptureStatus status[2];
  cudaError_t error = cudaStreamIsCapturing(nullptr, &status[0]);
  if (error == cudaSuccess) error = cudaStreamGetCaptureInfo(nullptr, &status[1], id);
  *capturing = status[0] == cudaStreamCaptureStatusActive && status[1] == cudaStreamCaptureStatusActive;
  return error;
}

// What no op may do. Each error is as good as lost here, as a careless launcher would lose it.
void probe_forbidden() {
  void* memory = nullptr;
  static_cast<void>(cudaMalloc(&memory, 16));
  static_cast<void>(cudaMemset(memory, 0, 16));
  static_cast<void>(cudaMemcpy(memory, memory, 16, cudaMemcpyDeviceToHost));
  static_cast<void>(cudaFree(memory));
  static_cast<void>(cudaStreamSynchronize(nullptr));
  static_cast<void>(cudaStreamQuery(nullptr));
  static_cast<void>(cudaEventSynchronize(nullptr));
  static_cast<void>(cudaEventQuery(nullptr));
  static_cast<void>(cudaDeviceSynchronize());
}

int probe_copy_later(int* to, const int* from) {
  return cudaMemcpyAsync(to, from, sizeof(int), cudaMemcpyDeviceToDevice, nullptr);
}

}  // extern "C"
