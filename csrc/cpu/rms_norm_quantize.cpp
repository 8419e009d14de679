// rms_norm_quantize.cpp: rms_norm_quantize on the CPU: float tensor, normalized row by row, to codes. ARITHMETIC.md
// (11).
#include "cpu/kernels/rms_norm_quantize.h"

#include "cpu/parallel.h"
#include "prepare_rows.h"

namespace quaver {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> rms_norm_quantize_cpu(
    const Outs<5>* given, const Tensor& x, const Tensor& weight, OptionalTensor residual, double eps, bool symmetric,
    ScalarType dtype, std::optional<int64_t> q_min, std::optional<int64_t> q_max, bool return_row_sum) {
  RowResults results;
  Tensor residual_out, contiguous_weight;
  const RmsNormArguments arguments =
      prepare_rms_norm_quantize(x, weight, residual, eps, {symmetric, dtype, q_min, q_max, return_row_sum}, given,
                                results, residual_out, contiguous_weight);
  const std::vector<float> weights = widened_weight(arguments.data);
  const RowCodes& codes = arguments.data.codes;
  torch::stable::parallel_for(
      0, codes.rows, kElementsPerThread / (codes.length + 1) + 1,
      [&](int64_t begin, int64_t end) { rms_norm_quantize_rows(arguments, weights.data(), begin, end); });
  return {results.q, results.scale, results.zero_point, results.row_sum, residual_out};
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { quaver::implement<quaver::rms_norm_quantize_cpu>(m, "rms_norm_quantize"); }
