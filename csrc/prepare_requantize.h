// prepare_requantize.h: from requantize's tensors to checked kernel arguments and the tensor for its codes; shared by
// the CPU and CUDA backends. Rows and columns are a matmul's: prepare_matmul.h.
#pragma once

#include "prepare_matmul.h"

namespace quaver {

// What is given for the rows and columns of acc.
struct RequantizeViews {
  VectorView<float> a_scale;
  VectorView<float> b_scale;
  VectorView<float> out_scale;
  VectorView<int32_t> out_zero_point;
  VectorView<float> bias;
  VectorView<int32_t> integer_bias;
};

// The loops over acc [..., M, N] and q, in the order of q's memory.
inline RequantizeNest requantize_nest(const Tensor& acc, const Tensor& q, const Shape& shape,
                                      const RequantizeViews& views) {
  RequantizeNest nest;
  const int64_t rank = static_cast<int64_t>(shape.size());
  const int64_t missing = rank - acc.dim();
  for (int64_t dim = 0; dim < rank; ++dim) {
    const int64_t acc_stride = dim < missing ? 0 : acc.stride(dim - missing);
    const int64_t q_stride = dim < missing ? 0 : q.stride(dim - missing);
    if (dim < rank - 2) {
      nest.push(shape[dim], {acc_stride, q_stride, views.a_scale.batch_stride[dim], views.b_scale.batch_stride[dim],
                             views.out_scale.batch_stride[dim], views.out_zero_point.batch_stride[dim], 0});
    } else if (dim == rank - 2) {
      nest.push(shape[dim], {acc_stride, q_stride, views.a_scale.stride, 0, 0, 0, 0});
    } else {
      const int64_t bias_stride = views.bias.stride + views.integer_bias.stride;  // one of them is not given
      nest.push(shape[dim], {acc_stride, q_stride, 0, views.b_scale.stride, views.out_scale.stride,
                             views.out_zero_point.stride, bias_stride});
    }
  }
  nest.arrange(kRequantizeQ);
  return nest;
}

inline RequantizeArguments prepare_requantize(const Tensor& acc, const Tensor& a_scale, const Tensor& b_scale,
                                              const Tensor& out_scale, const OptionalTensor& out_zero_point,
                                              const OptionalTensor& bias, bool relu, ScalarType dtype,
                                              std::optional<int64_t> q_min, std::optional<int64_t> q_max,
                                              const std::string& mode, const Outs<1>* given, Tensor& q) {
  constexpr const char* kOp = "requantize";
  check_rank(kOp, "acc", acc);
  QUAVER_CHECK(acc.scalar_type() == ScalarType::Int, kOp, "acc must be int32, got ", name_of(acc.scalar_type()));
  Shape shape = shape_of(acc);
  while (shape.size() < 2) shape.insert(shape.begin(), 1);  // a vector is a row
  const Shape batch(shape.begin(), shape.end() - 2);
  RequantizeViews views;
  views.a_scale = vector_view<float>(kOp, {"a_scale", 0, shape, true}, a_scale, "acc", acc, batch);
  views.b_scale = vector_view<float>(kOp, {"b_scale", 1, shape, true}, b_scale, "acc", acc, batch);
  views.out_scale = vector_view<float>(kOp, {"out_scale", 1, shape, true}, out_scale, "acc", acc, batch);
  views.out_zero_point =
      vector_view<int32_t>(kOp, {"out_zero_point", 1, shape, true}, out_zero_point, "acc", acc, batch);
  if (bias && requantize_bias_type(mode) == ScalarType::Float)
    views.bias = bias_view<float>(kOp, *bias, shape.back(), "acc", acc);
  if (bias && requantize_bias_type(mode) == ScalarType::Int)
    views.integer_bias = bias_view<int32_t>(kOp, *bias, shape.back(), "acc", acc);
  const CodeType type = check_code_type(kOp, "dtype", dtype);
  const CodeRange range = check_code_range(kOp, type, q_min, q_max);
  const RequantizeMode checked_mode = check_requantize_mode(kOp, mode);

  q = provide_like(kOp, "out", out_at(given, 0), dtype,
                   {{"acc", acc},
                    {"a_scale", a_scale},
                    {"b_scale", b_scale},
                    {"out_scale", out_scale},
                    {"out_zero_point", out_zero_point},
                    {"bias", bias}});
  return {requantize_nest(acc, q, shape, views),
          {acc.const_data_ptr<int32_t>(), q.mutable_data_ptr(), type, views.a_scale.data, views.b_scale.data,
           views.out_scale.data, views.out_zero_point.data, views.bias.data, views.integer_bias.data, relu, range,
           checked_mode}};
}

}  // namespace quaver
