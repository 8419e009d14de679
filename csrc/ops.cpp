// ops.cpp: the schema of every op, in the order in which data meets them, and what this library was built from.
// The implementations register themselves at the ends of their own files.
#include <Python.h>
#include <torch/csrc/stable/library.h>

#include <exception>
#include <string>
#include <vector>

#include "bindings/matmul_argument.h"
#include "cpu/capability.h"
#include "cuda/plan.h"

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
      "Tensor? a_sum=None, Tensor? b_sum=None, Tensor? b_packed=None) -> Tensor",
      tags);

  m.def(
      "int8_matmul_dequantize(Tensor a, Tensor b, Tensor a_scale, Tensor b_scale, *, "
      "Tensor? a_zero_point=None, Tensor? b_zero_point=None, Tensor? a_sum=None, Tensor? b_sum=None, "
      "Tensor? bias=None, bool relu=False, ScalarType dtype=float, Tensor? b_packed=None) -> Tensor",
      tags);

  m.def(
      "int8_matmul_requantize(Tensor a, Tensor b, Tensor a_scale, Tensor b_scale, Tensor out_scale, *, "
      "Tensor? a_zero_point=None, Tensor? b_zero_point=None, Tensor? out_zero_point=None, "
      "Tensor? a_sum=None, Tensor? b_sum=None, Tensor? bias=None, bool relu=False, ScalarType dtype=int8, "
      "int? q_min=None, int? q_max=None, str mode=\"float\", Tensor? b_packed=None) -> Tensor",
      tags);

  m.def(
      "rescale(Tensor acc, Tensor a_scale, Tensor b_scale, *, Tensor? bias=None, bool relu=False, "
      "ScalarType dtype=float) -> Tensor",
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
      "Tensor? weight_sum=None, bool symmetric=True, bool relu=False, ScalarType? dtype=None, "
      "Tensor? weight_packed=None) -> Tensor",
      tags);

  m.def(
      "int8_conv2d(Tensor x, Tensor weight, Tensor x_scale, Tensor weight_scale, Tensor? out_scale=None, *, "
      "Tensor? x_zero_point=None, Tensor? out_zero_point=None, Tensor? bias=None, SymInt[2] stride=1, "
      "SymInt[2] padding=0, SymInt[2] dilation=1, SymInt groups=1, bool relu=False, ScalarType dtype=float, "
      "int? q_min=None, int? q_max=None, Tensor? weight_packed=None) -> Tensor",
      tags);

  m.def("int8_prepack(Tensor b) -> Tensor", tags);
}

namespace {

PyObject* cpu_capability(PyObject*, PyObject*) {
  return PyUnicode_FromString(quaver::name_of(quaver::cpu_capability()));
}

PyObject* cpu_capabilities(PyObject*, PyObject*) {
  PyObject* names = PyList_New(0);
  for (const char* each : quaver::kCapabilityNames) {
    PyObject* name = PyUnicode_FromString(each);
    PyList_Append(names, name);
    Py_DECREF(name);
  }
  return names;
}

// A matmul (matmul_argument.h) -> (kernel, parts of K, cycles in all, those to issue its instructions, blocks
// that a multiprocessor holds at once).
PyObject* plan_matmul(PyObject*, PyObject* arguments) {
  quaver::MatmulArgument matmul{};
  if (!PyArg_ParseTuple(arguments, "O&", quaver::matmul_argument, &matmul)) return nullptr;
  const auto& [device, shape] = matmul;
  const quaver::MatmulPlan plan = quaver::plan_matmul(device, shape);
  const quaver::MatmulTile& tile = quaver::tile_of(plan.kernel);
  return Py_BuildValue("(iiddi)", static_cast<int>(plan.kernel), plan.splits, plan.cycles,
                       quaver::issue_cycles(device, shape, tile, plan.splits), quaver::blocks_at_once(device, tile));
}

// A matmul -> everything that can serve, each (kernel, parts of K, cycles in all, blocks that a multiprocessor holds at
// once).
PyObject* matmul_plans(PyObject*, PyObject* arguments) {
  quaver::MatmulArgument matmul{};
  if (!PyArg_ParseTuple(arguments, "O&", quaver::matmul_argument, &matmul)) return nullptr;
  const auto& [device, shape] = matmul;
  PyObject* plans = PyList_New(0);
  quaver::for_each_plan(device, shape, [&](const quaver::MatmulPlan& plan) {
    PyObject* facts = Py_BuildValue("(iidi)", static_cast<int>(plan.kernel), plan.splits, plan.cycles,
                                    quaver::blocks_at_once(device, quaver::tile_of(plan.kernel)));
    PyList_Append(plans, facts);
    Py_DECREF(facts);
  });
  return plans;
}

// A matmul -> the blocks of int8_linear's only launch, or 0 where it takes several.
PyObject* plan_linear(PyObject*, PyObject* arguments) {
  quaver::MatmulArgument matmul{};
  if (!PyArg_ParseTuple(arguments, "O&", quaver::matmul_argument, &matmul)) return nullptr;
  return PyLong_FromLong(quaver::plan_linear(matmul.device, matmul.shape));
}

// The kernels of matmuls: (rows and columns of a tile, stages, warps).
PyObject* matmul_tiles(PyObject*, PyObject*) {
  PyObject* tiles = PyList_New(0);
  for (const quaver::MatmulTile& tile : quaver::kMatmulTiles) {
    PyObject* facts = Py_BuildValue("(iiii)", tile.m, tile.n, tile.stages, tile.warps);
    PyList_Append(tiles, facts);
    Py_DECREF(facts);
  }
  return tiles;
}

PyMethodDef methods[] = {
    {"cpu_capability", cpu_capability, METH_NOARGS, "The instruction set that the CPU kernels run with."},
    {"cpu_capabilities", cpu_capabilities, METH_NOARGS, "All that there are kernels for, from the least to the most."},
    {"plan_matmul", plan_matmul, METH_VARARGS, "Which kernel computes a matmul on a CUDA device, in how many parts."},
    {"matmul_plans", matmul_plans, METH_VARARGS,
     "What else could compute it, and what the plan's model makes of that."},
    {"plan_linear", plan_linear, METH_VARARGS, "How many blocks int8_linear's one launch has; 0 where it takes more."},
    {"matmul_tiles", matmul_tiles, METH_NOARGS, "The tiles of those kernels, in the order of their numbers."},
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
  try {
    quaver::cpu_capability();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
    return nullptr;
  }
  PyObject* self = PyModule_Create(&module);
  if (self == nullptr) return nullptr;
  PyModule_AddStringConstant(self, "built_with_torch", QUAVER_TORCH_VERSION);
  PyModule_AddStringConstant(self, "built_with_nvcc", QUAVER_NVCC_VERSION);
  PyModule_AddStringConstant(self, "cuda_architectures", QUAVER_CUDA_ARCHITECTURES);
  return self;
}
