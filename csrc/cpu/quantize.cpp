// quantize.cpp: quantize on the CPU: float tensor and given parameters to codes.
#include <torch/csrc/stable/library.h>

#include "checks.h"
#include "cpu/kernels/quantize.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "views.h"

namespace quaver {

Tensor quantize_cpu(const Tensor& x, const Tensor& scale, OptionalTensor zero_point, std::optional<int64_t> q_min,
                    std::optional<int64_t> q_max, ScalarType dtype, std::string mode, int64_t /*seed*/) {
  constexpr const char* kOp = "quantize";
  QuantizeArguments arguments{};
  arguments.x_type = check_float(kOp, "x", x);
  check_scale(kOp, "x", x, scale, zero_point);
  arguments.q_type = check_code_type(kOp, "dtype", dtype);
  arguments.range = check_code_range(kOp, arguments.q_type, q_min, q_max);
  arguments.mode = check_mode(kOp, mode);

  Tensor q = new_tensor_like(x, dtype);
  if (x.numel() == 0) return q;
  arguments.nest = elementwise_nest(x, q, scale, zero_point);
  arguments.x = x.const_data_ptr();
  arguments.q = q.mutable_data_ptr();
  arguments.scale = scale.const_data_ptr<float>();
  arguments.zero_point = optional_data(zero_point);
  torch::stable::parallel_for(0, x.numel(), kElementsPerThread,
                              [&](int64_t begin, int64_t end) { quantize_elements(arguments, begin, end); });
  return q;
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { m.impl("quantize", TORCH_BOX(&quaver::quantize_cpu)); }
