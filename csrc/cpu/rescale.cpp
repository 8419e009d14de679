// rescale.cpp: rescale on the CPU: a matmul's last stage alone, int32 products to floats.
#include "cpu/kernels/rescale.h"

#include "cpu/parallel.h"
#include "prepare_requantize.h"

namespace quaver {

Tensor rescale_cpu(const Outs<1>* given, const Tensor& acc, const Tensor& a_scale, const Tensor& b_scale,
                   OptionalTensor bias, bool relu, ScalarType dtype) {
  Tensor y;
  const RescaleArguments arguments = prepare_rescale(acc, a_scale, b_scale, bias, relu, dtype, given, y);
  torch::stable::parallel_for(0, acc.numel(), kElementsPerThread,
                              [&](int64_t begin, int64_t end) { rescale_elements(arguments, begin, end); });
  return y;
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { quaver::implement<quaver::rescale_cpu>(m, "rescale"); }
