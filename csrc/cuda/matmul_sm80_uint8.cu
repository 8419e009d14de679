// matmul_sm80_uint8.cu: the tensor-core matmuls whose a is uint8. A file of their own, so that compilers work side by
// side.
#include "matmul_sm80.cuh"

namespace quaver {

cudaError_t launch_matmul_sm80_uint8(const MatmulProblem& problem, const MatmulPlan& plan, cudaStream_t stream) {
  return problem.b_type == CodeType::kInt8 ? launch_tile<CodeType::kUint8, CodeType::kInt8>(problem, plan, stream)
                                           : launch_tile<CodeType::kUint8, CodeType::kUint8>(problem, plan, stream);
}

}  // namespace quaver
