// dynamic_quantize.cpp: dynamic_quantize on the CPU: float tensor to codes, the parameters they were made with and,
// when asked, the sums of their rows. ARITHMETIC.md (5).
#include "cpu/kernels/sum_codes.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "prepare.h"

namespace quaver {
namespace {

void sum_rows(const SumArguments& arguments) {
  const int64_t codes_per_sum = arguments.nest.numel() / std::max<int64_t>(arguments.sums, 1);
  torch::stable::parallel_for(0, arguments.sums, kElementsPerThread / (codes_per_sum + 1) + 1,
                              [&](int64_t begin, int64_t end) { sum_codes(arguments, begin, end); });
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> dynamic_quantize_cpu(const Outs<4>* given, const Tensor& x,
                                                                Shape scale_shape, bool symmetric, ScalarType dtype,
                                                                std::optional<int64_t> q_min,
                                                                std::optional<int64_t> q_max, std::optional<double> eps,
                                                                bool return_row_sum) {
  DynamicResults results;
  const DynamicQuantizeArguments arguments =
      prepare_dynamic_quantize(x, scale_shape, symmetric, dtype, q_min, q_max, eps, return_row_sum, given, results);
  choose_qparams_cpu(arguments.qparams);
  quantize_cpu(arguments.quantize);
  if (return_row_sum) sum_rows(arguments.sums);
  return {results.q, results.scale, results.zero_point, results.row_sum};
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { quaver::implement<quaver::dynamic_quantize_cpu>(m, "dynamic_quantize"); }
