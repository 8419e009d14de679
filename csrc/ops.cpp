// ops.cpp: the schema of every op, in the order in which data meets them, and what this library was built from.
// The implementations register themselves at the ends of their own files.
#include <Python.h>
#include <torch/csrc/stable/library.h>

#include <string>
#include <vector>

#include "cpu/capability.h"

STABLE_TORCH_LIBRARY(quaver, m) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};

  m.def(
      "choose_qparams(Tensor x, SymInt[] scale_shape, *, bool symmetric=True, ScalarType dtype=int8, "
      "int? q_min=None, int? q_max=None, float? eps=None) -> (Tensor scale, Tensor zero_point)",
      tags);

  m.def(
      "quantize(Tensor x, Tensor scale, Tensor? zero_point=None, *, int? q_min=None, int? q_max=None, "
      "ScalarType dtype=int8, str mode=\"onnx\", SymInt seed=0) -> Tensor",
      tags);

  m.def(
      "dynamic_quantize(Tensor x, SymInt[] scale_shape, *, bool symmetric=True, ScalarType dtype=int8, "
      "int? q_min=None, int? q_max=None, float? eps=None, bool return_row_sum=False) "
      "-> (Tensor q, Tensor scale, Tensor zero_point, Tensor row_sum)",
      tags);

  m.def(
      "rms_norm_quantize(Tensor x, Tensor weight, *, Tensor? residual=None, float eps=1e-06, bool symmetric=True, "
      "ScalarType dtype=int8, int? q_min=None, int? q_max=None, bool return_row_sum=False) "
      "-> (Tensor q, Tensor scale, Tensor zero_point, Tensor row_sum, Tensor residual_out)",
      tags);

  m.def(
      "silu_mul_quantize(Tensor gate, Tensor up, *, bool symmetric=True, ScalarType dtype=int8, "
      "int? q_min=None, int? q_max=None, bool return_row_sum=False) "
      "-> (Tensor q, Tensor scale, Tensor zero_point, Tensor row_sum)",
      tags);

  m.def(
      "int8_matmul(Tensor a, Tensor b, *, Tensor? a_zero_point=None, Tensor? b_zero_point=None, "
      "Tensor? a_sum=None, Tensor? b_sum=None) -> Tensor",
      tags);

  m.def(
      "int8_matmul_dequantize(Tensor a, Tensor b, Tensor a_scale, Tensor b_scale, *, "
      "Tensor? a_zero_point=None, Tensor? b_zero_point=None, Tensor? a_sum=None, Tensor? b_sum=None, "
      "Tensor? bias=None, bool relu=False, ScalarType dtype=float) -> Tensor",
      tags);

  m.def(
      "int8_matmul_requantize(Tensor a, Tensor b, Tensor a_scale, Tensor b_scale, Tensor out_scale, *, "
      "Tensor? a_zero_point=None, Tensor? b_zero_point=None, Tensor? out_zero_point=None, "
      "Tensor? a_sum=None, Tensor? b_sum=None, Tensor? bias=None, bool relu=False, ScalarType dtype=int8, "
      "int? q_min=None, int? q_max=None, str mode=\"float\") -> Tensor",
      tags);

  m.def(
      "requantize(Tensor acc, Tensor a_scale, Tensor b_scale, Tensor out_scale, *, Tensor? out_zero_point=None, "
      "Tensor? bias=None, bool relu=False, ScalarType dtype=int8, int? q_min=None, int? q_max=None, "
      "str mode=\"float\") -> Tensor",
      tags);

  m.def("dequantize(Tensor q, Tensor scale, Tensor? zero_point=None, *, ScalarType dtype=float) -> Tensor", tags);

  m.def(
      "fake_quantize(Tensor x, Tensor scale, Tensor? zero_point=None, *, int? q_min=None, int? q_max=None, "
      "ScalarType dtype=int8, str mode=\"onnx\", SymInt seed=0) -> Tensor",
      tags);

  m.def(
      "fake_quantize_mask(Tensor x, Tensor scale, Tensor? zero_point=None, *, int? q_min=None, int? q_max=None, "
      "ScalarType dtype=int8, str mode=\"onnx\", SymInt seed=0) -> Tensor",
      tags);

  m.def(
      "int8_linear(Tensor x, Tensor weight_q, Tensor weight_scale, Tensor? bias=None, *, "
      "Tensor? weight_sum=None, bool symmetric=True, ScalarType? dtype=None) -> Tensor",
      tags);
}

namespace {

PyObject* cpu_capability(PyObject*, PyObject*) {
  return PyUnicode_FromString(quaver::name_of(quaver::cpu_capability()));
}

PyMethodDef methods[] = {
    {"cpu_capability", cpu_capability, METH_NOARGS, "The instruction set that the CPU kernels run with."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", "quaver's schemas and CPU kernels.", -1, methods};

}  // namespace

// What the CUDA library beside this one was built with, so that a mismatch is known before it is loaded.
#if !defined(QUAVER_NVCC_VERSION)
#define QUAVER_NVCC_VERSION ""
#define QUAVER_CUDA_ARCHITECTURES ""
#endif

PyMODINIT_FUNC PyInit__C(void) {
  PyObject* self = PyModule_Create(&module);
  if (self == nullptr) return nullptr;
  PyModule_AddStringConstant(self, "built_with_torch", QUAVER_TORCH_VERSION);
  PyModule_AddStringConstant(self, "built_with_nvcc", QUAVER_NVCC_VERSION);
  PyModule_AddStringConstant(self, "cuda_architectures", QUAVER_CUDA_ARCHITECTURES);
  return self;
}
