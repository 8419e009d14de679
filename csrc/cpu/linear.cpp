// linear.cpp: int8_linear on the CPU: a whole linear layer, float in and float out, int8 in between. Its rows become
// codes side by side, and those are multiplied where they lie.
#include "cpu/kernels/linear_rows.h"
#include "cpu/ops.h"
#include "cpu/packed.h"
#include "cpu/parallel.h"
#include "prepare_linear.h"
#include "prepare_rows.h"

namespace quaver {
namespace {

LinearRows quantized_rows(const Tensor& x, bool symmetric) {
  constexpr const char* kOp = "int8_linear";
  LinearRows rows;
  rows.nest = row_nest(x, x);
  rows.x = x.const_data_ptr();
  rows.x_type = check_float(kOp, "x", x);
  rows.step = inner_step(x);
  rows.count = rows.nest.numel();
  rows.length = x.size(x.dim() - 1);
  rows.symmetric = symmetric;
  rows.range = check_qparams_range(kOp, CodeType::kInt8, symmetric, std::nullopt, std::nullopt);
  rows.allocate();
  share(rows.count, kElementsPerThread / (rows.length + 1) + 1,
        [&](int64_t begin, int64_t end) { quantize_linear_rows(rows, begin, end); });
  return rows;
}

// The weight's panels, or null where they were not given.
const uint8_t* packed_weight(const OptionalTensor& packed, const Tensor& weight_q) {
  constexpr const char* kOp = "int8_linear";
  constexpr const char* kName = "weight_packed";
  if (!packed) return nullptr;
  check_companion(kOp, kName, *packed, ScalarType::Char, "weight_q", weight_q);
  return packed_panels(kOp, kName, *packed, weight_q.size(1), weight_q.size(0));
}

}  // namespace

Tensor int8_linear_cpu(const Outs<1>* given, const Tensor& x, const Tensor& weight_q, const Tensor& weight_scale,
                       OptionalTensor bias, OptionalTensor weight_sum, bool symmetric, bool relu,
                       std::optional<ScalarType> dtype, OptionalTensor weight_packed) {
  const LinearArguments linear =
      prepare_linear(x, weight_q, weight_scale, bias, weight_sum, symmetric, relu, dtype, given);
  const uint8_t* packed = packed_weight(weight_packed, weight_q);
  if (linear.out.numel() == 0) return linear.out;
  const LinearRows rows = quantized_rows(linear.rows, symmetric);
  MatmulProblem product = linear_product(linear, bias);
  product.m = rows.count;
  product.a.data = rows.q.get();
  product.a.row_stride = rows.pitch;
  product.a.column_stride = 1;
  product.a_scale = {rows.scale.get(), {}, 1};
  if (!symmetric) product.a_zero_point = {rows.zero_point.get(), {}, 1};
  product.out = linear.out.mutable_data_ptr();
  multiply_cpu(product, packed, true);
  return linear.out;
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { quaver::implement<quaver::int8_linear_cpu>(m, "int8_linear"); }
