// prepare_requantize.h: from the tensors of requantize and rescale to checked kernel arguments and the tensor for their
// results; shared by the CPU and CUDA backends. Rows and columns are a matmul's: prepare_matmul.h.
#pragma once

#include "prepare_matmul.h"

namespace quaver {

// What is given for the rows and columns of acc; what is not stays empty.
struct ProductViews {
  VectorView<float> a_scale;
  VectorView<float> b_scale;
  VectorView<float> out_scale;
  VectorView<int32_t> out_zero_point;
  VectorView<float> bias;
  VectorView<int32_t> integer_bias;
};

// The loops over acc [..., M, N] and its results, in the order of their memory.
inline ProductNest product_nest(const Tensor& acc, const Tensor& result, const Shape& shape,
                                const ProductViews& views) {
  ProductNest nest;
  const int64_t rank = static_cast<int64_t>(shape.size());
  const int64_t missing = rank - acc.dim();
  for (int64_t dim = 0; dim < rank; ++dim) {
    const int64_t acc_stride = dim < missing ? 0 : acc.stride(dim - missing);
    const int64_t result_stride = dim < missing ? 0 : result.stride(dim - missing);
    if (dim < rank - 2) {
      nest.push(shape[dim],
                {acc_stride, result_stride, views.a_scale.batch_stride[dim], views.b_scale.batch_stride[dim],
                 views.out_scale.batch_stride[dim], views.out_zero_point.batch_stride[dim], 0});
    } else if (dim == rank - 2) {
      nest.push(shape[dim], {acc_stride, result_stride, views.a_scale.stride, 0, 0, 0, 0});
    } else {
      const int64_t bias_stride = views.bias.stride + views.integer_bias.stride;  // one of them is not given
      nest.push(shape[dim], {acc_stride, result_stride, 0, views.b_scale.stride, views.out_scale.stride,
                             views.out_zero_point.stride, bias_stride});
    }
  }
  nest.arrange(kProductResult);
  return nest;
}

// The shape of the rows and columns of int32 products.
inline Shape check_product(const char* op, const Tensor& acc) {
  check_rank(op, "acc", acc);
  QUAVER_CHECK(acc.scalar_type() == ScalarType::Int, op, "acc must be int32, got ", name_of(acc.scalar_type()));
  Shape shape = shape_of(acc);
  while (shape.size() < 2) shape.insert(shape.begin(), 1);  // a vector is a row
  return shape;
}

inline ProductViews scale_views(const char* op, const Tensor& acc, const Shape& shape, const Tensor& a_scale,
                                const Tensor& b_scale) {
  const Shape batch(shape.begin(), shape.end() - 2);
  ProductViews views;
  views.a_scale = vector_view<float>(op, {"a_scale", 0, shape, true}, a_scale, "acc", acc, batch);
  views.b_scale = vector_view<float>(op, {"b_scale", 1, shape, true}, b_scale, "acc", acc, batch);
  return views;
}

inline RequantizeArguments prepare_requantize(const Tensor& acc, const Tensor& a_scale, const Tensor& b_scale,
                                              const Tensor& out_scale, const OptionalTensor& out_zero_point,
                                              const OptionalTensor& bias, bool relu, ScalarType dtype,
                                              std::optional<int64_t> q_min, std::optional<int64_t> q_max,
                                              const std::string& mode, const Outs<1>* given, Tensor& q) {
  constexpr const char* kOp = "requantize";
  const Shape shape = check_product(kOp, acc);
  const Shape batch(shape.begin(), shape.end() - 2);
  ProductViews views = scale_views(kOp, acc, shape, a_scale, b_scale);
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
  return {product_nest(acc, q, shape, views),
          {acc.const_data_ptr<int32_t>(), q.mutable_data_ptr(), type, views.a_scale.data, views.b_scale.data,
           views.out_scale.data, views.out_zero_point.data, views.bias.data, views.integer_bias.data, relu, range,
           checked_mode}};
}

inline RescaleArguments prepare_rescale(const Tensor& acc, const Tensor& a_scale, const Tensor& b_scale,
                                        const OptionalTensor& bias, bool relu, ScalarType dtype, const Outs<1>* given,
                                        Tensor& y) {
  constexpr const char* kOp = "rescale";
  const Shape shape = check_product(kOp, acc);
  ProductViews views = scale_views(kOp, acc, shape, a_scale, b_scale);
  if (bias) views.bias = bias_view<float>(kOp, *bias, shape.back(), "acc", acc);
  const FloatType type = check_float_type(kOp, "dtype", dtype);
  y = provide_like(kOp, "out", out_at(given, 0), dtype,
                   {{"acc", acc}, {"a_scale", a_scale}, {"b_scale", b_scale}, {"bias", bias}});
  return {product_nest(acc, y, shape, views),
          {acc.const_data_ptr<int32_t>(), y.mutable_data_ptr(), type, views.a_scale.data, views.b_scale.data,
           views.bias.data, relu}};
}

}  // namespace quaver
