// runtime_device.cpp: of the stand-in for the CUDA runtime: what it says of the pretended device, of itself and of
// errors.
#include <algorithm>
#include <cstring>
#include <optional>

#include "runtime.h"

using namespace stand_in;

namespace {

constexpr int kWarp = 32;

std::optional<int> attribute_of(const Device& device, cudaDeviceAttr attribute) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return device.threads_per_block;
    case cudaDevAttrMaxBlockDimX:
      return device.block_limits[0];
    case cudaDevAttrMaxBlockDimY:
      return device.block_limits[1];
    case cudaDevAttrMaxBlockDimZ:
      return device.block_limits[2];
    case cudaDevAttrMaxGridDimX:
      return device.grid_limits[0];
    case cudaDevAttrMaxGridDimY:
      return device.grid_limits[1];
    case cudaDevAttrMaxGridDimZ:
      return device.grid_limits[2];
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return device.shared_per_block;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return device.shared_per_block_with_opting_in;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return device.shared_per_multiprocessor;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      return device.reserved_shared_per_block;
    case cudaDevAttrMaxRegistersPerBlock:
      return device.registers_per_block;
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      return device.registers_per_multiprocessor;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return device.threads_per_multiprocessor;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return device.blocks_per_multiprocessor;
    case cudaDevAttrMultiProcessorCount:
      return device.multiprocessors;
    case cudaDevAttrComputeCapabilityMajor:
      return device.major;
    case cudaDevAttrComputeCapabilityMinor:
      return device.minor;
    case cudaDevAttrWarpSize:
      return kWarp;
    default:
      return std::nullopt;
  }
}

struct Error {
  cudaError_t code;
  const char *name, *words;
};

// Those that the stand-in gives.
constexpr Error kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorInvalidPtx, "cudaErrorInvalidPtx", "a PTX JIT compilation failed"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};
constexpr Error kUnrecognized = {cudaErrorUnknown, "unrecognized error code", "unrecognized error code"};

const Error& describe(cudaError_t error) {
  const auto* end = std::end(kErrors);
  const auto* found = std::find_if(kErrors, end, [error](const Error& known) { return known.code == error; });
  return found == end ? kUnrecognized : *found;
}

}  // namespace

#pragma GCC visibility push(default)

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  note_call("cudaGetDeviceCount");
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* index) {
  note_call("cudaGetDevice");
  *index = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) {
  note_call("cudaSetDevice");
  return give(index == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int index) {
  note_call("cudaDeviceGetAttribute");
  if (index != 0) return give(cudaErrorInvalidDevice);
  const std::optional<int> known = attribute_of(device(), attribute);
  if (!known)
    return refuse("cudaDeviceGetAttribute", cudaErrorNotSupported,
                  "attribute " + std::to_string(attribute) + " is not known of the pretended device");
  *value = *known;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index) {
  note_call("cudaGetDeviceProperties");
  if (index != 0) return give(cudaErrorInvalidDevice);
  const Device& from = device();
  *properties = {};
  std::strncpy(properties->name, from.name, sizeof(properties->name) - 1);
  properties->major = from.major;
  properties->minor = from.minor;
  properties->warpSize = kWarp;
  properties->multiProcessorCount = from.multiprocessors;
  properties->maxThreadsPerBlock = from.threads_per_block;
  std::copy_n(from.block_limits, 3, properties->maxThreadsDim);
  std::copy_n(from.grid_limits, 3, properties->maxGridSize);
  properties->maxThreadsPerMultiProcessor = from.threads_per_multiprocessor;
  properties->maxBlocksPerMultiProcessor = from.blocks_per_multiprocessor;
  properties->regsPerBlock = from.registers_per_block;
  properties->regsPerMultiprocessor = from.registers_per_multiprocessor;
  properties->sharedMemPerBlock = static_cast<size_t>(from.shared_per_block);
  properties->sharedMemPerBlockOptin = static_cast<size_t>(from.shared_per_block_with_opting_in);
  properties->sharedMemPerMultiprocessor = static_cast<size_t>(from.shared_per_multiprocessor);
  properties->reservedSharedMemPerBlock = static_cast<size_t>(from.reserved_shared_per_block);
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  note_call("cudaDriverGetVersion");
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  note_call("cudaRuntimeGetVersion");
  *version = CUDART_VERSION;
  return cudaSuccess;
}

const char* cudaGetErrorName(cudaError_t error) { return describe(error).name; }
const char* cudaGetErrorString(cudaError_t error) { return describe(error).words; }

}  // extern "C"
