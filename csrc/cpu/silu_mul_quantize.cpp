// silu_mul_quantize.cpp: silu_mul_quantize on the CPU: two float tensors to the codes of silu(gate) * up.
// ARITHMETIC.md (12).
#include "cpu/kernels/silu_mul_quantize.h"

#include "cpu/parallel.h"
#include "prepare_rows.h"

namespace quaver {

std::tuple<Tensor, Tensor, Tensor, Tensor> silu_mul_quantize_cpu(const Outs<4>* given, const Tensor& gate,
                                                                 const Tensor& up, bool symmetric, ScalarType dtype,
                                                                 std::optional<int64_t> q_min,
                                                                 std::optional<int64_t> q_max, bool return_row_sum) {
  RowResults results;
  const SiluMulArguments arguments =
      prepare_silu_mul_quantize(gate, up, {symmetric, dtype, q_min, q_max, return_row_sum}, given, results);
  const RowCodes& codes = arguments.data.codes;
  torch::stable::parallel_for(0, codes.rows, kElementsPerThread / (codes.length + 1) + 1,
                              [&](int64_t begin, int64_t end) { silu_mul_quantize_rows(arguments, begin, end); });
  return {results.q, results.scale, results.zero_point, results.row_sum};
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { quaver::implement<quaver::silu_mul_quantize_cpu>(m, "silu_mul_quantize"); }
