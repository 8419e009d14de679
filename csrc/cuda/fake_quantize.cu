// fake_quantize.cu: fake_quantize and its gradient's mask on CUDA: x through codes to y of its type, or to a bool.
// Bound by memory: one read and one write for each element.
#include "launch.h"
#include "numbered.cuh"

namespace quaver {
namespace {

// x, y: device, any strides
template <bool kDraws, class T>
__global__ void __launch_bounds__(kThreads)
    fake_quantize_kernel(const NumberedPlan plan, const T* __restrict__ x, T* __restrict__ y, const CodeRange range,
                         const QuantizeMode mode, const int64_t seed) {
  for_each_numbered<kDraws>(plan, x, y, seed, [=](float value, float scale, int32_t zero, float uniform) {
    const QuantizeMode one_of = kDraws ? QuantizeMode::kStochastic : mode;
    const int32_t code = unclamped_code(quotient(value, scale, one_of), zero, one_of, uniform);
    T result;
    from_float(dequantize(clamp_code(code, range), scale, zero), result);
    return result;
  });
}

// x, mask: device, any strides
template <bool kDraws, class T>
__global__ void __launch_bounds__(kThreads)
    fake_quantize_mask_kernel(const NumberedPlan plan, const T* __restrict__ x, uint8_t* __restrict__ mask,
                              const CodeRange range, const QuantizeMode mode, const int64_t seed) {
  for_each_numbered<kDraws>(plan, x, mask, seed, [=](float value, float scale, int32_t zero, float uniform) {
    const QuantizeMode one_of = kDraws ? QuantizeMode::kStochastic : mode;
    const float steps = quotient(value, scale, one_of);
    return static_cast<uint8_t>(is_within(steps, unclamped_code(steps, zero, one_of, uniform), range) ? 1 : 0);
  });
}

// Calls launch(TypeTag<T>, CountTag of whether the mode draws, plan).
template <class Launch>
cudaError_t choose(const FakeQuantizeArguments& arguments, const Launch& launch) {
  if (arguments.nest.numel() == 0) return cudaSuccess;
  return with_type(arguments.x_type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const NumberedPlan plan(arguments.nest, kWidest<T>, arguments.scale, arguments.zero_point);
    arguments.mode == QuantizeMode::kStochastic ? launch(tag, CountTag<1>{}, plan) : launch(tag, CountTag<0>{}, plan);
    return cudaGetLastError();
  });
}

}  // namespace

cudaError_t launch_fake_quantize(const FakeQuantizeArguments& arguments, cudaStream_t stream) {
  return choose(arguments, [&](auto tag, auto draws, const NumberedPlan& plan) {
    using T = typename decltype(tag)::type;
    fake_quantize_kernel<decltype(draws)::value != 0><<<plan.blocks(), kThreads, 0, stream>>>(
        plan, static_cast<const T*>(arguments.x), static_cast<T*>(arguments.result), arguments.range, arguments.mode,
        arguments.seed);
  });
}

cudaError_t launch_fake_quantize_mask(const FakeQuantizeArguments& arguments, cudaStream_t stream) {
  return choose(arguments, [&](auto tag, auto draws, const NumberedPlan& plan) {
    using T = typename decltype(tag)::type;
    fake_quantize_mask_kernel<decltype(draws)::value != 0><<<plan.blocks(), kThreads, 0, stream>>>(
        plan, static_cast<const T*>(arguments.x), static_cast<uint8_t*>(arguments.result), arguments.range,
        arguments.mode, arguments.seed);
  });
}

}  // namespace quaver
