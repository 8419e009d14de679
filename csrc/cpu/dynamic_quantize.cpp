// dynamic_quantize.cpp: dynamic_quantize on the CPU: float tensor to codes, the parameters they were made with and,
// when asked, the sums of their rows. ARITHMETIC.md (5).
#include "cpu/kernels/dynamic_quantize.h"

#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "prepare.h"

namespace quaver {
namespace {

void sum_rows(const SumArguments& arguments) {
  const int64_t codes_per_sum = arguments.nest.numel() / std::max<int64_t>(arguments.sums, 1);
  share(arguments.sums, kElementsPerThread / (codes_per_sum + 1) + 1,
        [&](int64_t begin, int64_t end) { sum_codes(arguments, begin, end); });
}

// Each block by one thread; false where that would leave threads without work, or blocks are no runs.
bool quantize_blocks(const DynamicQuantizeArguments& arguments) {
  const BlockNest nest = split(arguments.nest);
  const int64_t blocks = nest.blocks.numel();
  const int64_t grain = kElementsPerThread / (nest.elements.numel() + 1) + 1;
  const bool enough = blocks >= torch::stable::get_num_threads() || nest.elements.numel() < kElementsPerThread;
  if (!nest.has_runs() || blocks == 0 || !enough) return false;
  share(blocks, grain, [&](int64_t begin, int64_t end) { dynamic_quantize_blocks(arguments, nest, begin, end); });
  return true;
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
  const bool done = quantize_blocks(arguments);
  if (!done) {
    choose_qparams_cpu(arguments.qparams);
    quantize_cpu(arguments.quantize);
  }
  if (return_row_sum && !(done && arguments.sums_blocks)) sum_rows(arguments.sums);
  return {results.q, results.scale, results.zero_point, results.row_sum};
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { quaver::implement<quaver::dynamic_quantize_cpu>(m, "dynamic_quantize"); }
