// matmul.cpp: the three int8 matmuls on the CPU: codes to an exact int32 product, and that product scaled to floats or
// requantized to codes.
#include "cpu/kernels/matmul.h"

#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "prepare_matmul.h"

namespace quaver {
namespace {

Tensor run(MatmulProblem problem, const Tensor& out) {
  if (out.numel() == 0) return out;
  fold_batch_into_rows(problem);
  const MatmulTasks tasks(problem);
  torch::stable::parallel_for(0, tasks.count(problem), tasks.grain(problem), [&](int64_t begin, int64_t end) {
    MatmulThread(problem, tasks, nullptr, false).run(begin, end);
  });
  return out;
}

}  // namespace

Tensor int8_matmul_cpu(const Outs<1>* given, const Tensor& a, const Tensor& b, OptionalTensor a_zero_point,
                       OptionalTensor b_zero_point, OptionalTensor a_sum, OptionalTensor b_sum) {
  const MatmulArguments arguments = int8_matmul_arguments(a, b, a_zero_point, b_zero_point, a_sum, b_sum);
  Tensor out;
  const MatmulProblem problem = prepare_matmul(arguments, given, out);
  return run(problem, out);
}

Tensor int8_matmul_dequantize_cpu(const Outs<1>* given, const Tensor& a, const Tensor& b, const Tensor& a_scale,
                                  const Tensor& b_scale, OptionalTensor a_zero_point, OptionalTensor b_zero_point,
                                  OptionalTensor a_sum, OptionalTensor b_sum, OptionalTensor bias, bool relu,
                                  ScalarType dtype) {
  const MatmulArguments arguments =
      int8_matmul_dequantize_arguments(a, b, a_scale, b_scale, a_zero_point, b_zero_point, a_sum, b_sum, bias, relu);
  Tensor out;
  const MatmulProblem problem = prepare_matmul_dequantize(arguments, dtype, given, out);
  return run(problem, out);
}

Tensor int8_matmul_requantize_cpu(const Outs<1>* given, const Tensor& a, const Tensor& b, const Tensor& a_scale,
                                  const Tensor& b_scale, const Tensor& out_scale, OptionalTensor a_zero_point,
                                  OptionalTensor b_zero_point, OptionalTensor out_zero_point, OptionalTensor a_sum,
                                  OptionalTensor b_sum, OptionalTensor bias, bool relu, ScalarType dtype,
                                  std::optional<int64_t> q_min, std::optional<int64_t> q_max, std::string mode) {
  const MatmulArguments arguments = int8_matmul_requantize_arguments(
      a, b, a_scale, b_scale, out_scale, a_zero_point, b_zero_point, out_zero_point, a_sum, b_sum, bias, relu, mode);
  Tensor out;
  const MatmulProblem problem = prepare_matmul_requantize(arguments, dtype, q_min, q_max, mode, given, out);
  return run(problem, out);
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) {
  quaver::implement<quaver::int8_matmul_cpu>(m, "int8_matmul");
  quaver::implement<quaver::int8_matmul_dequantize_cpu>(m, "int8_matmul_dequantize");
  quaver::implement<quaver::int8_matmul_requantize_cpu>(m, "int8_matmul_requantize");
}
