// requantize.cpp: requantize on the CPU: the matmuls' last stage alone, int32 products to codes.
#include "cpu/kernels/requantize.h"

#include "cpu/parallel.h"
#include "prepare_requantize.h"

namespace quaver {

Tensor requantize_cpu(const Outs<1>* given, const Tensor& acc, const Tensor& a_scale, const Tensor& b_scale,
                      const Tensor& out_scale, OptionalTensor out_zero_point, OptionalTensor bias, bool relu,
                      ScalarType dtype, std::optional<int64_t> q_min, std::optional<int64_t> q_max, std::string mode) {
  Tensor q;
  const RequantizeArguments arguments = prepare_requantize(acc, a_scale, b_scale, out_scale, out_zero_point, bias, relu,
                                                           dtype, q_min, q_max, mode, given, q);
  torch::stable::parallel_for(0, acc.numel(), kElementsPerThread,
                              [&](int64_t begin, int64_t end) { requantize_elements(arguments, begin, end); });
  return q;
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { quaver::implement<quaver::requantize_cpu>(m, "requantize"); }
