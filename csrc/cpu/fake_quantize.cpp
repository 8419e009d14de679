// fake_quantize.cpp: fake_quantize on the CPU: float tensor through codes to a float tensor, and the mask of its
// gradient.
#include "cpu/kernels/fake_quantize.h"

#include "cpu/parallel.h"
#include "prepare.h"

namespace quaver {

Tensor fake_quantize_cpu(const Outs<1>* given, const Tensor& x, const Tensor& scale, OptionalTensor zero_point,
                         std::optional<int64_t> q_min, std::optional<int64_t> q_max, ScalarType dtype, std::string mode,
                         int64_t seed) {
  Tensor y;
  const FakeQuantizeArguments arguments = prepare_fake_quantize("fake_quantize", x, scale, zero_point, q_min, q_max,
                                                                dtype, mode, seed, std::nullopt, given, y);
  share(x.numel(), kElementsPerThread,
        [&](int64_t begin, int64_t end) { fake_quantize_elements(arguments, begin, end); });
  return y;
}

Tensor fake_quantize_mask_cpu(const Outs<1>* given, const Tensor& x, const Tensor& scale, OptionalTensor zero_point,
                              std::optional<int64_t> q_min, std::optional<int64_t> q_max, ScalarType dtype,
                              std::string mode, int64_t seed) {
  Tensor mask;
  const FakeQuantizeArguments arguments = prepare_fake_quantize(
      "fake_quantize_mask", x, scale, zero_point, q_min, q_max, dtype, mode, seed, ScalarType::Bool, given, mask);
  share(x.numel(), kElementsPerThread,
        [&](int64_t begin, int64_t end) { fake_quantize_mask_elements(arguments, begin, end); });
  return mask;
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) {
  quaver::implement<quaver::fake_quantize_cpu>(m, "fake_quantize");
  quaver::implement<quaver::fake_quantize_mask_cpu>(m, "fake_quantize_mask");
}
