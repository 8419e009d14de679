// launch.h: every CUDA kernel's launcher: from arguments with raw device pointers to a launch on a stream. No torch
// header: this is the seam between torch and the kernels. Each returns the launch's error, which must be read. Some
// need scratch memory, whose bytes `..._scratch` tells; 0 for none.
#pragma once

#include <cuda_runtime_api.h>

#include "arguments.h"
#include "conv2d_problem.h"
#include "matmul_problem.h"
#include "plan.h"

namespace quaver {

int64_t choose_qparams_scratch(const QparamsArguments& arguments);
[[nodiscard]] cudaError_t launch_choose_qparams(const QparamsArguments& arguments, void* scratch, cudaStream_t stream);

[[nodiscard]] cudaError_t launch_quantize(const QuantizeArguments& arguments, cudaStream_t stream);

int64_t dynamic_quantize_scratch(const DynamicQuantizeArguments& arguments);
[[nodiscard]] cudaError_t launch_dynamic_quantize(const DynamicQuantizeArguments& arguments, void* scratch,
                                                  cudaStream_t stream);

[[nodiscard]] cudaError_t launch_rms_norm_quantize(const RmsNormArguments& arguments, cudaStream_t stream);

[[nodiscard]] cudaError_t launch_silu_mul_quantize(const SiluMulArguments& arguments, cudaStream_t stream);

int64_t sum_codes_scratch(const SumArguments& arguments);
[[nodiscard]] cudaError_t launch_sum_codes(const SumArguments& arguments, void* scratch, cudaStream_t stream);

[[nodiscard]] cudaError_t current_device(Device& device);

// Zero points need their sums: b_sum where a_zero_point is given, a_sum where b_zero_point is.
[[nodiscard]] cudaError_t choose_matmul(const MatmulProblem& problem, MatmulPlan& plan);
[[nodiscard]] cudaError_t launch_matmul(const MatmulProblem& problem, const MatmulPlan& plan, void* scratch,
                                        cudaStream_t stream);
[[nodiscard]] cudaError_t launch_matmul_gemv(const MatmulProblem& problem, const MatmulPlan& plan, cudaStream_t stream);
[[nodiscard]] cudaError_t launch_matmul_sm80_int8(const MatmulProblem& problem, const MatmulPlan& plan,
                                                  cudaStream_t stream);
[[nodiscard]] cudaError_t launch_matmul_sm80_uint8(const MatmulProblem& problem, const MatmulPlan& plan,
                                                   cudaStream_t stream);

// How many blocks int8_linear's only kernel is to have, or 0 where it takes several: quantization, then a product.
[[nodiscard]] cudaError_t choose_linear(const LinearProblem& linear, int32_t& blocks);
[[nodiscard]] cudaError_t launch_linear_gemv(const LinearProblem& linear, int32_t blocks, cudaStream_t stream);

// The weight is product.b, with its sums where x has a zero point; where each channel is convolved for itself it is
// conv.weight, with the channels of a tap side by side.
[[nodiscard]] cudaError_t launch_conv2d(const Conv2dProblem& conv, cudaStream_t stream);

[[nodiscard]] cudaError_t launch_rescale(const RescaleArguments& arguments, cudaStream_t stream);

[[nodiscard]] cudaError_t launch_requantize(const RequantizeArguments& arguments, cudaStream_t stream);

[[nodiscard]] cudaError_t launch_dequantize(const DequantizeArguments& arguments, cudaStream_t stream);

[[nodiscard]] cudaError_t launch_fake_quantize(const FakeQuantizeArguments& arguments, cudaStream_t stream);
[[nodiscard]] cudaError_t launch_fake_quantize_mask(const FakeQuantizeArguments& arguments, cudaStream_t stream);

}  // namespace quaver
