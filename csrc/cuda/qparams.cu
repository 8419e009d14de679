// qparams.cu: choose_qparams on CUDA, the first stage: x to scale [blocks] and zero_point [blocks]. Bound by reading x.
#include "launch.h"
#include "reduce.cuh"
#include "state.cuh"

namespace quaver {
namespace {

struct QparamsResult {
  float* scale;         // device [blocks]
  int32_t* zero_point;  // device [blocks]
  bool symmetric;
  CodeRange range;
  float eps;

  __device__ __forceinline__ void write(int64_t offset, const Range& state) const {
    const ScaleAndZeroPoint chosen = choose_qparams(state.lo, state.hi, symmetric, range, eps);
    scale[offset] = chosen.scale;
    zero_point[offset] = chosen.zero_point;
  }
};

template <class T>
struct FindRange {
  using Element = T;
  using State = Range;
  static constexpr bool kOneRun = false;
  const T* __restrict__ data;
  Range* parts;
  QparamsResult result;

  __device__ __forceinline__ void take(Range& state, T element) const { state.take(to_float(element)); }
};

}  // namespace

int64_t choose_qparams_scratch(const QparamsArguments& arguments) {
  int64_t states = 0;
  const cudaError_t known = with_type(arguments.x_type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    states = ReductionChoice<T>(arguments.nest, static_cast<const T*>(arguments.x)).partial_states();
    return cudaSuccess;
  });
  return known == cudaSuccess ? states * static_cast<int64_t>(sizeof(Range)) : 0;
}

cudaError_t launch_choose_qparams(const QparamsArguments& arguments, void* scratch, cudaStream_t stream) {
  if (arguments.blocks == 0) return cudaSuccess;
  return with_type(arguments.x_type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const FindRange<T> operation{
        static_cast<const T*>(arguments.x),
        static_cast<Range*>(scratch),
        {arguments.scale, arguments.zero_point, arguments.symmetric, arguments.range, arguments.eps}};
    return launch_reduction(arguments.nest, operation, stream);
  });
}

}  // namespace quaver
