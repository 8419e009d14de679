// elementwise.cuh: what quantize and dequantize share: a float tensor x and a code tensor q of one shape, visited
// vector by vector together with the parameters of their blocks.
//
// Bytes in flight: reading 3.35 TB/s (H100 SXM) with some 700 ns of latency needs 2.3 MB under way, 18 KB for each of
// its 132 multiprocessors. 2,048 threads with kUnroll vectors of 16 bytes ask for 64 KB where x is read; where codes
// are read, which are at most a third of the traffic, for 16 to 32 KB.
#pragma once

#include "arith.h"
#include "grid.cuh"
#include "runs.cuh"
#include "vec.cuh"

namespace quaver {

enum ElementwiseTensor { kX, kQ, kElementwiseTensors };

// The parameters of elements in the order of the nest: in a round of `inner` elements each lies one stride from the one
// before, a stride of 0 being one parameter for all.
struct Parameters {
  const float* scale;
  const int32_t* zero_point;  // null: 0 everywhere
  Walk<2> outer;              // over rounds
  Divisor inner;
  int64_t scale_stride;
  int64_t zero_point_stride;

  Parameters(const LoopNest<2>& nest, const float* scale, const int32_t* zero_point)
      : scale(scale),
        zero_point(zero_point),
        outer(outer_loops(nest)),
        inner(inner_size(nest)),
        scale_stride(nest.loops > 0 ? inner_stride(nest, 0) : 0),
        zero_point_stride(nest.loops > 0 ? inner_stride(nest, 1) : 0) {}

  QUAVER_LAYOUT_FUNCTION bool same_in_round() const { return scale_stride == 0 && zero_point_stride == 0; }

  // Neighbouring elements have neighbouring parameters, which can be read as vectors.
  QUAVER_LAYOUT_FUNCTION bool follow_elements() const {
    return scale_stride == 1 && (zero_point == nullptr || zero_point_stride == 1);
  }

  // A vector's elements lie in one round or in two.
  bool serve_vectors(int vector) const { return outer.loops == 0 || inner.divisor >= vector; }
};

// Where the parameters of an element are, and how many elements are left in its round.
struct ParameterPlace {
  const float* scale;
  const int32_t* zero_point;
  int64_t left;

  __device__ __forceinline__ ParameterPlace(const Parameters& parameters, int64_t element) {
    const int64_t round = parameters.outer.loops == 0 ? 0 : parameters.inner.quotient(element);
    const int64_t at = element - round * parameters.inner.divisor;
    int64_t offset[2] = {at * parameters.scale_stride, at * parameters.zero_point_stride};
    parameters.outer.add_offsets(round, offset);
    scale = parameters.scale + offset[0];
    zero_point = parameters.zero_point == nullptr ? nullptr : parameters.zero_point + offset[1];
    left = parameters.inner.divisor - at;
  }

  __device__ __forceinline__ int32_t zero() const { return zero_point == nullptr ? 0 : __ldg(zero_point); }
};

// The parameters of `count` <= kVector elements, one by one.
template <int kVector>
struct ParameterVectors {
  float scale[kVector];
  int32_t zero[kVector];

  __device__ __forceinline__ ParameterVectors(const Parameters& parameters, const ParameterPlace& place,
                                              int64_t element, int count) {
    if (kVector == 4 && count == 4 && place.left >= 4 && parameters.follow_elements() &&
        misalignment<4>(place.scale) == 0 && misalignment<4>(place.zero_point) == 0) {
      const Vector<float, 4> scales = load_vector<4>(place.scale);
      Vector<int32_t, 4> zeros{};
      if (place.zero_point != nullptr) zeros = load_vector<4>(place.zero_point);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        scale[i] = scales.get(i);
        zero[i] = zeros.get(i);
      }
      return;
    }
    const ParameterPlace next(parameters, element + min(place.left, int64_t{count - 1}));
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      if (i >= count) break;
      const bool here = i < place.left;
      const int64_t at = here ? i : i - place.left;
      scale[i] = __ldg((here ? place.scale : next.scale) + at * parameters.scale_stride);
      zero[i] = 0;
      if (place.zero_point != nullptr)
        zero[i] = __ldg((here ? place.zero_point : next.zero_point) + at * parameters.zero_point_stride);
    }
  }
};

struct ElementwisePlan {
  Runs<kElementwiseTensors> runs;
  Parameters parameters;
};

// One thread's vectors, kUnroll at a time. An operation has
//   Source, Result                      the types of elements
//   wide()                              the float tensor: vectors are aligned to it
//   source(span), result(span)          where a span's elements are
//   convert(element, scale, zero)       the result
template <int kVector, class Operation>
__device__ __forceinline__ void for_each_vector(const ElementwisePlan& plan, const Operation& operation) {
  constexpr int kUnroll = 2;
  using Source = Vector<typename Operation::Source, kVector>;
  using Result = Vector<typename Operation::Result, kVector>;
  const int64_t vectors = plan.runs.vectors();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kUnroll;
  for (int64_t number = static_cast<int64_t>(blockIdx.x) * kThreads * kUnroll + threadIdx.x; number < vectors;
       number += step) {
    Span<kElementwiseTensors> spans[kUnroll];
    Source sources[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      spans[u] = plan.runs.template span<kVector>(number + u * kThreads, operation.wide(), kX);
      sources[u] = load_span<kVector>(operation.source(spans[u]), spans[u].count);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int count = spans[u].count;
      if (count == 0) continue;
      const int64_t element = spans[u].run * plan.runs.length + spans[u].first;
      const ParameterPlace place(plan.parameters, element);
      Result result{};
      if (plan.parameters.same_in_round() && place.left >= count) {
        const float scale = __ldg(place.scale);
        const int32_t zero = place.zero();
#pragma unroll
        for (int i = 0; i < kVector; ++i) result.put(i, operation.convert(sources[u].get(i), scale, zero));
      } else {
        const ParameterVectors<kVector> each(plan.parameters, place, element, count);
#pragma unroll
        for (int i = 0; i < kVector; ++i)
          result.put(i, operation.convert(sources[u].get(i), each.scale[i], each.zero[i]));
      }
      store_span(result, operation.result(spans[u]), count);
    }
  }
}

struct ElementsPlan {
  Walk<kElementwiseTensors> walk;
  Parameters parameters;
  int64_t elements;
};

// Any strides: each thread takes every gridDim.x * kThreads-th element.
template <class Operation>
__device__ __forceinline__ void for_each_element(const ElementsPlan& plan, const Operation& operation) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < plan.elements; i += step) {
    Span<kElementwiseTensors> span{};
    plan.walk.add_offsets(i, span.offset);
    const ParameterPlace place(plan.parameters, i);
    *operation.result(span) = operation.convert(*operation.source(span), __ldg(place.scale), place.zero());
  }
}

// Calls `vectors(plan, VectorTag)` or `elements(plan)`, whichever fits; x_operand and q_operand are the nest's.
template <class T, class Vectors, class Elements>
cudaError_t choose_elementwise(const ElementwiseNest& nest, int x_operand, int q_operand, const float* scale,
                               const int32_t* zero_point, const Vectors& vectors, const Elements& elements) {
  const LoopNest<kElementwiseTensors> tensors = nest.of({x_operand, q_operand});
  const Parameters parameters(nest.of({kScale, kZeroPoint}), scale, zero_point);
  // Parameters that differ from element to element are read four at a time: wider vectors would read every other 16
  // bytes.
  const int vector = parameters.same_in_round() ? kWidest<T> : 4;
  if (!has_runs(tensors, vector) || !parameters.serve_vectors(vector))
    return elements(ElementsPlan{Walk<kElementwiseTensors>(tensors), parameters, nest.numel()});
  const ElementwisePlan plan{Runs<kElementwiseTensors>(tensors, vector), parameters};
  if (vector == 4) return vectors(plan, CountTag<4>{});
  return vectors(plan, CountTag<kWidest<T>>{});
}

}  // namespace quaver
