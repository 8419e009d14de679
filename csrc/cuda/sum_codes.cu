// sum_codes.cu: sums of codes along one dimension: the row sums of dynamic_quantize, and what matmuls with zero points
// need of an operand. Bound by reading the codes.
#include "launch.h"
#include "reduce.cuh"
#include "state.cuh"

namespace quaver {
namespace {

struct SumResult {
  int32_t* sum;  // device [sums]

  __device__ __forceinline__ void write(int64_t offset, const Sum& state) const { sum[offset] = state.value; }
};

template <class Code>
struct SumCodes {
  using Element = Code;
  using State = Sum;
  static constexpr bool kOneRun = true;  // sums are of one dimension
  const Code* __restrict__ data;
  Sum* parts;
  SumResult result;

  __device__ __forceinline__ void take(Sum& state, Code code) const { state.take(code); }
};

// Calls body(operation) with the operation on codes of the right type.
template <class Body>
auto with_operation(const SumArguments& arguments, void* scratch, const Body& body) {
  Sum* parts = static_cast<Sum*>(scratch);
  if (arguments.q_type == CodeType::kInt8)
    return body(SumCodes<int8_t>{static_cast<const int8_t*>(arguments.q), parts, {arguments.sum}});
  return body(SumCodes<uint8_t>{static_cast<const uint8_t*>(arguments.q), parts, {arguments.sum}});
}

}  // namespace

int64_t sum_codes_scratch(const SumArguments& arguments) {
  return with_operation(arguments, nullptr, [&](const auto& operation) {
    using Code = typename std::decay_t<decltype(operation)>::Element;
    return ReductionChoice<Code>(arguments.nest, operation.data).partial_states() * int64_t{sizeof(Sum)};
  });
}

cudaError_t launch_sum_codes(const SumArguments& arguments, void* scratch, cudaStream_t stream) {
  if (arguments.sums == 0) return cudaSuccess;
  return with_operation(arguments, scratch,
                        [&](const auto& operation) { return launch_reduction(arguments.nest, operation, stream); });
}

}  // namespace quaver
