// dequantize.cpp: dequantize on the CPU, the last stage: codes and their parameters to a float tensor.
#include "cpu/kernels/dequantize.h"

#include "cpu/parallel.h"
#include "prepare.h"

namespace quaver {

Tensor dequantize_cpu(const Outs<1>* given, const Tensor& q, const Tensor& scale, OptionalTensor zero_point,
                      ScalarType dtype) {
  Tensor x;
  const DequantizeArguments arguments = prepare_dequantize(q, scale, zero_point, dtype, given, x);
  share(q.numel(), kElementsPerThread, [&](int64_t begin, int64_t end) { dequantize_elements(arguments, begin, end); });
  return x;
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { quaver::implement<quaver::dequantize_cpu>(m, "dequantize"); }
