// ops.h: the CPU implementations that other CPU implementations build on.
#pragma once

#include <optional>
#include <string>
#include <tuple>

#include "checks.h"

namespace quaver {

std::tuple<Tensor, Tensor> choose_qparams_cpu(const Tensor& x, Shape scale_shape, bool symmetric, ScalarType dtype,
                                              std::optional<int64_t> q_min, std::optional<int64_t> q_max,
                                              std::optional<double> eps);

Tensor quantize_cpu(const Tensor& x, const Tensor& scale, OptionalTensor zero_point, std::optional<int64_t> q_min,
                    std::optional<int64_t> q_max, ScalarType dtype, std::string mode, int64_t seed);

std::tuple<Tensor, Tensor, Tensor, Tensor> dynamic_quantize_cpu(const Tensor& x, Shape scale_shape, bool symmetric,
                                                                ScalarType dtype, std::optional<int64_t> q_min,
                                                                std::optional<int64_t> q_max, std::optional<double> eps,
                                                                bool return_row_sum);

Tensor int8_matmul_dequantize_cpu(const Tensor& a, const Tensor& b, const Tensor& a_scale, const Tensor& b_scale,
                                  OptionalTensor a_zero_point, OptionalTensor b_zero_point, OptionalTensor a_sum,
                                  OptionalTensor b_sum, OptionalTensor bias, bool relu, ScalarType dtype);

}  // namespace quaver
