// dynamic_quantize.cpp: dynamic_quantize on the CPU: float tensor to codes, the parameters they were made with and,
// when asked, the sums of their rows. ARITHMETIC.md (5).
#include "cpu/kernels/sum_codes.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "prepare.h"

namespace quaver {
namespace {

Tensor sum_rows(const Tensor& q) {
  Tensor sum;
  const SumArguments arguments = prepare_sum_codes(q, q.dim() - 1, sum);
  const int64_t codes_per_sum = q.size(q.dim() - 1);
  torch::stable::parallel_for(0, arguments.sums, kElementsPerThread / (codes_per_sum + 1) + 1,
                              [&](int64_t begin, int64_t end) { sum_codes(arguments, begin, end); });
  return sum;
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> dynamic_quantize_cpu(const Tensor& x, Shape scale_shape, bool symmetric,
                                                                ScalarType dtype, std::optional<int64_t> q_min,
                                                                std::optional<int64_t> q_max, std::optional<double> eps,
                                                                bool return_row_sum) {
  const CodeRange range = prepare_dynamic_quantize(x, scale_shape, symmetric, dtype, q_min, q_max, eps, return_row_sum);
  auto [scale, zero_point] = choose_qparams_cpu(x, scale_shape, symmetric, dtype, range.q_min, range.q_max, eps);
  Tensor q = quantize_cpu(x, scale, zero_point, range.q_min, range.q_max, dtype, "onnx", 0);
  Tensor row_sum = return_row_sum ? sum_rows(q) : new_tensor(x, {0}, ScalarType::Int);
  return {q, scale, zero_point, row_sum};
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { m.impl("dynamic_quantize", TORCH_BOX(&quaver::dynamic_quantize_cpu)); }
