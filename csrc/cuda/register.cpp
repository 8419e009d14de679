// register.cpp: the ops on CUDA: check, guard, allocate, launch. The only CUDA file that knows torch.
#include <Python.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "bindings/matmul_argument.h"
#include "cuda/launch.h"
#include "cuda/tuned.h"
#include "prepare.h"
#include "prepare_conv2d.h"
#include "prepare_linear.h"
#include "prepare_matmul.h"
#include "prepare_requantize.h"
#include "prepare_rows.h"

namespace quaver {
namespace {

using torch::headeronly::MemoryFormat;
using torch::stable::accelerator::DeviceGuard;

// Of the tensor that leads an op. It may be on the CPU while another one brought the call here; then any device will do
// until the checks refuse the mixture, as they do where there is no tensor at all.
int32_t device_index(const Tensor& tensor) { return tensor.defined() ? std::max(tensor.get_device_index(), 0) : 0; }

cudaStream_t stream_of(const Tensor& tensor) {
  const auto stream = torch::stable::accelerator::getCurrentStream(device_index(tensor));
  return static_cast<cudaStream_t>(stream.nativeHandle());
}

void check_launch(const char* op, cudaError_t error) {
  QUAVER_CHECK(error == cudaSuccess, op, "the CUDA launch failed: ", cudaGetErrorName(error), ": ",
               cudaGetErrorString(error));
}

// Memory for a launch, which later launches of the stream may use again: torch's allocator sees to that.
void* scratch_memory(const Tensor& like, int64_t bytes, Tensor& keeper) {
  if (bytes == 0) return nullptr;
  keeper = new_tensor(like, {bytes}, ScalarType::Byte);
  return keeper.mutable_data_ptr();
}

std::tuple<Tensor, Tensor> choose_qparams_cuda(const Tensor& x, Shape scale_shape, bool symmetric, ScalarType dtype,
                                               std::optional<int64_t> q_min, std::optional<int64_t> q_max,
                                               std::optional<double> eps) {
  const DeviceGuard guard(device_index(x));
  Tensor scale, zero_point, keeper;
  const QparamsArguments arguments =
      prepare_choose_qparams(x, scale_shape, symmetric, dtype, q_min, q_max, eps, nullptr, scale, zero_point);
  void* const scratch = scratch_memory(x, choose_qparams_scratch(arguments), keeper);
  check_launch("choose_qparams", launch_choose_qparams(arguments, scratch, stream_of(x)));
  return {scale, zero_point};
}

Tensor quantize_cuda(const Outs<1>* given, const Tensor& x, const Tensor& scale, OptionalTensor zero_point,
                     std::optional<int64_t> q_min, std::optional<int64_t> q_max, ScalarType dtype, std::string mode,
                     int64_t seed) {
  const DeviceGuard guard(device_index(x));
  Tensor q;
  const QuantizeArguments arguments = prepare_quantize(x, scale, zero_point, q_min, q_max, dtype, mode, seed, given, q);
  check_launch("quantize", launch_quantize(arguments, stream_of(x)));
  return q;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> dynamic_quantize_cuda(const Outs<4>* given, const Tensor& x,
                                                                 Shape scale_shape, bool symmetric, ScalarType dtype,
                                                                 std::optional<int64_t> q_min,
                                                                 std::optional<int64_t> q_max,
                                                                 std::optional<double> eps, bool return_row_sum) {
  const DeviceGuard guard(device_index(x));
  DynamicResults results;
  Tensor keeper;
  const DynamicQuantizeArguments arguments =
      prepare_dynamic_quantize(x, scale_shape, symmetric, dtype, q_min, q_max, eps, return_row_sum, given, results);
  void* const scratch = scratch_memory(x, dynamic_quantize_scratch(arguments), keeper);
  check_launch("dynamic_quantize", launch_dynamic_quantize(arguments, scratch, stream_of(x)));
  return {results.q, results.scale, results.zero_point, results.row_sum};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> rms_norm_quantize_cuda(
    const Outs<5>* given, const Tensor& x, const Tensor& weight, OptionalTensor residual, double eps, bool symmetric,
    ScalarType dtype, std::optional<int64_t> q_min, std::optional<int64_t> q_max, bool return_row_sum) {
  const DeviceGuard guard(device_index(x));
  RowResults results;
  Tensor residual_out, contiguous_weight;
  const RmsNormArguments arguments =
      prepare_rms_norm_quantize(x, weight, residual, eps, {symmetric, dtype, q_min, q_max, return_row_sum}, given,
                                results, residual_out, contiguous_weight);
  check_launch("rms_norm_quantize", launch_rms_norm_quantize(arguments, stream_of(x)));
  return {results.q, results.scale, results.zero_point, results.row_sum, residual_out};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> silu_mul_quantize_cuda(const Outs<4>* given, const Tensor& gate,
                                                                  const Tensor& up, bool symmetric, ScalarType dtype,
                                                                  std::optional<int64_t> q_min,
                                                                  std::optional<int64_t> q_max, bool return_row_sum) {
  const DeviceGuard guard(device_index(gate));
  RowResults results;
  const SiluMulArguments arguments =
      prepare_silu_mul_quantize(gate, up, {symmetric, dtype, q_min, q_max, return_row_sum}, given, results);
  check_launch("silu_mul_quantize", launch_silu_mul_quantize(arguments, stream_of(gate)));
  return {results.q, results.scale, results.zero_point, results.row_sum};
}

// The sums of q's codes along the dimensions that have size 1 in `shape`.
Tensor sum_codes(const char* op, const Tensor& q, const Shape& shape) {
  Tensor keeper;
  const Tensor sum = new_tensor(q, shape, ScalarType::Int);
  const SumArguments arguments = prepare_sum_codes(q, sum);
  void* const scratch = scratch_memory(q, sum_codes_scratch(arguments), keeper);
  check_launch(op, launch_sum_codes(arguments, scratch, stream_of(q)));
  return sum;
}

// Computes the sums that zero points need and nobody gave; `a_sum` and `b_sum` keep them alive.
void complete_sums(MatmulProblem& problem, const MatmulArguments& arguments, Tensor& a_sum, Tensor& b_sum) {
  const Shape batch = batch_of(problem);
  if (problem.b_zero_point.data != nullptr && problem.a_sum.data == nullptr) {
    a_sum = sum_codes(arguments.op, arguments.a, sum_shape(arguments.a, arguments.a.dim() - 1));
    problem.a_sum = sum_view(a_sum, 0, batch);
  }
  if (problem.a_zero_point.data != nullptr && problem.b_sum.data == nullptr) {
    b_sum = sum_codes(arguments.op, arguments.b, sum_shape(arguments.b, arguments.b.dim() - 2));
    problem.b_sum = sum_view(b_sum, 1, batch);
  }
}

Tensor run(const MatmulArguments& arguments, MatmulProblem problem, const Tensor& out) {
  if (out.numel() == 0) return out;
  Tensor a_sum, b_sum;
  complete_sums(problem, arguments, a_sum, b_sum);
  fold_batch_into_rows(problem);
  MatmulPlan plan;
  check_launch(arguments.op, choose_matmul(problem, plan));
  Tensor keeper;
  void* const scratch = scratch_memory(arguments.a, scratch_bytes(shape_of(problem), plan.splits), keeper);
  check_launch(arguments.op, launch_matmul(problem, plan, scratch, stream_of(arguments.a)));
  return out;
}

// What the CPU's kernels read in b's place.
void refuse_packed(const char* op, const char* name, const OptionalTensor& packed) {
  QUAVER_CHECK(!packed, op, name, " is for matmuls on the CPU: on CUDA it must be None");
}

Tensor int8_matmul_cuda(const Outs<1>* given, const Tensor& a, const Tensor& b, OptionalTensor a_zero_point,
                        OptionalTensor b_zero_point, OptionalTensor a_sum, OptionalTensor b_sum,
                        OptionalTensor b_packed) {
  const DeviceGuard guard(device_index(a));
  refuse_packed("int8_matmul", "b_packed", b_packed);
  const MatmulArguments arguments = int8_matmul_arguments(a, b, a_zero_point, b_zero_point, a_sum, b_sum);
  Tensor out;
  const MatmulProblem problem = prepare_matmul(arguments, given, out);
  return run(arguments, problem, out);
}

Tensor int8_matmul_dequantize_cuda(const Outs<1>* given, const Tensor& a, const Tensor& b, const Tensor& a_scale,
                                   const Tensor& b_scale, OptionalTensor a_zero_point, OptionalTensor b_zero_point,
                                   OptionalTensor a_sum, OptionalTensor b_sum, OptionalTensor bias, bool relu,
                                   ScalarType dtype, OptionalTensor b_packed) {
  const DeviceGuard guard(device_index(a));
  refuse_packed("int8_matmul_dequantize", "b_packed", b_packed);
  const MatmulArguments arguments =
      int8_matmul_dequantize_arguments(a, b, a_scale, b_scale, a_zero_point, b_zero_point, a_sum, b_sum, bias, relu);
  Tensor out;
  const MatmulProblem problem = prepare_matmul_dequantize(arguments, dtype, given, out);
  return run(arguments, problem, out);
}

Tensor int8_matmul_requantize_cuda(const Outs<1>* given, const Tensor& a, const Tensor& b, const Tensor& a_scale,
                                   const Tensor& b_scale, const Tensor& out_scale, OptionalTensor a_zero_point,
                                   OptionalTensor b_zero_point, OptionalTensor out_zero_point, OptionalTensor a_sum,
                                   OptionalTensor b_sum, OptionalTensor bias, bool relu, ScalarType dtype,
                                   std::optional<int64_t> q_min, std::optional<int64_t> q_max, std::string mode,
                                   OptionalTensor b_packed) {
  const DeviceGuard guard(device_index(a));
  refuse_packed("int8_matmul_requantize", "b_packed", b_packed);
  const MatmulArguments arguments = int8_matmul_requantize_arguments(
      a, b, a_scale, b_scale, out_scale, a_zero_point, b_zero_point, out_zero_point, a_sum, b_sum, bias, relu, mode);
  Tensor out;
  const MatmulProblem problem = prepare_matmul_requantize(arguments, dtype, q_min, q_max, mode, given, out);
  return run(arguments, problem, out);
}

Tensor requantize_cuda(const Outs<1>* given, const Tensor& acc, const Tensor& a_scale, const Tensor& b_scale,
                       const Tensor& out_scale, OptionalTensor out_zero_point, OptionalTensor bias, bool relu,
                       ScalarType dtype, std::optional<int64_t> q_min, std::optional<int64_t> q_max, std::string mode) {
  const DeviceGuard guard(device_index(acc));
  Tensor q;
  const RequantizeArguments arguments = prepare_requantize(acc, a_scale, b_scale, out_scale, out_zero_point, bias, relu,
                                                           dtype, q_min, q_max, mode, given, q);
  check_launch("requantize", launch_requantize(arguments, stream_of(acc)));
  return q;
}

Tensor rescale_cuda(const Outs<1>* given, const Tensor& acc, const Tensor& a_scale, const Tensor& b_scale,
                    OptionalTensor bias, bool relu, ScalarType dtype) {
  const DeviceGuard guard(device_index(acc));
  Tensor y;
  const RescaleArguments arguments = prepare_rescale(acc, a_scale, b_scale, bias, relu, dtype, given, y);
  check_launch("rescale", launch_rescale(arguments, stream_of(acc)));
  return y;
}

Tensor dequantize_cuda(const Outs<1>* given, const Tensor& q, const Tensor& scale, OptionalTensor zero_point,
                       ScalarType dtype) {
  const DeviceGuard guard(device_index(q));
  Tensor x;
  const DequantizeArguments arguments = prepare_dequantize(q, scale, zero_point, dtype, given, x);
  check_launch("dequantize", launch_dequantize(arguments, stream_of(q)));
  return x;
}

Tensor fake_quantize_cuda(const Outs<1>* given, const Tensor& x, const Tensor& scale, OptionalTensor zero_point,
                          std::optional<int64_t> q_min, std::optional<int64_t> q_max, ScalarType dtype,
                          std::string mode, int64_t seed) {
  constexpr const char* kOp = "fake_quantize";
  const DeviceGuard guard(device_index(x));
  Tensor y;
  const FakeQuantizeArguments arguments =
      prepare_fake_quantize(kOp, x, scale, zero_point, q_min, q_max, dtype, mode, seed, std::nullopt, given, y);
  check_launch(kOp, launch_fake_quantize(arguments, stream_of(x)));
  return y;
}

Tensor fake_quantize_mask_cuda(const Outs<1>* given, const Tensor& x, const Tensor& scale, OptionalTensor zero_point,
                               std::optional<int64_t> q_min, std::optional<int64_t> q_max, ScalarType dtype,
                               std::string mode, int64_t seed) {
  constexpr const char* kOp = "fake_quantize_mask";
  const DeviceGuard guard(device_index(x));
  Tensor mask;
  const FakeQuantizeArguments arguments =
      prepare_fake_quantize(kOp, x, scale, zero_point, q_min, q_max, dtype, mode, seed, ScalarType::Bool, given, mask);
  check_launch(kOp, launch_fake_quantize_mask(arguments, stream_of(x)));
  return mask;
}

Tensor transposed(const Tensor& matrix) { return torch::stable::transpose(matrix, 0, 1); }

// False where several launches are to do it.
bool run_in_one_launch(const LinearArguments& linear, const OptionalTensor& bias, bool symmetric) {
  const DeviceGuard guard(device_index(linear.rows));
  std::optional<LinearProblem> problem = linear_problem(linear, bias, symmetric);
  if (!problem) return false;
  int32_t blocks = 0;
  check_launch("int8_linear", choose_linear(*problem, blocks));
  if (blocks == 0) return false;
  problem->product.out = linear.out.mutable_data_ptr();
  check_launch("int8_linear", launch_linear_gemv(*problem, blocks, stream_of(linear.rows)));
  return true;
}

Tensor int8_linear_cuda(const Outs<1>* given, const Tensor& x, const Tensor& weight_q, const Tensor& weight_scale,
                        OptionalTensor bias, OptionalTensor weight_sum, bool symmetric, bool relu,
                        std::optional<ScalarType> dtype, OptionalTensor weight_packed) {
  refuse_packed("int8_linear", "weight_packed", weight_packed);
  const LinearArguments linear =
      prepare_linear(x, weight_q, weight_scale, bias, weight_sum, symmetric, relu, dtype, given);
  if (run_in_one_launch(linear, bias, symmetric)) return linear.out;
  const auto [q, scale, zero_point, row_sum] =
      dynamic_quantize_cuda(nullptr, linear.rows, linear.token_scale_shape, symmetric, ScalarType::Char, std::nullopt,
                            std::nullopt, std::nullopt, false);
  OptionalTensor a_zero_point;
  if (!symmetric) a_zero_point = zero_point;
  const Tensor b_scale = weight_scale.numel() == 1 ? weight_scale : transposed(weight_scale);
  OptionalTensor b_sum;
  if (weight_sum) b_sum = transposed(*weight_sum);
  const Outs<1> product{linear.product};
  int8_matmul_dequantize_cuda(&product, q, transposed(weight_q), scale, b_scale, a_zero_point, std::nullopt,
                              std::nullopt, b_sum, bias, relu, linear.dtype, std::nullopt);
  return linear.out;
}

// The weight as the product's b [K, O / groups] of each group, whose codes lie tap by tap; or, where each channel is
// convolved for itself, as [kH, kW, O]. A copy where it does not lie so, which `keeper` holds.
void take_weight(Conv2dProblem& conv, const Tensor& weight, Tensor& keeper) {
  const bool depthwise = conv.is_depthwise();
  keeper = torch::stable::contiguous(depthwise ? transposed(weight) : weight, MemoryFormat::ChannelsLast);
  if (depthwise) {
    const int64_t channels = weight.size(0);
    conv.weight = {keeper.const_data_ptr(), 1, 0, {conv.kernel[1] * channels, channels}};
    return;
  }
  MatmulProblem& product = conv.product;
  product.b.data = keeper.const_data_ptr();
  product.b.row_stride = 1;
  product.b.column_stride = product.k;
  product.b.batch_stride[0] = product.n * product.k;
}

Tensor int8_conv2d_cuda(const Outs<1>* given, const Tensor& x, const Tensor& weight, const Tensor& x_scale,
                        const Tensor& weight_scale, OptionalTensor out_scale, OptionalTensor x_zero_point,
                        OptionalTensor out_zero_point, OptionalTensor bias, Shape stride, Shape padding, Shape dilation,
                        int64_t groups, bool relu, ScalarType dtype, std::optional<int64_t> q_min,
                        std::optional<int64_t> q_max, OptionalTensor weight_packed) {
  constexpr const char* kOp = Conv2dArguments::kOp;
  const DeviceGuard guard(device_index(x));
  refuse_packed(kOp, "weight_packed", weight_packed);
  const Conv2dArguments arguments{x,     weight, x_scale, weight_scale, out_scale, x_zero_point, out_zero_point,
                                  bias,  stride, padding, dilation,     groups,    relu,         dtype,
                                  q_min, q_max};
  Conv2dProblem conv = conv2d_problem(arguments);
  const Tensor out = provide_images(arguments, conv, out_at(given, 0));
  if (out.numel() == 0) return out;
  Tensor by_taps, sum;
  take_weight(conv, weight, by_taps);
  if (x_zero_point && !conv.is_depthwise()) {
    sum = sum_codes(kOp, by_taps, {weight.size(0), 1, 1, 1});
    conv.product.b_sum = {sum.const_data_ptr<int32_t>(), {conv.product.n}, 1};
  }
  check_launch(kOp, launch_conv2d(conv, stream_of(x)));
  return out;
}

}  // namespace
}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CUDA, m) {
  m.impl("choose_qparams", TORCH_BOX(&quaver::choose_qparams_cuda));
  quaver::implement<quaver::quantize_cuda>(m, "quantize");
  quaver::implement<quaver::dynamic_quantize_cuda>(m, "dynamic_quantize");
  quaver::implement<quaver::rms_norm_quantize_cuda>(m, "rms_norm_quantize");
  quaver::implement<quaver::silu_mul_quantize_cuda>(m, "silu_mul_quantize");
  quaver::implement<quaver::int8_matmul_cuda>(m, "int8_matmul");
  quaver::implement<quaver::int8_matmul_dequantize_cuda>(m, "int8_matmul_dequantize");
  quaver::implement<quaver::int8_matmul_requantize_cuda>(m, "int8_matmul_requantize");
  quaver::implement<quaver::rescale_cuda>(m, "rescale");
  quaver::implement<quaver::requantize_cuda>(m, "requantize");
  quaver::implement<quaver::dequantize_cuda>(m, "dequantize");
  quaver::implement<quaver::fake_quantize_cuda>(m, "fake_quantize");
  quaver::implement<quaver::fake_quantize_mask_cuda>(m, "fake_quantize_mask");
  quaver::implement<quaver::int8_linear_cuda>(m, "int8_linear");
  quaver::implement<quaver::int8_conv2d_cuda>(m, "int8_conv2d");
}

// For quaver/tuning.py; a matmul is what matmul_argument.h takes.
namespace {

// (matmul, kernel, parts of K): numbers of plan.h
PyObject* set_matmul_plan(PyObject*, PyObject* arguments) {
  quaver::MatmulArgument matmul{};
  int kernel = 0, splits = 0;
  if (!PyArg_ParseTuple(arguments, "O&ii", quaver::matmul_argument, &matmul, &kernel, &splits)) return nullptr;
  if (quaver::set_tuned_plan(matmul.device, matmul.shape, static_cast<quaver::MatmulKernel>(kernel), splits))
    Py_RETURN_NONE;
  return PyErr_Format(PyExc_ValueError, "no kernel %d in %d parts can compute this matmul", kernel, splits);
}

PyObject* clear_matmul_plans(PyObject*, PyObject*) {
  quaver::clear_tuned_plans();
  Py_RETURN_NONE;
}

PyObject* last_matmul(PyObject*, PyObject*) {
  const auto& [device, shape] = quaver::last_planned_matmul();
  return Py_BuildValue("(iiLLLLii)", device.architecture, device.multiprocessors, static_cast<long long>(shape.m),
                       static_cast<long long>(shape.n), static_cast<long long>(shape.k),
                       static_cast<long long>(shape.batches), static_cast<int>(shape.a_layout),
                       static_cast<int>(shape.b_layout));
}

PyObject* cuda_driver(PyObject*, PyObject*) {
  int version = 0;
  const cudaError_t error = cudaDriverGetVersion(&version);
  if (error == cudaSuccess) return PyLong_FromLong(version);
  return PyErr_Format(PyExc_RuntimeError, "cudaDriverGetVersion: %s", cudaGetErrorString(error));
}

PyMethodDef methods[] = {
    {"set_matmul_plan", set_matmul_plan, METH_VARARGS, "A matmul's plan from now on; ValueError where it cannot be."},
    {"clear_matmul_plans", clear_matmul_plans, METH_NOARGS, "Forgets every plan that was set."},
    {"last_matmul", last_matmul, METH_NOARGS, "What this thread's last matmul was; zeros before there was one."},
    {"cuda_driver", cuda_driver, METH_NOARGS, "The newest CUDA version that the driver serves, times 1000; 0: none."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C_cuda", "quaver's CUDA kernels.", -1, methods};

}  // namespace

PyMODINIT_FUNC PyInit__C_cuda(void) { return PyModule_Create(&module); }
