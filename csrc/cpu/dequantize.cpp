// dequantize.cpp: dequantize on the CPU, the last stage: codes and their parameters to a float tensor.
#include "cpu/kernels/dequantize.h"

#include "cpu/parallel.h"
#include "prepare.h"

namespace quaver {

Tensor dequantize_cpu(const Tensor& q, const Tensor& scale, OptionalTensor zero_point, ScalarType dtype) {
  Tensor x;
  const DequantizeArguments arguments = prepare_dequantize(q, scale, zero_point, dtype, x);
  torch::stable::parallel_for(0, q.numel(), kElementsPerThread,
                              [&](int64_t begin, int64_t end) { dequantize_elements(arguments, begin, end); });
  return x;
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { m.impl("dequantize", TORCH_BOX(&quaver::dequantize_cpu)); }
