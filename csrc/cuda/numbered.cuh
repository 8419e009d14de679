// numbered.cuh: elements in the order of their numbers, as a nest counts them, each with its parameters and a random
// number that belongs to its own. For quantization whose mode is known at run time, and for that which draws.
//
// A thread has a vector of neighbours, a multiple of four: the random numbers come by fours. Where neighbours in the
// nest are none in memory, it has one element. Everything about the layout is decided once for a launch.
#pragma once

#include "arith.h"
#include "elementwise.cuh"
#include "grid.cuh"
#include "philox.h"
#include "vec.cuh"
#include "walk.cuh"

namespace quaver {

struct NumberedPlan {
  Walk<kElementwiseTensors> tensors;
  Walk<2> parameters;
  const float* scale;
  const int32_t* zero_point;  // null: 0 everywhere
  int64_t elements;
  int32_t together;             // elements of a thread's vector
  bool parameters_step;         // from each of four neighbours to the next by the strides below
  int64_t parameter_stride[2];  // in the innermost loop

  NumberedPlan(const ElementwiseNest& nest, int widest, const float* scale, const int32_t* zero_point)
      : scale(scale), zero_point(zero_point), elements(nest.numel()) {
    const LoopNest<kElementwiseTensors> of_tensors = nest.of({kSource, kTarget});
    const LoopNest<2> of_parameters = nest.of({kScale, kZeroPoint});
    tensors = Walk<kElementwiseTensors>(of_tensors);
    parameters = Walk<2>(of_parameters);
    const bool neighbours = inner_stride(of_tensors, kX) == 1 && inner_stride(of_tensors, kQ) == 1;
    together = neighbours && stay_inside(of_tensors, widest) ? widest : 1;
    parameters_step = stay_inside(of_parameters, 4);
    for (int i = 0; i < 2; ++i) parameter_stride[i] = of_parameters.loops > 0 ? inner_stride(of_parameters, i) : 0;
  }

  unsigned blocks() const { return grid_for_elements((elements + together - 1) / together); }

 private:
  // No `count` elements from a multiple of `count` on lie in two rounds of the innermost loop.
  template <int kOperands>
  static bool stay_inside(const LoopNest<kOperands>& nest, int count) {
    return nest.loops < 2 || inner_size(nest) % count == 0;
  }
};

// The parameters of the first `count` of four neighbours, one at least.
struct FourParameters {
  float scale[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  int32_t zero[4] = {};

  __device__ __forceinline__ FourParameters(const NumberedPlan& plan, int64_t first, int count) {
    int64_t offset[2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i > 0 && i >= count) break;
      if (i == 0 || !plan.parameters_step) {
        offset[0] = offset[1] = 0;
        plan.parameters.add_offsets(first + i, offset);
      } else {
        offset[0] += plan.parameter_stride[0];
        offset[1] += plan.parameter_stride[1];
      }
      scale[i] = __ldg(plan.scale + offset[0]);
      zero[i] = plan.zero_point == nullptr ? 0 : __ldg(plan.zero_point + offset[1]);
    }
  }
};

// The word of a vector's first element: one of a single element begins anywhere in its four.
__device__ __forceinline__ uint32_t select(const PhiloxWords& words, int place) {
  const uint32_t low = place == 0 ? words.word[0] : words.word[1];
  const uint32_t high = place == 2 ? words.word[2] : words.word[3];
  return place < 2 ? low : high;
}

// compute(float, scale, zero, uniform) gives a Result; uniform is 0 unless the mode `draws`.
template <class T, class Result, class Compute>
__device__ __forceinline__ void for_each_numbered(const NumberedPlan& plan, const T* __restrict__ x,
                                                  Result* __restrict__ results, bool draws, int64_t seed,
                                                  const Compute& compute) {
  constexpr int kVector = kWidest<T>;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * plan.together;
  int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * plan.together;
  for (; first < plan.elements; first += step) {
    const int count = static_cast<int>(min(int64_t{plan.together}, plan.elements - first));
    int64_t offset[kElementwiseTensors] = {};
    plan.tensors.add_offsets(first, offset);
    const Vector<T, kVector> values = load_span<kVector>(x + offset[kX], count);
    Vector<Result, kVector> vector{};
#pragma unroll
    for (int four = 0; four < kVector; four += 4) {
      if (four > 0 && four >= count) break;
      const FourParameters parameters(plan, first + four, count - four);
      PhiloxWords words{};
      if (draws) {
        words = words_of_four((first + four) / 4, seed);
        if (four == 0) words.word[0] = select(words, static_cast<int>(first % 4));
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
        vector.put(four + i, compute(to_float(values.get(four + i)), parameters.scale[i], parameters.zero[i],
                                     uniform_of(words.word[i])));
    }
    store_span(vector, results + offset[kQ], count);
  }
}

}  // namespace quaver
