// runtime.cpp: the stand-in for the CUDA runtime: kernels register, launches arrive. It finds the kernel's PTX in the
// embedded fat binary and hands both to whoever emulates.
#include "runtime.h"

#include <cstring>
#include <unordered_map>
#include <vector>

namespace stand_in {
namespace {

// The fat binary's layout, as nvcc writes it.
struct FatWrapper {
  uint32_t magic, version;
  const uint8_t* data;
  const void* unused;
};
struct FatHeader {
  uint32_t magic;
  uint16_t version, header_size;
  uint64_t size;
};
struct FatEntry {
  uint16_t kind, version;
  uint32_t header_size;
  uint64_t size;  // of the payload, padded
  uint32_t compressed_size, options_offset;
  uint16_t minor, major;
  uint32_t architecture, name_offset, name_size;
  uint64_t flags, unused, uncompressed_size;
};
constexpr uint32_t kFatMagic = 0xBA55ED50;
constexpr uint16_t kPtx = 1;
constexpr uint64_t kCompressed = 0x2000 | 0x8000;

struct Ptx {
  uint32_t architecture;
  std::string text;
};
struct Binary {
  std::vector<Ptx> versions;
  bool has_compressed = false;
};
struct Registered {
  const Binary* binary;
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

// The newest PTX that the device can run, as the driver chooses.
const Ptx* choose(const Binary& binary) {
  const uint32_t most = static_cast<uint32_t>(10 * device().major + device().minor);
  const Ptx* best = nullptr;
  for (const Ptx& version : binary.versions)
    if (version.architecture <= most && (best == nullptr || version.architecture > best->architecture)) best = &version;
  return best;
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
  const Ptx* ptx = choose(*found->second.binary);
  if (ptx == nullptr) {
    if (found->second.binary->has_compressed)
      refuse(found->second.name.c_str(), cudaErrorNoKernelImageForDevice,
             "its PTX is compressed: build with nvcc --no-compress");
    return cudaErrorNoKernelImageForDevice;
  }
  *kernel = {host, found->second.name.c_str(), ptx->text.data(), ptx->text.size()};
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
void** __cudaRegisterFatBinary(void* wrapper) {
  auto* binary = new Binary;
  const auto* fat = static_cast<const FatWrapper*>(wrapper);
  const auto* header = reinterpret_cast<const FatHeader*>(fat->data);
  if (header->magic == kFatMagic) {
    const uint8_t* at = fat->data + header->header_size;
    const uint8_t* end = at + header->size;
    while (at < end) {
      const auto* entry = reinterpret_cast<const FatEntry*>(at);
      const char* payload = reinterpret_cast<const char*>(at) + entry->header_size;
      if (entry->kind == kPtx && (entry->flags & kCompressed)) binary->has_compressed = true;
      if (entry->kind == kPtx && !(entry->flags & kCompressed))
        binary->versions.push_back({entry->architecture, std::string(payload, strnlen(payload, entry->size))});
      at += entry->header_size + entry->size;
    }
  }
  return reinterpret_cast<void**>(binary);
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}

void __cudaRegisterFunction(void** binary, const char* host, char*, const char* name, int, void*, void*, void*, void*,
                            int*) {
  runtime().kernels[host] = {reinterpret_cast<const Binary*>(binary), name};
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
