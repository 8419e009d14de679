// views.h: from checked tensors to the nests and views that kernels walk over; shared by the CPU and CUDA backends.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <array>

#include "checks.h"
#include "layout.h"

namespace quaver {

inline Tensor new_tensor(const Tensor& like, const Shape& shape, ScalarType type) {
  return torch::stable::new_empty(like, {shape.data(), shape.size()}, type);
}

// A tensor of another type laid out like x, as torch.empty_like makes it: dense tensors keep their strides.
inline Tensor new_tensor_like(const Tensor& x, ScalarType type) {
  using torch::stable::detail::from;
  std::array<StableIValue, 6> stack{from(x),           from(std::optional<ScalarType>(type)), from(std::nullopt),
                                    from(std::nullopt), from(std::nullopt),                    from(std::nullopt)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::empty_like", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

inline const int32_t* optional_data(const OptionalTensor& tensor) {
  return tensor ? tensor->const_data_ptr<int32_t>() : nullptr;
}

// The loops over two tensors of one shape and the parameters of its blocks, in the order of the target's memory.
inline ElementwiseNest elementwise_nest(const Tensor& source, const Tensor& target, const Tensor& scale,
                                        const OptionalTensor& zero_point) {
  ElementwiseNest nest;
  const bool per_tensor = scale.numel() == 1;
  for (int64_t dim = 0; dim < source.dim(); ++dim) {
    const int64_t blocks = per_tensor ? 1 : scale.size(dim);
    const int64_t block = source.size(dim) / std::max<int64_t>(blocks, 1);
    const int64_t source_stride = source.stride(dim);
    const int64_t target_stride = target.stride(dim);
    const int64_t scale_stride = per_tensor ? 0 : scale.stride(dim);
    const int64_t zero_point_stride = per_tensor || !zero_point ? 0 : zero_point->stride(dim);
    nest.push(blocks, {source_stride * block, target_stride * block, scale_stride, zero_point_stride});
    nest.push(block, {source_stride, target_stride, 0, 0});
  }
  nest.arrange(kTarget);
  return nest;
}

// The loops of a reduction of x to a contiguous tensor whose sizes divide x's, in the order of x's memory.
inline ReductionNest reduction_nest(const Tensor& x, const Tensor& result) {
  ReductionNest nest;
  for (int64_t dim = 0; dim < x.dim(); ++dim) {
    const int64_t blocks = result.size(dim);
    const int64_t block = x.size(dim) / std::max<int64_t>(blocks, 1);
    nest.push(blocks, {x.stride(dim) * block, result.stride(dim)});
    nest.push(block, {x.stride(dim), 0});
  }
  nest.arrange(kReduced);
  return nest;
}

}  // namespace quaver
