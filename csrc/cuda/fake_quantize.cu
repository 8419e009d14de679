// fake_quantize.cu: fake_quantize and its gradient's mask on CUDA: x through codes to y of its type, or to a bool.
// Bound by memory, save in the mode "stochastic": one read and one write for each element.
#include "launch.h"
#include "numbered.cuh"

namespace quaver {
namespace {

// x, y: device, any strides
template <class T>
__global__ void __launch_bounds__(kThreads)
    fake_quantize_kernel(const NumberedPlan plan, const T* __restrict__ x, T* __restrict__ y, const CodeRange range,
                         const QuantizeMode mode, const int64_t seed) {
  const bool draws = mode == QuantizeMode::kStochastic;
  for_each_numbered(plan, x, y, draws, seed, [=](float value, float scale, int32_t zero, float uniform) {
    T result;
    from_float(dequantize(quantize(value, scale, zero, range, mode, uniform), scale, zero), result);
    return result;
  });
}

// x, mask: device, any strides
template <class T>
__global__ void __launch_bounds__(kThreads)
    fake_quantize_mask_kernel(const NumberedPlan plan, const T* __restrict__ x, uint8_t* __restrict__ mask,
                              const CodeRange range, const QuantizeMode mode, const int64_t seed) {
  const bool draws = mode == QuantizeMode::kStochastic;
  for_each_numbered(plan, x, mask, draws, seed, [=](float value, float scale, int32_t zero, float uniform) {
    return static_cast<uint8_t>(is_unclamped(value, scale, zero, range, mode, uniform) ? 1 : 0);
  });
}

// Calls launch(TypeTag<T>, plan).
template <class Launch>
cudaError_t choose(const FakeQuantizeArguments& arguments, const Launch& launch) {
  if (arguments.nest.numel() == 0) return cudaSuccess;
  return with_type(arguments.x_type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(tag, NumberedPlan(arguments.nest, kWidest<T>, arguments.scale, arguments.zero_point));
    return cudaGetLastError();
  });
}

}  // namespace

cudaError_t launch_fake_quantize(const FakeQuantizeArguments& arguments, cudaStream_t stream) {
  return choose(arguments, [&](auto tag, const NumberedPlan& plan) {
    using T = typename decltype(tag)::type;
    fake_quantize_kernel<<<plan.blocks(), kThreads, 0, stream>>>(plan, static_cast<const T*>(arguments.x),
                                                                 static_cast<T*>(arguments.result), arguments.range,
                                                                 arguments.mode, arguments.seed);
  });
}

cudaError_t launch_fake_quantize_mask(const FakeQuantizeArguments& arguments, cudaStream_t stream) {
  return choose(arguments, [&](auto tag, const NumberedPlan& plan) {
    using T = typename decltype(tag)::type;
    fake_quantize_mask_kernel<<<plan.blocks(), kThreads, 0, stream>>>(plan, static_cast<const T*>(arguments.x),
                                                                      static_cast<uint8_t*>(arguments.result),
                                                                      arguments.range, arguments.mode, arguments.seed);
  });
}

}  // namespace quaver
