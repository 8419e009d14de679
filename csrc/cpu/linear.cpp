// linear.cpp: int8_linear on the CPU: a whole linear layer, float in and float out, int8 in between. It is
// dynamic_quantize of each row followed by int8_matmul_dequantize, and defined as such.
#include "cpu/ops.h"
#include "prepare_linear.h"

namespace quaver {

Tensor int8_linear_cpu(const Outs<1>* given, const Tensor& x, const Tensor& weight_q, const Tensor& weight_scale,
                       OptionalTensor bias, OptionalTensor weight_sum, bool symmetric,
                       std::optional<ScalarType> dtype) {
  const LinearArguments linear = prepare_linear(x, weight_q, weight_scale, bias, weight_sum, symmetric, dtype, given);
  const auto [q, scale, zero_point, row_sum] =
      dynamic_quantize_cpu(nullptr, linear.rows, linear.token_scale_shape, symmetric, ScalarType::Char, std::nullopt,
                           std::nullopt, std::nullopt, false);
  OptionalTensor a_zero_point;
  if (!symmetric) a_zero_point = zero_point;
  const Outs<1> product{linear.product};
  int8_matmul_dequantize_cpu(&product, q, linear.b, scale, linear.b_scale, a_zero_point, std::nullopt, std::nullopt,
                             linear.b_sum, bias, false, linear.dtype);
  return linear.out;
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { quaver::implement<quaver::int8_linear_cpu>(m, "int8_linear"); }
