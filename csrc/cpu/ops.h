// ops.h: the CPU implementations that other CPU implementations build on.
#pragma once

#include <optional>
#include <string>
#include <tuple>

#include "arguments.h"
#include "checks.h"
#include "out.h"

namespace quaver {

void choose_qparams_cpu(const QparamsArguments& arguments);

void quantize_cpu(const QuantizeArguments& arguments);

std::tuple<Tensor, Tensor, Tensor, Tensor> dynamic_quantize_cpu(const Outs<4>* given, const Tensor& x,
                                                                Shape scale_shape, bool symmetric, ScalarType dtype,
                                                                std::optional<int64_t> q_min,
                                                                std::optional<int64_t> q_max, std::optional<double> eps,
                                                                bool return_row_sum);

Tensor int8_matmul_dequantize_cpu(const Outs<1>* given, const Tensor& a, const Tensor& b, const Tensor& a_scale,
                                  const Tensor& b_scale, OptionalTensor a_zero_point, OptionalTensor b_zero_point,
                                  OptionalTensor a_sum, OptionalTensor b_sum, OptionalTensor bias, bool relu,
                                  ScalarType dtype);

}  // namespace quaver
