// runtime.cpp: the stand-in for the CUDA runtime: kernels register, launches arrive. It finds the kernel's PTX in the
// embedded fat binary and hands both to whoever emulates.
#include "runtime.h"

#include <unordered_map>
#include <vector>

#include "fat_binary.h"

namespace stand_in {
namespace {

struct Registered {
  FatBinary* binary;
  std::string name;
};
struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};

struct Runtime {
  std::unordered_map<const void*, Registered> kernels;  // by the host function that stands for them
  std::vector<Configuration> configurations;
  Handlers handlers = {};
  Device device = {};
  cudaError_t last_error = cudaSuccess;
  std::string calls, refusals;  // line by line
};

Runtime& runtime() {
  static Runtime state;
  return state;
}

const char* take(std::string& lines) {
  static std::string taken;
  taken = std::move(lines);
  lines.clear();
  return taken.c_str();
}

cudaError_t launch(const char* name, const void* host, dim3 grid, dim3 block, void** arguments, size_t shared,
                   cudaStream_t stream) {
  note_call(name);
  Kernel kernel;
  const cudaError_t error = find(host, &kernel);
  if (error != cudaSuccess) return give(error);
  const uint32_t grids[] = {grid.x, grid.y, grid.z};
  const uint32_t blocks[] = {block.x, block.y, block.z};
  return give(handlers().launch(&kernel, grids, blocks, shared, reinterpret_cast<uint64_t>(stream), arguments));
}

}  // namespace

const Device& device() { return runtime().device; }
const Handlers& handlers() { return runtime().handlers; }

cudaError_t find(const void* host, Kernel* kernel) {
  const auto found = runtime().kernels.find(host);
  if (found == runtime().kernels.end()) return cudaErrorInvalidDeviceFunction;
  const auto& [binary, name] = found->second;
  const FatBinary::Ptx* ptx = binary->newest_for(10 * device().major + device().minor);
  if (ptx == nullptr) return cudaErrorNoKernelImageForDevice;
  if (ptx->text.empty()) return refuse(name.c_str(), cudaErrorNoKernelImageForDevice, ptx->problem);
  *kernel = {host, name.c_str(), ptx->text.data(), ptx->text.size()};
  return cudaSuccess;
}

void note_call(const char* name) { runtime().calls.append(name).append("\n"); }

cudaError_t give(int error) {
  if (error != cudaSuccess) runtime().last_error = static_cast<cudaError_t>(error);
  return static_cast<cudaError_t>(error);
}

cudaError_t refuse(const char* name, cudaError_t error, const std::string& why) {
  runtime().refusals.append(name).append(": ").append(why).append("\n");
  return give(error);
}

}  // namespace stand_in

using namespace stand_in;

#pragma GCC visibility push(default)

extern "C" {

// What the harness calls.
void emulator_set_handlers(const Handlers* handlers) { runtime().handlers = *handlers; }
void emulator_set_device(const Device* device) { runtime().device = *device; }
const char* emulator_take_calls() { return take(runtime().calls); }
const char* emulator_take_refusals() { return take(runtime().refusals); }

// What nvcc's own code calls.
void** __cudaRegisterFatBinary(void* wrapper) { return reinterpret_cast<void**>(new FatBinary(wrapper)); }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}

void __cudaRegisterFunction(void** binary, const char* host, char*, const char* name, int, void*, void*, void*, void*,
                            int*) {
  runtime().kernels[host] = {reinterpret_cast<FatBinary*>(binary), name};
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  runtime().configurations.push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (runtime().configurations.empty()) return give(cudaErrorInvalidValue);
  const Configuration last = runtime().configurations.back();
  runtime().configurations.pop_back();
  *grid = last.grid;
  *block = last.block;
  *shared = last.shared;
  *static_cast<cudaStream_t*>(stream) = last.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(host));
  return runtime().kernels.count(host) ? cudaSuccess : give(cudaErrorInvalidDeviceFunction);
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t stream) {
  return launch("cudaLaunchKernel", kernel, grid, block, arguments, shared, stream);
}

// What launchers call.
cudaError_t cudaLaunchKernel(const void* host, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t stream) {
  return launch("cudaLaunchKernel", host, grid, block, arguments, shared, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* host, void** arguments) {
  if (config->numAttrs == 0)
    return launch("cudaLaunchKernelExC", host, config->gridDim, config->blockDim, arguments, config->dynamicSmemBytes,
                  config->stream);
  note_call("cudaLaunchKernelExC");
  return refuse("cudaLaunchKernelExC", cudaErrorNotSupported,
                "launch attribute " + std::to_string(config->attrs[0].id) + " is not emulated");
}

cudaError_t cudaGetLastError() {
  note_call("cudaGetLastError");
  const cudaError_t error = runtime().last_error;
  runtime().last_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() {
  note_call("cudaPeekAtLastError");
  return runtime().last_error;
}

}  // extern "C"
