// seams.cpp: puts the shipped CUDA registration (csrc/cuda/register.cpp) on CPU tensors, by replacing the few functions
// of torch's stable C interface that tie it to a GPU. The linker's --wrap redirects them here; the code itself is
// unchanged.
//
// The ops come up as torch.ops.quaver_emulated.* for CPU tensors. Every tensor whose data pointer the registration
// takes becomes a device allocation that kernels may touch; what it asks to write starts as unwritten.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "cuda/launch.h"
#include "machine.h"

namespace {

std::vector<int32_t> guards;  // the devices of those that are open
int unwritten = 0;            // results that ops left with bytes that nothing wrote
int misplaced = 0;            // streams that were asked for while another device was current

// Where tensors are pretended to be, and the number of the stream that is current there.
int32_t place = 0;
int32_t stream_number = 0;

// What matmuls do in their plans' place; a kernel below 0 leaves them alone.
int32_t matmul_kernel = -1;
int32_t matmul_splits = 1;

// What stands for a stream: its device and its number, one more each, so that no stream is the null stream.
uint64_t handle_of(int32_t device, int32_t number) {
  return static_cast<uint64_t>(device + 1) << 32 | static_cast<uint64_t>(number + 1);
}

// The bytes from a tensor's first element to its last. Where elements have gaps between them, the gaps hold data.
void note(AtenTensorHandle tensor, const void* data, bool holds_data) {
  int64_t dims = 0;
  int64_t* sizes = nullptr;
  int64_t* strides = nullptr;
  int32_t dtype = 0;
  aoti_torch_get_dim(tensor, &dims);
  aoti_torch_get_sizes(tensor, &sizes);
  aoti_torch_get_strides(tensor, &strides);
  aoti_torch_get_dtype(tensor, &dtype);
  int64_t last = 0;
  int64_t elements = 1;
  for (int64_t dim = 0; dim < dims; ++dim) {
    if (sizes[dim] == 0) return;
    last += (sizes[dim] - 1) * strides[dim];
    elements *= sizes[dim];
  }
  const uint64_t begin = reinterpret_cast<uint64_t>(data);
  const uint64_t size = static_cast<uint64_t>(last + 1) * aoti_torch_dtype_element_size(dtype);
  const emulator::Allocation* known = emulator::global_memory().find(begin);
  if (known == nullptr || known->begin > begin || known->end < begin + size)
    emulator::global_memory().add(begin, size, holds_data || last >= elements);
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) int emulator_take_unwritten() {
  const int count = unwritten;
  unwritten = 0;
  return count;
}

__attribute__((visibility("default"))) int emulator_take_misplaced() {
  const int count = misplaced;
  misplaced = 0;
  return count;
}

__attribute__((visibility("default"))) void emulator_set_place(int32_t device, int32_t stream) {
  place = device;
  stream_number = stream;
}

__attribute__((visibility("default"))) void emulator_set_matmul_plan(int32_t kernel, int32_t splits) {
  matmul_kernel = kernel;
  matmul_splits = splits;
}

__attribute__((visibility("default"))) uint64_t emulator_stream(int32_t device, int32_t stream) {
  return handle_of(device, stream);
}

AOTITorchError __real_aoti_torch_library_init_impl(const char*, const char*, const char*, uint32_t,
                                                   TorchLibraryHandle*);
AOTITorchError __wrap_aoti_torch_library_init_impl(const char*, const char*, const char* file, uint32_t line,
                                                   TorchLibraryHandle* library) {
  return __real_aoti_torch_library_init_impl("quaver_emulated", "CPU", file, line, library);
}

AOTITorchError __wrap_aoti_torch_create_device_guard(int32_t device, DeviceGuardHandle* guard) {
  if (guards.empty()) emulator::global_memory().clear();  // of what was noted outside of an op
  guards.push_back(device);
  *guard = reinterpret_cast<DeviceGuardHandle>(&guards);
  return 0;
}
AOTITorchError __wrap_aoti_torch_delete_device_guard(DeviceGuardHandle) {
  guards.pop_back();
  if (!guards.empty()) return 0;
  unwritten += emulator::global_memory().unwritten();
  emulator::global_memory().clear();  // allocations are an op's own: soon others may lie at their addresses
  return 0;
}

AOTITorchError __wrap_aoti_torch_get_current_stream(int32_t device, StreamHandle* stream) {
  if (guards.empty() || guards.back() != device || device != place) ++misplaced;
  *stream = reinterpret_cast<StreamHandle>(handle_of(device, stream_number));
  return 0;
}
AOTITorchError __wrap_aoti_torch_delete_stream(StreamHandle) { return 0; }
AOTITorchError __wrap_torch_stream_native_handle(StreamHandle stream, void** native) {
  *native = stream;
  return 0;
}

AOTITorchError __real_aoti_torch_get_device_index(AtenTensorHandle, int32_t*);
AOTITorchError __wrap_aoti_torch_get_device_index(AtenTensorHandle tensor, int32_t* device) {
  const AOTITorchError error = __real_aoti_torch_get_device_index(tensor, device);
  if (error == 0 && place > 0) *device = place;
  return error;
}

AOTITorchError __real_torch_get_const_data_ptr(AtenTensorHandle, const void**);
AOTITorchError __wrap_torch_get_const_data_ptr(AtenTensorHandle tensor, const void** data) {
  const AOTITorchError error = __real_torch_get_const_data_ptr(tensor, data);
  if (error == 0) note(tensor, *data, true);
  return error;
}

AOTITorchError __real_torch_get_mutable_data_ptr(AtenTensorHandle, void**);
AOTITorchError __wrap_torch_get_mutable_data_ptr(AtenTensorHandle tensor, void** data) {
  const AOTITorchError error = __real_torch_get_mutable_data_ptr(tensor, data);
  if (error == 0) note(tensor, *data, false);
  return error;
}

// quaver::choose_matmul
cudaError_t __real__ZN6quaver13choose_matmulERKNS_13MatmulProblemERNS_10MatmulPlanE(const quaver::MatmulProblem&,
                                                                                    quaver::MatmulPlan&);
cudaError_t __wrap__ZN6quaver13choose_matmulERKNS_13MatmulProblemERNS_10MatmulPlanE(
    const quaver::MatmulProblem& problem, quaver::MatmulPlan& plan) {
  const cudaError_t error = __real__ZN6quaver13choose_matmulERKNS_13MatmulProblemERNS_10MatmulPlanE(problem, plan);
  if (matmul_kernel >= 0) {
    plan.kernel = static_cast<quaver::MatmulKernel>(matmul_kernel);
    plan.splits = quaver::splits_of(problem.k, matmul_splits);
  }
  return error;
}

}  // extern "C"
