// matmul.cu: an int8 matmul to the kernel that its plan names, in one part or in several along K.
#include "epilogue.cuh"
#include "grid.cuh"
#include "launch.h"
#include "plan.h"
#include "tuned.h"

namespace quaver {
namespace {

// Adds up the partial sums of a result's parts of K, each in a copy of the result of its own, and stores what the
// epilogue makes of them.
__global__ void __launch_bounds__(kThreads) matmul_join_kernel(const MatmulProblem problem, const int32_t* partial,
                                                               const int32_t splits, const int64_t results) {
  for (int64_t index = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; index < results;
       index += static_cast<int64_t>(gridDim.x) * kThreads) {
    int32_t product = 0;
    for (int split = 0; split < splits; ++split) product = wrapping_add(product, partial[split * results + index]);
    const int64_t row_index = index / problem.n;
    const int64_t batch = row_index / problem.m;
    const BatchPlace place = batch_place(problem, batch);
    store_result(problem, epilogue_row(problem, place, row_index - batch * problem.m),
                 epilogue_column(problem, place, index - row_index * problem.n), product, index);
  }
}

// The same product without its epilogue, written to scratch memory.
MatmulProblem partial_problem(const MatmulProblem& problem, int32_t* partial) {
  MatmulProblem sums;
  sums.m = problem.m;
  sums.n = problem.n;
  sums.k = problem.k;
  sums.batch_dims = problem.batch_dims;
  std::copy(problem.batch_size, problem.batch_size + kMaxBatchDims, sums.batch_size);
  sums.a = problem.a;
  sums.b = problem.b;
  sums.a_type = problem.a_type;
  sums.b_type = problem.b_type;
  sums.out = partial;
  return sums;
}

cudaError_t launch_product(const MatmulProblem& problem, const MatmulPlan& plan, cudaStream_t stream) {
  if (plan.kernel == MatmulKernel::kGemv) return launch_matmul_gemv(problem, plan, stream);
  return problem.a_type == CodeType::kInt8 ? launch_matmul_sm80_int8(problem, plan, stream)
                                           : launch_matmul_sm80_uint8(problem, plan, stream);
}

}  // namespace

cudaError_t current_device(Device& device) {
  int number = 0, major = 0, minor = 0, multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&number);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, number);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, number);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, number);
  device = {10 * major + minor, multiprocessors};
  return error;
}

cudaError_t choose_matmul(const MatmulProblem& problem, MatmulPlan& plan) {
  PlannedMatmul& planned = last_planned_matmul();
  const cudaError_t error = current_device(planned.device);
  if (error != cudaSuccess) return error;
  planned.shape = shape_of(problem);
  const std::optional<MatmulPlan> tuned = tuned_plan(planned.device, planned.shape);
  plan = tuned ? *tuned : plan_matmul(planned.device, planned.shape);
  return cudaSuccess;
}

cudaError_t choose_linear(const LinearProblem& linear, int32_t& blocks) {
  Device device{};
  const cudaError_t error = current_device(device);
  MatmulShape shape = shape_of(linear.product);
  shape.a_layout = OperandLayout::kChunks;  // of codes that lie where the kernel puts them
  if (error == cudaSuccess) blocks = plan_linear(device, shape);
  return error;
}

cudaError_t launch_matmul(const MatmulProblem& problem, const MatmulPlan& plan, void* scratch, cudaStream_t stream) {
  const int64_t results = problem.batches() * problem.m * problem.n;
  if (results == 0) return cudaSuccess;
  if (plan.splits == 1) return launch_product(problem, plan, stream);
  int32_t* const partial = static_cast<int32_t*>(scratch);
  const cudaError_t error = launch_product(partial_problem(problem, partial), plan, stream);
  if (error != cudaSuccess) return error;
  matmul_join_kernel<<<grid_for_elements(results), kThreads, 0, stream>>>(problem, partial, plan.splits, results);
  return cudaGetLastError();
}

}  // namespace quaver
