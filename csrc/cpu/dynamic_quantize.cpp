// dynamic_quantize.cpp: dynamic_quantize on the CPU: float tensor to codes, the parameters they were made with and,
// when asked, the sums of their rows. ARITHMETIC.md (5).
#include <torch/csrc/stable/library.h>

#include "cpu/kernels/element_types.h"
#include "cpu/kernels/walk.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "views.h"

namespace quaver {
namespace {

template <class Code>
int32_t sum_codes(const Code* codes, int64_t stride, int64_t n) {
  uint32_t sum = 0;
  vectorized([&]() QUAVER_INLINE {
    const auto loop = [&](auto step) QUAVER_INLINE {
      for (int64_t i = 0; i < n; ++i) sum += static_cast<uint32_t>(static_cast<int32_t>(codes[i * step]));
    };
    if (stride == 1) return loop(std::integral_constant<int64_t, 1>{});
    loop(stride);
  });
  return static_cast<int32_t>(sum);
}

// q [..., K] to [..., 1]: the sum of each row's codes.
Tensor sum_rows(const Tensor& q, CodeType type) {
  Shape shape = shape_of(q);
  shape.back() = 1;
  Tensor sums = new_tensor(q, shape, ScalarType::Int);
  int32_t* results = sums.mutable_data_ptr<int32_t>();
  const int64_t k = q.size(q.dim() - 1);
  const int64_t k_stride = q.stride(q.dim() - 1);

  ReductionNest rows;  // q's rows in the order of the results
  for (int64_t dim = 0; dim + 1 < q.dim(); ++dim) rows.push(q.size(dim), {q.stride(dim), sums.stride(dim)});
  const int64_t grain = kElementsPerThread / std::max<int64_t>(k, 1) + 1;
  with_type(type, [&](auto tag) {
    using Code = typename decltype(tag)::type;
    const Code* codes = static_cast<const Code*>(q.const_data_ptr());
    torch::stable::parallel_for(0, sums.numel(), grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        int64_t offset[kReductionOperands];
        rows.offsets(row, offset);
        results[offset[kResult]] = sum_codes(codes + offset[kReduced], k_stride, k);
      }
    });
  });
  return sums;
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> dynamic_quantize_cpu(const Tensor& x, Shape scale_shape, bool symmetric,
                                                                ScalarType dtype, std::optional<int64_t> q_min,
                                                                std::optional<int64_t> q_max, std::optional<double> eps,
                                                                bool return_row_sum) {
  constexpr const char* kOp = "dynamic_quantize";
  check_dynamic_quantize(kOp, x, scale_shape, return_row_sum);
  const CodeType type = check_code_type(kOp, "dtype", dtype);
  const CodeRange range = check_qparams_range(kOp, type, symmetric, q_min, q_max);
  check_eps(kOp, eps);

  auto [scale, zero_point] = choose_qparams_cpu(x, scale_shape, symmetric, dtype, range.q_min, range.q_max, eps);
  Tensor q = quantize_cpu(x, scale, zero_point, range.q_min, range.q_max, dtype, "onnx", 0);
  Tensor row_sum = return_row_sum ? sum_rows(q, type) : new_tensor(x, {0}, ScalarType::Int);
  return {q, scale, zero_point, row_sum};
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { m.impl("dynamic_quantize", TORCH_BOX(&quaver::dynamic_quantize_cpu)); }
