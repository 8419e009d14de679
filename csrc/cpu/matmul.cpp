// matmul.cpp: the three int8 matmuls on the CPU: codes to an exact int32 product, and that product scaled to floats or
// requantized to codes.
#include <torch/csrc/stable/library.h>

#include "cpu/kernels/matmul.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "matmul_views.h"

namespace quaver {
namespace {

Tensor run(MatmulProblem& problem, const Tensor& like, const Shape& shape, ScalarType type) {
  Tensor out = new_tensor(like, shape, type);
  if (out.numel() == 0) return out;
  problem.out = out.mutable_data_ptr();
  torch::stable::parallel_for(0, tiles_of(problem), 1,
                              [&](int64_t begin, int64_t end) { matmul_tiles(problem, begin, end); });
  return out;
}

}  // namespace

Tensor int8_matmul_cpu(const Tensor& a, const Tensor& b, OptionalTensor a_zero_point, OptionalTensor b_zero_point,
                       OptionalTensor a_sum, OptionalTensor b_sum) {
  MatmulArguments arguments{"int8_matmul", a, b, a_zero_point, b_zero_point, a_sum, b_sum};
  Shape shape;
  MatmulProblem problem = matmul_problem(arguments, shape);
  problem.out_type = MatmulOutput::kInt32;
  return run(problem, a, shape, ScalarType::Int);
}

Tensor int8_matmul_dequantize_cpu(const Tensor& a, const Tensor& b, const Tensor& a_scale, const Tensor& b_scale,
                                  OptionalTensor a_zero_point, OptionalTensor b_zero_point, OptionalTensor a_sum,
                                  OptionalTensor b_sum, OptionalTensor bias, bool relu, ScalarType dtype) {
  MatmulArguments arguments{"int8_matmul_dequantize", a, b, a_zero_point, b_zero_point, a_sum, b_sum};
  arguments.a_scale = a_scale;
  arguments.b_scale = b_scale;
  arguments.bias = bias;
  arguments.relu = relu;
  Shape shape;
  MatmulProblem problem = matmul_problem(arguments, shape);
  problem.out_type = output_of(check_float_type(arguments.op, "dtype", dtype));
  return run(problem, a, shape, dtype);
}

Tensor int8_matmul_requantize_cpu(const Tensor& a, const Tensor& b, const Tensor& a_scale, const Tensor& b_scale,
                                  const Tensor& out_scale, OptionalTensor a_zero_point, OptionalTensor b_zero_point,
                                  OptionalTensor out_zero_point, OptionalTensor a_sum, OptionalTensor b_sum,
                                  OptionalTensor bias, bool relu, ScalarType dtype, std::optional<int64_t> q_min,
                                  std::optional<int64_t> q_max) {
  MatmulArguments arguments{"int8_matmul_requantize", a, b, a_zero_point, b_zero_point, a_sum, b_sum};
  arguments.a_scale = a_scale;
  arguments.b_scale = b_scale;
  arguments.out_scale = out_scale;
  arguments.out_zero_point = out_zero_point;
  arguments.bias = bias;
  arguments.relu = relu;
  Shape shape;
  MatmulProblem problem = matmul_problem(arguments, shape);
  const CodeType type = check_code_type(arguments.op, "dtype", dtype);
  problem.out_type = output_of(type);
  problem.range = check_code_range(arguments.op, type, q_min, q_max);
  return run(problem, a, shape, dtype);
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) {
  m.impl("int8_matmul", TORCH_BOX(&quaver::int8_matmul_cpu));
  m.impl("int8_matmul_dequantize", TORCH_BOX(&quaver::int8_matmul_dequantize_cpu));
  m.impl("int8_matmul_requantize", TORCH_BOX(&quaver::int8_matmul_requantize_cpu));
}
