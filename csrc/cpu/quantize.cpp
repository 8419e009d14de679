// quantize.cpp: quantize on the CPU: float tensor and given parameters to codes.
#include "cpu/kernels/quantize.h"

#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "prepare.h"

namespace quaver {

Tensor quantize_cpu(const Tensor& x, const Tensor& scale, OptionalTensor zero_point, std::optional<int64_t> q_min,
                    std::optional<int64_t> q_max, ScalarType dtype, std::string mode, int64_t seed) {
  Tensor q;
  const QuantizeArguments arguments = prepare_quantize(x, scale, zero_point, q_min, q_max, dtype, mode, seed, q);
  torch::stable::parallel_for(0, x.numel(), kElementsPerThread,
                              [&](int64_t begin, int64_t end) { quantize_elements(arguments, begin, end); });
  return q;
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { m.impl("quantize", TORCH_BOX(&quaver::quantize_cpu)); }
