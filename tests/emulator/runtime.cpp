// runtime.cpp: a stand-in for the CUDA runtime. It takes the launches of shipped launchers, finds the kernel's PTX in
// the embedded fat binary and hands both to whoever emulates. It replaces the runtime, not our code.
#include <cstdint>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

constexpr int kSuccess = 0;
constexpr int kInvalidValue = 1;
constexpr int kInvalidDeviceFunction = 98;

struct Dim3 {
  unsigned x, y, z;
};

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
};
struct Kernel {
  const Binary* binary;
  std::string name;
};
struct Configuration {
  Dim3 grid, block;
  size_t shared;
  void* stream;
};

// Kernels of a device, and what a launch does: a code of cudaError_t.
using OnLaunch = int (*)(const char* ptx, uint64_t size, const char* kernel, const uint32_t* grid,
                         const uint32_t* block, uint32_t shared, void** arguments);

struct Runtime {
  std::unordered_map<const void*, Kernel> kernels;  // by the host function that stands for them
  std::vector<Configuration> configurations;
  OnLaunch on_launch = nullptr;
  uint32_t architecture = 80;
  int last_error = kSuccess;
};

Runtime& runtime() {
  static Runtime state;
  return state;
}

// The newest PTX that the device can run, as the driver chooses.
const Ptx* choose(const Binary& binary) {
  const Ptx* best = nullptr;
  for (const Ptx& version : binary.versions)
    if (version.architecture <= runtime().architecture &&
        (best == nullptr || version.architecture > best->architecture))
      best = &version;
  return best;
}

}  // namespace

#pragma GCC visibility push(default)

extern "C" {

void emulator_set_on_launch(OnLaunch on_launch) { runtime().on_launch = on_launch; }
void emulator_set_architecture(uint32_t architecture) { runtime().architecture = architecture; }

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

unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, size_t shared, void* stream) {
  runtime().configurations.push_back({grid, block, shared, stream});
  return 0;
}

int __cudaPopCallConfiguration(Dim3* grid, Dim3* block, size_t* shared, void* stream) {
  if (runtime().configurations.empty()) return kInvalidValue;
  const Configuration last = runtime().configurations.back();
  runtime().configurations.pop_back();
  *grid = last.grid;
  *block = last.block;
  *shared = last.shared;
  *static_cast<void**>(stream) = last.stream;
  return kSuccess;
}

int __cudaGetKernel(const void** kernel, const void* host) {
  *kernel = host;
  return runtime().kernels.count(host) ? kSuccess : kInvalidDeviceFunction;
}

int __cudaLaunchKernel(const void* host, Dim3 grid, Dim3 block, void** arguments, size_t shared, void*) {
  Runtime& state = runtime();
  const auto found = state.kernels.find(host);
  if (found == state.kernels.end() || state.on_launch == nullptr) return state.last_error = kInvalidDeviceFunction;
  const Ptx* ptx = choose(*found->second.binary);
  if (ptx == nullptr) return state.last_error = kInvalidDeviceFunction;
  const uint32_t grids[] = {grid.x, grid.y, grid.z};
  const uint32_t blocks[] = {block.x, block.y, block.z};
  state.last_error = state.on_launch(ptx->text.data(), ptx->text.size(), found->second.name.c_str(), grids, blocks,
                                     static_cast<uint32_t>(shared), arguments);
  return state.last_error;
}

int cudaGetLastError() {
  const int error = runtime().last_error;
  runtime().last_error = kSuccess;
  return error;
}

const char* cudaGetErrorName(int error) {
  return error == kSuccess        ? "cudaSuccess"
         : error == kInvalidValue ? "cudaErrorInvalidValue"
                                  : "cudaErrorInvalidDeviceFunction";
}
const char* cudaGetErrorString(int error) { return error == kSuccess ? "no error" : "the emulator refused the launch"; }

}  // extern "C"
