// quantize.cpp: quantize on the CPU: float tensor and given parameters to codes.
#include "cpu/kernels/quantize.h"

#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "prepare.h"

namespace quaver {

void quantize_cpu(const QuantizeArguments& arguments) {
  share(arguments.nest.numel(), kElementsPerThread,
        [&](int64_t begin, int64_t end) { quantize_elements(arguments, begin, end); });
}

namespace {

Tensor quantize_op(const Outs<1>* given, const Tensor& x, const Tensor& scale, OptionalTensor zero_point,
                   std::optional<int64_t> q_min, std::optional<int64_t> q_max, ScalarType dtype, std::string mode,
                   int64_t seed) {
  Tensor q;
  quantize_cpu(prepare_quantize(x, scale, zero_point, q_min, q_max, dtype, mode, seed, given, q));
  return q;
}

}  // namespace
}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { quaver::implement<quaver::quantize_op>(m, "quantize"); }
