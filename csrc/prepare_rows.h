// prepare_rows.h: from the tensors of rms_norm_quantize and silu_mul_quantize to checked kernel arguments and the
// tensors for their results, which are contiguous; shared by the CPU and CUDA backends.
#pragma once

#include "prepare.h"

namespace quaver {

// What both ops are told of the codes.
struct RowOptions {
  bool symmetric;
  ScalarType dtype;
  std::optional<int64_t> q_min;
  std::optional<int64_t> q_max;
  bool return_row_sum;
};

struct RowResults {
  Tensor q;
  Tensor scale;
  Tensor zero_point;
  Tensor row_sum;
};

inline void check_rows(const char* op, const char* name, const Tensor& x) {
  check_float(op, name, x);
  QUAVER_CHECK(x.dim() >= 1, op, name, " must have at least 1 dimension, got 0");
  const int64_t length = x.size(x.dim() - 1);
  QUAVER_CHECK(length <= kLongestHeldRow, op, name, " must have rows of at most ", kLongestHeldRow,
               " elements, which are held until their scale is known, got ", length);
}

// A tensor that is taken element by element with `like`.
inline void check_beside(const char* op, const char* name, const Tensor& tensor, const char* like_name,
                         const Tensor& like) {
  check_companion(op, name, tensor, like.scalar_type(), like_name, like);
  QUAVER_CHECK(shape_of(tensor) == shape_of(like), op, name, " must have the shape of ", like_name, " ",
               to_words(shape_of(like)), ", got ", to_words(shape_of(tensor)));
}

inline CodeRange check_row_options(const char* op, const RowOptions& options) {
  return check_qparams_range(op, check_code_type(op, "dtype", options.dtype), options.symmetric, options.q_min,
                             options.q_max);
}

inline int64_t inner_step(const Tensor& x) { return x.stride(x.dim() - 1); }

// The loops over the rows of two tensors of one shape, in the order of their results.
inline RowNest row_nest(const Tensor& first, const Tensor& second) {
  RowNest nest;
  for (int64_t dim = 0; dim < first.dim() - 1; ++dim)
    nest.push(first.size(dim), {first.stride(dim), second.stride(dim)});
  nest.merge();
  return nest;
}

// `given` holds the four first or none. The others' reads are these, and what comes before them.
inline RowCodes prepare_row_codes(const char* op, const Named& first, const Named& second, const Named& third,
                                  const RowOptions& options, CodeRange range, const Tensor* given,
                                  RowResults& results) {
  const Shape shape = shape_of(*first.tensor);
  Shape parameters = shape;
  parameters.back() = 1;
  const auto at = [&](int index) { return given == nullptr ? nullptr : given + index; };
  auto& [q, scale, zero_point, row_sum] = results;
  q = provide(op, "q", at(0), shape, options.dtype, {first, second, third});
  scale = provide(op, "scale", at(1), parameters, ScalarType::Float, {first, second, third, {"q", q}});
  zero_point =
      provide(op, "zero_point", at(2), parameters, ScalarType::Int, {first, second, third, {"q", q}, {"scale", scale}});
  row_sum = provide(op, "row_sum", at(3), options.return_row_sum ? parameters : Shape{0}, ScalarType::Int,
                    {first, second, third, {"q", q}, {"scale", scale}, {"zero_point", zero_point}});
  return {scale.numel(),
          shape.back(),
          static_cast<uint8_t*>(q.mutable_data_ptr()),
          scale.mutable_data_ptr<float>(),
          zero_point.mutable_data_ptr<int32_t>(),
          options.return_row_sum ? row_sum.mutable_data_ptr<int32_t>() : nullptr,
          options.symmetric,
          range};
}

// `contiguous_weight` keeps the weight's memory for the launch: the weight itself, or a copy of one that is not
// contiguous.
inline RmsNormArguments prepare_rms_norm_quantize(const Tensor& x, const Tensor& weight, const OptionalTensor& residual,
                                                  double eps, const RowOptions& options, const Outs<5>* given,
                                                  RowResults& results, Tensor& residual_out,
                                                  Tensor& contiguous_weight) {
  constexpr const char* kOp = "rms_norm_quantize";
  check_rows(kOp, "x", x);
  check_given(kOp, "weight", weight);
  RmsNormData data{};
  data.weight_type = check_float_type(kOp, "weight", weight.scalar_type());
  check_companion(kOp, "weight", weight, weight.scalar_type(), "x", x);
  const int64_t length = x.size(x.dim() - 1);
  QUAVER_CHECK(weight.dim() == 1 && weight.size(0) == length, kOp, "weight must have the shape [", length, "], got ",
               to_words(shape_of(weight)));
  if (residual) check_beside(kOp, "residual", *residual, "x", x);
  data.eps = check_eps(kOp, eps);
  const CodeRange range = check_row_options(kOp, options);

  const Named reads[] = {{"x", x}, {"weight", weight}, {"residual", residual}};
  data.codes = prepare_row_codes(kOp, reads[0], reads[1], reads[2], options, range, out_at(given, 0), results);
  const auto& [q, scale, zero_point, row_sum] = results;
  residual_out = provide(
      kOp, "residual_out", out_at(given, 4), residual ? shape_of(x) : Shape{0}, x.scalar_type(),
      {reads[0], reads[1], reads[2], {"q", q}, {"scale", scale}, {"zero_point", zero_point}, {"row_sum", row_sum}});
  data.x = x.const_data_ptr();
  data.x_type = check_float(kOp, "x", x);
  data.x_step = inner_step(x);
  if (residual) {
    data.residual = residual->const_data_ptr();
    data.residual_step = inner_step(*residual);
    data.residual_out = residual_out.mutable_data_ptr();
  }
  contiguous_weight = torch::stable::contiguous(weight);
  data.weight = contiguous_weight.const_data_ptr();
  return {row_nest(x, residual ? *residual : x), data};
}

inline SiluMulArguments prepare_silu_mul_quantize(const Tensor& gate, const Tensor& up, const RowOptions& options,
                                                  const Outs<4>* given, RowResults& results) {
  constexpr const char* kOp = "silu_mul_quantize";
  check_rows(kOp, "gate", gate);
  check_beside(kOp, "up", up, "gate", gate);
  const CodeRange range = check_row_options(kOp, options);

  SiluMulData data{};
  const Named reads[] = {{"gate", gate}, {"up", up}};
  data.codes = prepare_row_codes(kOp, reads[0], reads[1], reads[1], options, range, out_at(given, 0), results);
  data.gate = gate.const_data_ptr();
  data.up = up.const_data_ptr();
  data.type = check_float(kOp, "gate", gate);
  data.gate_step = inner_step(gate);
  data.up_step = inner_step(up);
  return {row_nest(gate, up), data};
}

}  // namespace quaver
