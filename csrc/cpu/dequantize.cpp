// dequantize.cpp: dequantize on the CPU, the last stage: codes and their parameters to a float tensor.
#include <torch/csrc/stable/library.h>

#include "checks.h"
#include "cpu/kernels/dequantize.h"
#include "cpu/parallel.h"
#include "views.h"

namespace quaver {

Tensor dequantize_cpu(const Tensor& q, const Tensor& scale, OptionalTensor zero_point, ScalarType dtype) {
  constexpr const char* kOp = "dequantize";
  DequantizeArguments arguments{};
  arguments.q_type = check_codes(kOp, "q", q);
  check_scale(kOp, "q", q, scale, zero_point);
  arguments.x_type = check_float_type(kOp, "dtype", dtype);

  Tensor x = new_tensor_like(q, dtype);
  if (q.numel() == 0) return x;
  arguments.nest = elementwise_nest(q, x, scale, zero_point);
  arguments.q = q.const_data_ptr();
  arguments.x = x.mutable_data_ptr();
  arguments.scale = scale.const_data_ptr<float>();
  arguments.zero_point = optional_data(zero_point);
  torch::stable::parallel_for(0, q.numel(), kElementsPerThread,
                              [&](int64_t begin, int64_t end) { dequantize_elements(arguments, begin, end); });
  return x;
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { m.impl("dequantize", TORCH_BOX(&quaver::dequantize_cpu)); }
