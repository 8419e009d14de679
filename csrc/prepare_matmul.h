// prepare_matmul.h: from a matmul's tensors to a checked MatmulProblem; shared by the CPU and CUDA backends.
#pragma once

#include <type_traits>

#include "checks.h"
#include "matmul_problem.h"
#include "prepare.h"

namespace quaver {

// The arguments of the three matmul ops under one roof; what an op does not have stays empty.
struct MatmulArguments {
  const char* op;
  const Tensor& a;
  const Tensor& b;
  OptionalTensor a_zero_point, b_zero_point, a_sum, b_sum;
  OptionalTensor a_scale, b_scale, out_scale, out_zero_point, bias;
  bool relu = false;
  ScalarType bias_type = ScalarType::Float;
};

inline MatmulArguments int8_matmul_arguments(const Tensor& a, const Tensor& b, OptionalTensor a_zero_point,
                                             OptionalTensor b_zero_point, OptionalTensor a_sum, OptionalTensor b_sum) {
  return {"int8_matmul", a, b, a_zero_point, b_zero_point, a_sum, b_sum};
}

inline MatmulArguments int8_matmul_dequantize_arguments(const Tensor& a, const Tensor& b, const Tensor& a_scale,
                                                        const Tensor& b_scale, OptionalTensor a_zero_point,
                                                        OptionalTensor b_zero_point, OptionalTensor a_sum,
                                                        OptionalTensor b_sum, OptionalTensor bias, bool relu) {
  MatmulArguments arguments{"int8_matmul_dequantize", a, b, a_zero_point, b_zero_point, a_sum, b_sum};
  arguments.a_scale = a_scale;
  arguments.b_scale = b_scale;
  arguments.bias = bias;
  arguments.relu = relu;
  return arguments;
}

inline MatmulArguments int8_matmul_requantize_arguments(const Tensor& a, const Tensor& b, const Tensor& a_scale,
                                                        const Tensor& b_scale, const Tensor& out_scale,
                                                        OptionalTensor a_zero_point, OptionalTensor b_zero_point,
                                                        OptionalTensor out_zero_point, OptionalTensor a_sum,
                                                        OptionalTensor b_sum, OptionalTensor bias, bool relu,
                                                        const std::string& mode) {
  MatmulArguments arguments =
      int8_matmul_dequantize_arguments(a, b, a_scale, b_scale, a_zero_point, b_zero_point, a_sum, b_sum, bias, relu);
  arguments.op = "int8_matmul_requantize";
  arguments.out_scale = out_scale;
  arguments.out_zero_point = out_zero_point;
  arguments.bias_type = requantize_bias_type(mode);
  return arguments;
}

// The largest K whose exact sum fits in int32: (2^31 - 1) over the largest product of two codes less their zero points.
inline int64_t largest_k(CodeType a, CodeType b, bool zero_points) {
  constexpr int64_t kLargest = 2147483647;
  const int64_t unsigned_operands = (a == CodeType::kUint8) + (b == CodeType::kUint8);
  if (zero_points || unsigned_operands == 2) return kLargest / (255 * 255);
  return kLargest / (unsigned_operands == 1 ? 255 * 128 : 128 * 128);
}

inline MatmulOutput output_of(FloatType type) {
  switch (type) {
    case FloatType::kFloat32:
      return MatmulOutput::kFloat32;
    case FloatType::kFloat16:
      return MatmulOutput::kFloat16;
    default:
      return MatmulOutput::kBFloat16;
  }
}

inline MatmulOutput output_of(CodeType type) {
  return type == CodeType::kInt8 ? MatmulOutput::kInt8 : MatmulOutput::kUint8;
}

inline const char* code_type_name(CodeType type) { return type == CodeType::kInt8 ? "int8" : "uint8"; }

inline void check_k(const char* op, int64_t k, CodeType a, CodeType b, bool zero_points) {
  const int64_t bound = largest_k(a, b, zero_points);
  QUAVER_CHECK(k <= bound, op, "K must be at most ", bound, " for ", code_type_name(a), " x ", code_type_name(b),
               zero_points ? " with" : " without", " zero points, so that every sum is exact in int32, got ", k);
}

// The batch that a and b broadcast to, as torch.matmul does.
inline Shape broadcast_batch(const char* op, const Tensor& a, const Tensor& b) {
  const int64_t dims = std::max(a.dim(), b.dim()) - 2;
  Shape batch(dims);
  for (int64_t i = 0; i < dims; ++i) {  // from the last batch dimension backwards
    const int64_t a_size = i < a.dim() - 2 ? a.size(a.dim() - 3 - i) : 1;
    const int64_t b_size = i < b.dim() - 2 ? b.size(b.dim() - 3 - i) : 1;
    QUAVER_CHECK(a_size == b_size || a_size == 1 || b_size == 1, op, "the batch dimensions of a ",
                 to_words(shape_of(a)), " and b ", to_words(shape_of(b)), " must broadcast");
    batch[dims - 1 - i] = a_size == 1 ? b_size : a_size;
  }
  return batch;
}

// Strides over the batch of a tensor whose leading dimensions broadcast to it; 0 where it repeats.
inline void batch_strides(const Tensor& tensor, const Shape& batch, int64_t (&stride)[kMaxBatchDims]) {
  const int64_t dims = static_cast<int64_t>(batch.size());
  const int64_t missing = dims - (tensor.dim() - 2);
  for (int64_t dim = 0; dim < dims; ++dim) {
    const bool repeats = dim < missing || tensor.size(dim - missing) == 1;
    stride[dim] = repeats ? 0 : tensor.stride(dim - missing);
  }
}

inline MatrixView matrix_view(const Tensor& tensor, const Shape& batch) {
  MatrixView view;
  view.data = tensor.const_data_ptr();
  batch_strides(tensor, batch, view.batch_stride);
  view.row_stride = tensor.stride(tensor.dim() - 2);
  view.column_stride = tensor.stride(tensor.dim() - 1);
  return view;
}

// A value for each row ([..., M, 1], axis 0) or each column ([..., 1, N], axis 1) of the product.
struct AxisValues {
  const char* name;
  int axis;
  const Shape& out_shape;
  bool single_allowed;
};

inline void check_axis_values(const char* op, const AxisValues& values, const Tensor& tensor) {
  if (values.single_allowed && tensor.numel() == 1) return;
  const int64_t rank = static_cast<int64_t>(values.out_shape.size());
  Shape wanted = values.out_shape;
  wanted[rank - 1 - values.axis] = 1;
  bool fits = tensor.dim() >= 2 && tensor.dim() <= rank;
  for (int64_t i = 1; fits && i <= tensor.dim(); ++i) {
    const int64_t size = tensor.size(tensor.dim() - i);
    const bool batch_repeats = i > 2 && size == 1;
    fits = size == wanted[rank - i] || batch_repeats;
  }
  QUAVER_CHECK(fits, op, values.name, " must have ", values.single_allowed ? "one element or " : "", "the shape ",
               to_words(wanted), " (", values.axis == 0 ? "a row's value [..., M, 1]" : "a column's value [..., 1, N]",
               "), got ", to_words(shape_of(tensor)));
}

template <class T>
inline constexpr ScalarType kTypeOf = std::is_same_v<T, float> ? ScalarType::Float : ScalarType::Int;

template <class T>
VectorView<T> vector_view(const char* op, const AxisValues& values, const OptionalTensor& tensor, const char* like_name,
                          const Tensor& like, const Shape& batch) {
  VectorView<T> view;
  if (!tensor) return view;
  check_companion(op, values.name, *tensor, kTypeOf<T>, like_name, like);
  check_axis_values(op, values, *tensor);
  view.data = tensor->const_data_ptr<T>();
  if (values.single_allowed && tensor->numel() == 1) return view;
  batch_strides(*tensor, batch, view.batch_stride);
  view.stride = tensor->stride(tensor->dim() - 2 + values.axis);
  return view;
}

// The sums of an operand's own codes, as the kernels take them.
inline VectorView<int32_t> sum_view(const Tensor& sum, int axis, const Shape& batch) {
  VectorView<int32_t> view;
  view.data = sum.const_data_ptr<int32_t>();
  batch_strides(sum, batch, view.batch_stride);
  view.stride = sum.stride(sum.dim() - 2 + axis);
  return view;
}

// The product's bias [N], of the type that the op asks for.
template <class T>
VectorView<T> bias_view(const char* op, const Tensor& bias, int64_t n, const char* like_name, const Tensor& like) {
  check_companion(op, "bias", bias, kTypeOf<T>, like_name, like);
  QUAVER_CHECK(shape_of(bias) == Shape{n}, op, "bias must have the shape [", n, "], got ", to_words(shape_of(bias)));
  VectorView<T> view;
  view.data = bias.const_data_ptr<T>();
  view.stride = bias.stride(0);
  return view;
}

template <class T>
bool folds_into_rows(const VectorView<T>& view, int dim, int64_t m) {
  return view.batch_stride[dim] == m * view.stride;
}

// a [B, M, K] times one b [K, N] is a matmul of B * M rows: the fewer batches, the better a kernel's tiles are filled.
inline void fold_batch_into_rows(MatmulProblem& problem) {
  while (problem.batch_dims > 0) {
    const int dim = problem.batch_dims - 1;
    const bool one_b = problem.b.batch_stride[dim] == 0 && problem.b_zero_point.batch_stride[dim] == 0 &&
                       problem.b_sum.batch_stride[dim] == 0 && problem.b_scale.batch_stride[dim] == 0 &&
                       problem.out_scale.batch_stride[dim] == 0 && problem.out_zero_point.batch_stride[dim] == 0;
    const bool rows_in_step = problem.a.batch_stride[dim] == problem.m * problem.a.row_stride &&
                              folds_into_rows(problem.a_zero_point, dim, problem.m) &&
                              folds_into_rows(problem.a_sum, dim, problem.m) &&
                              folds_into_rows(problem.a_scale, dim, problem.m);
    if (!one_b || !rows_in_step) return;
    problem.m *= problem.batch_size[dim];
    --problem.batch_dims;
  }
}

inline Shape matmul_out_shape(const MatmulArguments& arguments) {
  const char* op = arguments.op;
  const Tensor& a = arguments.a;
  const Tensor& b = arguments.b;
  QUAVER_CHECK(a.dim() >= 2, op, "a must have at least 2 dimensions, got ", a.dim());
  QUAVER_CHECK(b.dim() >= 2, op, "b must have at least 2 dimensions, got ", b.dim());
  QUAVER_CHECK(a.size(a.dim() - 1) == b.size(b.dim() - 2), op, "a [..., M, K] and b [..., K, N] must share K, got a ",
               to_words(shape_of(a)), " and b ", to_words(shape_of(b)));
  Shape out = broadcast_batch(op, a, b);
  out.push_back(a.size(a.dim() - 2));
  out.push_back(b.size(b.dim() - 1));
  return out;
}

// Checks every argument and describes the product; the output is left to the ops below.
inline MatmulProblem matmul_problem(const MatmulArguments& arguments, Shape& out_shape) {
  const char* op = arguments.op;
  const Tensor& a = arguments.a;
  const Tensor& b = arguments.b;
  MatmulProblem problem;
  problem.a_type = check_codes(op, "a", a);
  problem.b_type = check_codes(op, "b", b);
  check_companion(op, "b", b, b.scalar_type(), "a", a);
  out_shape = matmul_out_shape(arguments);
  problem.m = a.size(a.dim() - 2);
  problem.n = b.size(b.dim() - 1);
  problem.k = a.size(a.dim() - 1);
  const bool zero_points = arguments.a_zero_point || arguments.b_zero_point;
  check_k(op, problem.k, problem.a_type, problem.b_type, zero_points);

  const Shape batch(out_shape.begin(), out_shape.end() - 2);
  problem.batch_dims = static_cast<int32_t>(batch.size());
  std::copy(batch.begin(), batch.end(), problem.batch_size);
  problem.a = matrix_view(a, batch);
  problem.b = matrix_view(b, batch);

  const auto rows = [&](const char* name, bool single) { return AxisValues{name, 0, out_shape, single}; };
  const auto columns = [&](const char* name, bool single) { return AxisValues{name, 1, out_shape, single}; };
  const auto floats = [&](const AxisValues& values, const OptionalTensor& tensor) {
    return vector_view<float>(op, values, tensor, "a", a, batch);
  };
  const auto ints = [&](const AxisValues& values, const OptionalTensor& tensor) {
    return vector_view<int32_t>(op, values, tensor, "a", a, batch);
  };
  problem.a_scale = floats(rows("a_scale", true), arguments.a_scale);
  problem.b_scale = floats(columns("b_scale", true), arguments.b_scale);
  problem.out_scale = floats(columns("out_scale", true), arguments.out_scale);
  problem.a_zero_point = ints(rows("a_zero_point", true), arguments.a_zero_point);
  problem.b_zero_point = ints(columns("b_zero_point", true), arguments.b_zero_point);
  problem.out_zero_point = ints(columns("out_zero_point", true), arguments.out_zero_point);
  problem.a_sum = ints(rows("a_sum", false), arguments.a_sum);
  problem.b_sum = ints(columns("b_sum", false), arguments.b_sum);
  if (arguments.bias && arguments.bias_type == ScalarType::Float)
    problem.bias = bias_view<float>(op, *arguments.bias, problem.n, "a", a);
  if (arguments.bias && arguments.bias_type == ScalarType::Int)
    problem.integer_bias = bias_view<int32_t>(op, *arguments.bias, problem.n, "a", a);
  problem.relu = arguments.relu;
  return problem;
}

// Checks or makes the result, last of all.
inline void provide_out(MatmulProblem& problem, const MatmulArguments& arguments, const Shape& shape, ScalarType type,
                        const Outs<1>* given, Tensor& out) {
  out = provide(arguments.op, "out", out_at(given, 0), shape, type,
                {{"a", arguments.a},
                 {"b", arguments.b},
                 {"a_scale", arguments.a_scale},
                 {"b_scale", arguments.b_scale},
                 {"out_scale", arguments.out_scale},
                 {"a_zero_point", arguments.a_zero_point},
                 {"b_zero_point", arguments.b_zero_point},
                 {"out_zero_point", arguments.out_zero_point},
                 {"a_sum", arguments.a_sum},
                 {"b_sum", arguments.b_sum},
                 {"bias", arguments.bias}});
  problem.out = out.mutable_data_ptr();
}

inline MatmulProblem prepare_matmul(const MatmulArguments& arguments, const Outs<1>* given, Tensor& out) {
  Shape shape;
  MatmulProblem problem = matmul_problem(arguments, shape);
  problem.out_type = MatmulOutput::kInt32;
  provide_out(problem, arguments, shape, ScalarType::Int, given, out);
  return problem;
}

inline MatmulProblem prepare_matmul_dequantize(const MatmulArguments& arguments, ScalarType dtype, const Outs<1>* given,
                                               Tensor& out) {
  Shape shape;
  MatmulProblem problem = matmul_problem(arguments, shape);
  problem.out_type = output_of(check_float_type(arguments.op, "dtype", dtype));
  provide_out(problem, arguments, shape, dtype, given, out);
  return problem;
}

inline MatmulProblem prepare_matmul_requantize(const MatmulArguments& arguments, ScalarType dtype,
                                               std::optional<int64_t> q_min, std::optional<int64_t> q_max,
                                               const std::string& mode, const Outs<1>* given, Tensor& out) {
  Shape shape;
  MatmulProblem problem = matmul_problem(arguments, shape);
  const CodeType type = check_code_type(arguments.op, "dtype", dtype);
  problem.out_type = output_of(type);
  problem.range = check_code_range(arguments.op, type, q_min, q_max);
  problem.mode = check_requantize_mode(arguments.op, mode);
  provide_out(problem, arguments, shape, dtype, given, out);
  return problem;
}

// The batch of a product's result.
inline Shape batch_of(const MatmulProblem& problem) {
  return Shape(problem.batch_size, problem.batch_size + problem.batch_dims);
}

}  // namespace quaver
