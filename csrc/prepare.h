// prepare.h: from an op's tensors to checked kernel arguments and the tensors for its results; shared by the CPU and
// CUDA backends. The matmuls' part is prepare_matmul.h.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <array>

#include "arguments.h"
#include "checks.h"
#include "out.h"

namespace quaver {

inline Tensor new_tensor(const Tensor& like, const Shape& shape, ScalarType type) {
  return torch::stable::new_empty(like, {shape.data(), shape.size()}, type);
}

// A tensor of another type laid out like x, as torch.empty_like makes it: dense tensors keep their strides.
inline Tensor new_tensor_like(const Tensor& x, ScalarType type) {
  using torch::stable::detail::from;
  const StableIValue absent = from(std::nullopt);
  std::array<StableIValue, 6> stack{from(x), from(std::optional<ScalarType>(type)), absent, absent, absent, absent};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::empty_like", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// The tensor for a result: the one that was given, or a new one on the device of what is read first.
inline Tensor provide(const char* op, const char* name, const Tensor* given, const Shape& shape, ScalarType type,
                      const Reads& reads) {
  if (given == nullptr) return new_tensor(*reads.begin()->tensor, shape, type);
  check_out(op, name, *given, shape, type, Layout::kContiguous, reads);
  return *given;
}

// The same for one that is visited element by element with what is read first, whose shape it has.
inline Tensor provide_like(const char* op, const char* name, const Tensor* given, ScalarType type, const Reads& reads) {
  const Tensor& like = *reads.begin()->tensor;
  if (given == nullptr) return new_tensor_like(like, type);
  check_out(op, name, *given, shape_of(like), type, Layout::kAnyStrides, reads);
  return *given;
}

inline const int32_t* optional_data(const OptionalTensor& tensor) {
  return tensor ? tensor->const_data_ptr<int32_t>() : nullptr;
}

// The loops over two tensors of one shape and the parameters of its blocks, in the order of the shape: row-major.
inline ElementwiseNest row_major_nest(const Tensor& source, const Tensor& target, const Tensor& scale,
                                      const OptionalTensor& zero_point) {
  ElementwiseNest nest;
  const bool per_tensor = scale.numel() == 1;
  for (int64_t dim = 0; dim < source.dim(); ++dim) {
    const int64_t blocks = per_tensor ? 1 : scale.size(dim);
    const int64_t block = source.size(dim) / std::max<int64_t>(blocks, 1);
    const int64_t source_stride = source.stride(dim);
    const int64_t target_stride = target.stride(dim);
    const int64_t scale_stride = per_tensor ? 0 : scale.stride(dim);
    const int64_t zero_point_stride = per_tensor || !zero_point ? 0 : zero_point->stride(dim);
    nest.push(blocks, {source_stride * block, target_stride * block, scale_stride, zero_point_stride});
    nest.push(block, {source_stride, target_stride, 0, 0});
  }
  nest.merge();
  return nest;
}

// The same in the order of the target's memory.
inline ElementwiseNest elementwise_nest(const Tensor& source, const Tensor& target, const Tensor& scale,
                                        const OptionalTensor& zero_point) {
  ElementwiseNest nest = row_major_nest(source, target, scale, zero_point);
  nest.arrange(kTarget);
  return nest;
}

// What is drawn for an element belongs to its place in the shape, not to that in memory.
inline ElementwiseNest quantizing_nest(const Tensor& source, const Tensor& target, const Tensor& scale,
                                       const OptionalTensor& zero_point, QuantizeMode mode) {
  return mode == QuantizeMode::kStochastic ? row_major_nest(source, target, scale, zero_point)
                                           : elementwise_nest(source, target, scale, zero_point);
}

// The loops of a reduction of x to a contiguous tensor whose sizes divide x's, in the order of x's memory.
inline ReductionNest reduction_nest(const Tensor& x, const Tensor& result) {
  ReductionNest nest;
  for (int64_t dim = 0; dim < x.dim(); ++dim) {
    const int64_t blocks = result.size(dim);
    const int64_t block = x.size(dim) / std::max<int64_t>(blocks, 1);
    nest.push(blocks, {x.stride(dim) * block, result.stride(dim)});
    nest.push(block, {x.stride(dim), 0});
  }
  nest.arrange(kReduced);
  return nest;
}

inline QparamsArguments prepare_choose_qparams(const Tensor& x, const Shape& scale_shape, bool symmetric,
                                               ScalarType dtype, std::optional<int64_t> q_min,
                                               std::optional<int64_t> q_max, std::optional<double> eps,
                                               const Outs<2>* given, Tensor& scale, Tensor& zero_point) {
  constexpr const char* kOp = "choose_qparams";
  QparamsArguments arguments{};
  arguments.x_type = check_float(kOp, "x", x);
  check_scale_shape(kOp, x, scale_shape);
  arguments.symmetric = symmetric;
  arguments.range = check_qparams_range(kOp, check_code_type(kOp, "dtype", dtype), symmetric, q_min, q_max);
  arguments.eps = check_eps(kOp, eps);

  scale = provide(kOp, "scale", out_at(given, 0), scale_shape, ScalarType::Float, {{"x", x}});
  zero_point = provide(kOp, "zero_point", out_at(given, 1), scale_shape, ScalarType::Int, {{"x", x}});
  arguments.nest = reduction_nest(x, scale);
  arguments.x = x.const_data_ptr();
  arguments.scale = scale.mutable_data_ptr<float>();
  arguments.zero_point = zero_point.mutable_data_ptr<int32_t>();
  arguments.blocks = scale.numel();
  return arguments;
}

inline QuantizeArguments prepare_quantize(const Tensor& x, const Tensor& scale, const OptionalTensor& zero_point,
                                          std::optional<int64_t> q_min, std::optional<int64_t> q_max, ScalarType dtype,
                                          const std::string& mode, int64_t seed, const Outs<1>* given, Tensor& q) {
  constexpr const char* kOp = "quantize";
  QuantizeArguments arguments{};
  arguments.x_type = check_float(kOp, "x", x);
  check_scale(kOp, "x", x, scale, zero_point);
  arguments.q_type = check_code_type(kOp, "dtype", dtype);
  arguments.range = check_code_range(kOp, arguments.q_type, q_min, q_max);
  arguments.mode = check_mode(kOp, mode);
  arguments.seed = seed;

  q = provide_like(kOp, "out", out_at(given, 0), dtype, {{"x", x}, {"scale", scale}, {"zero_point", zero_point}});
  arguments.nest = quantizing_nest(x, q, scale, zero_point, arguments.mode);
  arguments.x = x.const_data_ptr();
  arguments.q = q.mutable_data_ptr();
  arguments.scale = scale.const_data_ptr<float>();
  arguments.zero_point = optional_data(zero_point);
  return arguments;
}

// The loops over x and q together with the blocks that share a contiguous result's elements, in the order of x's
// memory.
inline DynamicNest dynamic_nest(const Tensor& x, const Tensor& q, const Tensor& result) {
  DynamicNest nest;
  for (int64_t dim = 0; dim < x.dim(); ++dim) {
    const int64_t blocks = result.size(dim);
    const int64_t block = x.size(dim) / std::max<int64_t>(blocks, 1);
    nest.push(blocks, {x.stride(dim) * block, q.stride(dim) * block, result.stride(dim)});
    nest.push(block, {x.stride(dim), q.stride(dim), 0});
  }
  nest.arrange(kDynamicX);
  return nest;
}

// The sums of q's codes along one dimension, which stays with size 1 in `sum`.
inline SumArguments prepare_sum_codes(const Tensor& q, const Tensor& sum) {
  const CodeType type = q.scalar_type() == ScalarType::Char ? CodeType::kInt8 : CodeType::kUint8;
  return {reduction_nest(q, sum), q.const_data_ptr(), type, sum.mutable_data_ptr<int32_t>(), sum.numel()};
}

inline Shape sum_shape(const Tensor& q, int64_t dim) {
  Shape shape = shape_of(q);
  shape[dim] = 1;
  return shape;
}

// What dynamic_quantize gives.
struct DynamicResults {
  Tensor q;
  Tensor scale;
  Tensor zero_point;
  Tensor row_sum;
};

inline DynamicQuantizeArguments prepare_dynamic_quantize(const Tensor& x, const Shape& scale_shape, bool symmetric,
                                                         ScalarType dtype, std::optional<int64_t> q_min,
                                                         std::optional<int64_t> q_max, std::optional<double> eps,
                                                         bool return_row_sum, const Outs<4>* given,
                                                         DynamicResults& results) {
  constexpr const char* kOp = "dynamic_quantize";
  check_float(kOp, "x", x);
  check_scale_shape(kOp, x, scale_shape);
  QUAVER_CHECK(!return_row_sum || x.dim() > 0, kOp, "return_row_sum needs an x with at least 1 dimension, got 0");
  const CodeRange range = check_qparams_range(kOp, check_code_type(kOp, "dtype", dtype), symmetric, q_min, q_max);
  check_eps(kOp, eps);
  auto& [q, scale, zero_point, row_sum] = results;
  q = provide_like(kOp, "q", out_at(given, 0), dtype, {{"x", x}});
  scale = provide(kOp, "scale", out_at(given, 1), scale_shape, ScalarType::Float, {{"x", x}, {"q", q}});
  zero_point = provide(kOp, "zero_point", out_at(given, 2), scale_shape, ScalarType::Int,
                       {{"x", x}, {"q", q}, {"scale", scale}});
  row_sum = provide(kOp, "row_sum", out_at(given, 3), return_row_sum ? sum_shape(x, x.dim() - 1) : Shape{0},
                    ScalarType::Int, {{"x", x}, {"q", q}, {"scale", scale}, {"zero_point", zero_point}});

  // Each stage writes what is here now, and reads what the one before has written.
  const Outs<2> parameters{scale, zero_point};
  const Outs<1> codes{q};
  DynamicQuantizeArguments arguments{};
  arguments.qparams = prepare_choose_qparams(x, scale_shape, symmetric, dtype, range.q_min, range.q_max, eps,
                                             &parameters, scale, zero_point);
  arguments.quantize = prepare_quantize(x, scale, zero_point, range.q_min, range.q_max, dtype, "onnx", 0, &codes, q);
  arguments.nest = dynamic_nest(x, q, scale);
  if (return_row_sum) {
    arguments.sums = prepare_sum_codes(q, row_sum);
    arguments.sums_blocks = shape_of(row_sum) == scale_shape;
  }
  return arguments;
}

inline DequantizeArguments prepare_dequantize(const Tensor& q, const Tensor& scale, const OptionalTensor& zero_point,
                                              ScalarType dtype, const Outs<1>* given, Tensor& x) {
  constexpr const char* kOp = "dequantize";
  DequantizeArguments arguments{};
  arguments.q_type = check_codes(kOp, "q", q);
  check_scale(kOp, "q", q, scale, zero_point);
  arguments.x_type = check_float_type(kOp, "dtype", dtype);

  x = provide_like(kOp, "out", out_at(given, 0), dtype, {{"q", q}, {"scale", scale}, {"zero_point", zero_point}});
  arguments.nest = elementwise_nest(q, x, scale, zero_point);
  arguments.q = q.const_data_ptr();
  arguments.x = x.mutable_data_ptr();
  arguments.scale = scale.const_data_ptr<float>();
  arguments.zero_point = optional_data(zero_point);
  return arguments;
}

// Of fake_quantize, whose result has x's type (no `result_type` says so), and of fake_quantize_mask, whose result is
// bool.
inline FakeQuantizeArguments prepare_fake_quantize(const char* op, const Tensor& x, const Tensor& scale,
                                                   const OptionalTensor& zero_point, std::optional<int64_t> q_min,
                                                   std::optional<int64_t> q_max, ScalarType dtype,
                                                   const std::string& mode, int64_t seed,
                                                   std::optional<ScalarType> result_type, const Outs<1>* given,
                                                   Tensor& result) {
  FakeQuantizeArguments arguments{};
  arguments.x_type = check_float(op, "x", x);
  check_scale(op, "x", x, scale, zero_point);
  arguments.range = check_code_range(op, check_code_type(op, "dtype", dtype), q_min, q_max);
  arguments.mode = check_mode(op, mode);
  arguments.seed = seed;

  result = provide_like(op, "out", out_at(given, 0), result_type.value_or(x.scalar_type()),
                        {{"x", x}, {"scale", scale}, {"zero_point", zero_point}});
  arguments.nest = quantizing_nest(x, result, scale, zero_point, arguments.mode);
  arguments.x = x.const_data_ptr();
  arguments.result = result.mutable_data_ptr();
  arguments.scale = scale.const_data_ptr<float>();
  arguments.zero_point = optional_data(zero_point);
  return arguments;
}

}  // namespace quaver
