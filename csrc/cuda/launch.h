// launch.h: every CUDA kernel's launcher: from arguments with raw device pointers to a launch on a stream. No torch
// header: this is the seam between torch and the kernels. Each returns the launch's error, which must be read.
#pragma once

#include <cuda_runtime_api.h>

#include "arguments.h"
#include "matmul_problem.h"

namespace quaver {

[[nodiscard]] cudaError_t launch_choose_qparams(const QparamsArguments& arguments, cudaStream_t stream);

[[nodiscard]] cudaError_t launch_quantize(const QuantizeArguments& arguments, cudaStream_t stream);

[[nodiscard]] cudaError_t launch_sum_codes(const SumArguments& arguments, cudaStream_t stream);

// Zero points need their sums: b_sum where a_zero_point is given, a_sum where b_zero_point is.
[[nodiscard]] cudaError_t launch_matmul(const MatmulProblem& problem, cudaStream_t stream);

[[nodiscard]] cudaError_t launch_dequantize(const DequantizeArguments& arguments, cudaStream_t stream);

}  // namespace quaver
