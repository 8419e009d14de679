// checks.h: what an op asks of its arguments, said once for the CPU and CUDA backends.
//
// A refusal is a RuntimeError that names the op, the argument, what was wanted and what came. python/quaver/fakes.py
// says the same words for the compiler, and the tests compare the two. Nothing here reads a tensor's data.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "layout.h"
#include "types.h"

namespace quaver {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Shape = std::vector<int64_t>;

template <class... Parts>
[[noreturn]] void refuse(const char* op, const Parts&... parts) {
  std::ostringstream words;
  words << "quaver::" << op << ": ";
  (words << ... << parts);
  throw std::runtime_error(words.str());
}

// STD_TORCH_CHECK would put this file's place on the build machine before the words.
#define QUAVER_CHECK(condition, op, ...) \
  if (__builtin_expect(!(condition), 0)) ::quaver::refuse(op, __VA_ARGS__)

inline const char* name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::ComplexFloat:
      return "complex64";
    case ScalarType::ComplexDouble:
      return "complex128";
    case ScalarType::Bool:
      return "bool";
    default:
      return "another dtype";
  }
}

template <class Sizes>
std::string to_words(const Sizes& sizes) {
  std::ostringstream words;
  words << '[';
  for (size_t i = 0; i < sizes.size(); ++i) words << (i ? ", " : "") << sizes[i];
  words << ']';
  return words.str();
}

inline std::string device_of(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  return (tensor.is_cuda() ? "cuda:" : "device ") + std::to_string(tensor.get_device_index());
}

inline Shape shape_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return Shape(sizes.begin(), sizes.end());
}

inline FloatType check_float_type(const char* op, const char* name, ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return FloatType::kFloat32;
    case ScalarType::Half:
      return FloatType::kFloat16;
    case ScalarType::BFloat16:
      return FloatType::kBFloat16;
    default:
      refuse(op, name, " must be float32, float16 or bfloat16, got ", name_of(type));
  }
}

inline CodeType check_code_type(const char* op, const char* name, ScalarType type) {
  switch (type) {
    case ScalarType::Char:
      return CodeType::kInt8;
    case ScalarType::Byte:
      return CodeType::kUint8;
    default:
      refuse(op, name, " must be int8 or uint8, got ", name_of(type));
  }
}

// None, where a schema asks for a tensor, arrives as one that is not defined.
inline void check_given(const char* op, const char* name, const Tensor& tensor) {
  QUAVER_CHECK(tensor.defined(), op, name, " must be a tensor, got None");
}

inline void check_rank(const char* op, const char* name, const Tensor& tensor) {
  check_given(op, name, tensor);
  QUAVER_CHECK(tensor.dim() <= kMaxRank, op, name, " must have at most ", kMaxRank, " dimensions, got ", tensor.dim());
}

inline FloatType check_float(const char* op, const char* name, const Tensor& tensor) {
  check_rank(op, name, tensor);
  return check_float_type(op, name, tensor.scalar_type());
}

inline CodeType check_codes(const char* op, const char* name, const Tensor& tensor) {
  check_rank(op, name, tensor);
  return check_code_type(op, name, tensor.scalar_type());
}

// An argument that goes with a tensor `like`: of one type, on the same device.
inline void check_companion(const char* op, const char* name, const Tensor& tensor, ScalarType type,
                            const char* like_name, const Tensor& like) {
  check_given(op, name, tensor);
  QUAVER_CHECK(tensor.scalar_type() == type, op, name, " must be ", name_of(type), ", got ",
               name_of(tensor.scalar_type()));
  QUAVER_CHECK(device_of(tensor) == device_of(like), op, name, " must be on ", device_of(like), " like ", like_name,
               ", got ", device_of(tensor));
}

// Of nothing there is one block or none: every number divides 0, but parameters for 2^40 empty blocks are none's wish.
inline bool divides(int64_t blocks, int64_t size) { return size == 0 ? blocks <= 1 : blocks > 0 && size % blocks == 0; }

template <class Sizes>
bool divides_shape(const Sizes& blocks, const Tensor& x) {
  if (static_cast<int64_t>(blocks.size()) != x.dim()) return false;
  for (int64_t dim = 0; dim < x.dim(); ++dim)
    if (blocks[dim] < 0 || !divides(blocks[dim], x.size(dim))) return false;
  return true;
}

inline void check_zero_point(const char* op, const char* name, const OptionalTensor& zero_point, const char* scale_name,
                             const Tensor& scale, const char* like_name, const Tensor& like) {
  if (!zero_point) return;
  check_companion(op, name, *zero_point, ScalarType::Int, like_name, like);
  const bool both_single = zero_point->numel() == 1 && scale.numel() == 1;
  QUAVER_CHECK(both_single || shape_of(*zero_point) == shape_of(scale), op, name, " must have the shape of ",
               scale_name, " ", to_words(shape_of(scale)), ", got ", to_words(shape_of(*zero_point)));
}

// Granularity is the shape of scale: one element, or sizes that divide x's.
inline void check_scale(const char* op, const char* x_name, const Tensor& x, const Tensor& scale,
                        const OptionalTensor& zero_point) {
  check_companion(op, "scale", scale, ScalarType::Float, x_name, x);
  QUAVER_CHECK(scale.numel() == 1 || divides_shape(scale.sizes(), x), op,
               "scale must have one element, or as many dimensions as ", x_name, " with sizes that divide its ",
               to_words(shape_of(x)), ", got ", to_words(shape_of(scale)));
  check_zero_point(op, "zero_point", zero_point, "scale", scale, x_name, x);
}

inline void check_scale_shape(const char* op, const Tensor& x, const Shape& scale_shape) {
  QUAVER_CHECK(divides_shape(scale_shape, x), op, "scale_shape must have as many sizes as x has dimensions, each ",
               "dividing x's ", to_words(shape_of(x)), ", got ", to_words(scale_shape));
}

inline CodeRange check_range(const char* op, CodeType type, CodeRange standard, std::optional<int64_t> q_min,
                             std::optional<int64_t> q_max) {
  const CodeRange full = full_range(type);
  const int64_t low = q_min.value_or(standard.q_min);
  const int64_t high = q_max.value_or(standard.q_max);
  QUAVER_CHECK(full.q_min <= low && low < high && high <= full.q_max, op, "q_min and q_max must satisfy ", full.q_min,
               " <= q_min < q_max <= ", full.q_max, " for ", type == CodeType::kInt8 ? "int8" : "uint8",
               ", got q_min=", low, " and q_max=", high);
  return {static_cast<int32_t>(low), static_cast<int32_t>(high)};
}

// The codes of quantize and of what requantizes: by default all of the type's.
inline CodeRange check_code_range(const char* op, CodeType type, std::optional<int64_t> q_min,
                                  std::optional<int64_t> q_max) {
  return check_range(op, type, full_range(type), q_min, q_max);
}

// The codes of choose_qparams and dynamic_quantize: symmetric ones are by default closed under negation.
inline CodeRange check_qparams_range(const char* op, CodeType type, bool symmetric, std::optional<int64_t> q_min,
                                     std::optional<int64_t> q_max) {
  if (!symmetric) return check_range(op, type, full_range(type), q_min, q_max);
  QUAVER_CHECK(type == CodeType::kInt8 || q_min == 0, op,
               "symmetric uint8 codes need q_min=0, which says that the data has one sign; ",
               "use asymmetric (symmetric=False) for data of both signs");
  const CodeRange standard = type == CodeType::kInt8 ? CodeRange{-127, 127} : full_range(type);
  const CodeRange range = check_range(op, type, standard, q_min, q_max);
  QUAVER_CHECK(range.q_min <= 0 && 0 < range.q_max, op,
               "symmetric codes need q_min <= 0 < q_max, got q_min=", range.q_min, " and q_max=", range.q_max);
  return range;
}

inline float check_eps(const char* op, std::optional<double> eps) {
  if (!eps) return 0.0f;
  constexpr double kLargest = std::numeric_limits<float>::max();
  QUAVER_CHECK(*eps > 0 && *eps <= kLargest, op, "eps must be positive and finite, got ", *eps);
  return static_cast<float>(*eps);
}

inline QuantizeMode check_mode(const char* op, const std::string& mode) {
  if (mode == "onnx") return QuantizeMode::kOnnx;
  if (mode == "affine") return QuantizeMode::kAffine;
  if (mode == "reciprocal") return QuantizeMode::kReciprocal;
  if (mode == "stochastic") return QuantizeMode::kStochastic;
  refuse(op, "mode must be 'onnx', 'affine', 'reciprocal' or 'stochastic', got '", mode, "'");
}

inline RequantizeMode check_requantize_mode(const char* op, const std::string& mode) {
  if (mode == "float") return RequantizeMode::kFloat;
  if (mode == "fixed") return RequantizeMode::kFixed;
  refuse(op, "mode must be 'float' or 'fixed', got '", mode, "'");
}

// In mode 'fixed' the bias is a part of the product, which it is added to.
inline ScalarType requantize_bias_type(const std::string& mode) {
  return mode == "fixed" ? ScalarType::Int : ScalarType::Float;
}

}  // namespace quaver
