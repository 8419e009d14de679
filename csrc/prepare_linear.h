// prepare_linear.h: int8_linear's checked arguments as those of the matmul; shared by the CPU and CUDA backends.
#pragma once

#include "checks.h"
#include "prepare_matmul.h"

namespace quaver {

struct LinearArguments {
  Tensor rows;              // x as [..., M, K]
  Shape token_scale_shape;  // [..., 1]
  Tensor weight_q;
  Tensor weight_scale;
  OptionalTensor weight_sum;
  bool relu;
  ScalarType dtype;  // of the result
  Tensor out;        // the result, in x's rank
  Tensor product;    // the same memory, in the rank of rows
};

inline LinearArguments prepare_linear(const Tensor& x, const Tensor& weight_q, const Tensor& weight_scale,
                                      const OptionalTensor& bias, const OptionalTensor& weight_sum, bool symmetric,
                                      bool relu, std::optional<ScalarType> dtype, const Outs<1>* given) {
  constexpr const char* kOp = "int8_linear";
  check_float(kOp, "x", x);
  QUAVER_CHECK(x.dim() >= 1, kOp, "x must have at least 1 dimension, got 0");
  check_companion(kOp, "weight_q", weight_q, ScalarType::Char, "x", x);
  QUAVER_CHECK(weight_q.dim() == 2 && weight_q.size(1) == x.size(x.dim() - 1), kOp, "weight_q must have the shape [N, ",
               x.size(x.dim() - 1), "] for x ", to_words(shape_of(x)), ", got ", to_words(shape_of(weight_q)));
  check_k(kOp, weight_q.size(1), CodeType::kInt8, CodeType::kInt8, !symmetric);
  const Shape per_channel = {weight_q.size(0), 1};
  check_companion(kOp, "weight_scale", weight_scale, ScalarType::Float, "x", x);
  QUAVER_CHECK(weight_scale.numel() == 1 || shape_of(weight_scale) == per_channel, kOp,
               "weight_scale must have one element or the shape ", to_words(per_channel), ", got ",
               to_words(shape_of(weight_scale)));
  if (weight_sum) {
    check_companion(kOp, "weight_sum", *weight_sum, ScalarType::Int, "x", x);
    QUAVER_CHECK(shape_of(*weight_sum) == per_channel, kOp, "weight_sum must have the shape ", to_words(per_channel),
                 ", got ", to_words(shape_of(*weight_sum)));
  }
  if (bias) {
    check_companion(kOp, "bias", *bias, ScalarType::Float, "x", x);
    QUAVER_CHECK(shape_of(*bias) == Shape{weight_q.size(0)}, kOp, "bias must have the shape [", weight_q.size(0),
                 "], got ", to_words(shape_of(*bias)));
  }
  const ScalarType type = dtype.value_or(x.scalar_type());
  check_float_type(kOp, "dtype", type);
  Shape shape = shape_of(x);
  shape.back() = weight_q.size(0);
  const Tensor out = provide(
      kOp, "out", out_at(given, 0), shape, type,
      {{"x", x}, {"weight_q", weight_q}, {"weight_scale", weight_scale}, {"bias", bias}, {"weight_sum", weight_sum}});

  const Tensor rows = x.dim() == 1 ? torch::stable::unsqueeze(x, 0) : x;
  Shape token_scale_shape = shape_of(rows);
  token_scale_shape.back() = 1;
  return {rows,
          token_scale_shape,
          weight_q,
          weight_scale,
          weight_sum,
          relu,
          type,
          out,
          x.dim() == 1 ? torch::stable::unsqueeze(out, 0) : out};
}

// The product with the weight seen from its other side, b [K, N], but for its rows and for where its results go.
inline MatmulProblem linear_product(const LinearArguments& linear, const OptionalTensor& bias) {
  MatmulProblem product;
  const Tensor& weight = linear.weight_q;
  product.n = weight.size(0);
  product.k = weight.size(1);
  product.b.data = weight.const_data_ptr();
  product.b.row_stride = weight.stride(1);
  product.b.column_stride = weight.stride(0);
  product.b_scale.data = linear.weight_scale.const_data_ptr<float>();
  if (linear.weight_scale.numel() > 1) product.b_scale.stride = linear.weight_scale.stride(0);
  if (linear.weight_sum) {
    product.b_sum.data = linear.weight_sum->const_data_ptr<int32_t>();
    product.b_sum.stride = linear.weight_sum->stride(0);
  }
  if (bias) product.bias = bias_view<float>("int8_linear", *bias, product.n, "x", linear.rows);
  product.relu = linear.relu;
  product.out_type = output_of(check_float_type("int8_linear", "dtype", linear.dtype));
  return product;
}

// The same for a kernel that makes the codes of few rows by itself; nothing where there are more rows, or none.
inline std::optional<LinearProblem> linear_problem(const LinearArguments& linear, const OptionalTensor& bias,
                                                   bool symmetric) {
  const Tensor& x = linear.rows;
  LinearProblem problem;
  MatmulProblem& product = problem.product;
  product = linear_product(linear, bias);
  product.m = 1;
  for (int64_t dim = 0; dim < x.dim() - 1; ++dim) product.m *= x.size(dim);
  if (product.m > kMostLinearRows || product.m * product.n == 0) return {};

  problem.x = x.const_data_ptr();
  problem.x_type = check_float("int8_linear", "x", x);
  problem.step = x.stride(x.dim() - 1);
  problem.symmetric = symmetric;
  problem.range = check_qparams_range("int8_linear", CodeType::kInt8, symmetric, std::nullopt, std::nullopt);
  for (int64_t row = 0; row < product.m; ++row) {
    int64_t rest = row;
    for (int64_t dim = x.dim() - 2; dim >= 0; --dim) {
      problem.row_offset[row] += rest % x.size(dim) * x.stride(dim);
      rest /= x.size(dim);
    }
  }
  return problem;
}

}  // namespace quaver
