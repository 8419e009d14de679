// parameters.cuh: the scale and zero point of each element that quantize and dequantize visit.
#pragma once

#include "vec.cuh"
#include "walk.cuh"

namespace quaver {

// Elements in the order of the nest come in rounds of `inner`, in which each element's parameters lie one stride from
// those of the element before; a stride of 0 is one parameter for the whole round.
struct Parameters {
  const float* scale;
  const int32_t* zero_point;  // null: 0 everywhere
  Walk<2> outer;              // over rounds
  Divisor inner;
  ShortDivisor inner_of_block;  // the same, for elements of one block
  int64_t scale_stride;
  int64_t zero_point_stride;

  Parameters(const LoopNest<2>& nest, const float* scale, const int32_t* zero_point)
      : scale(scale),
        zero_point(zero_point),
        outer(outer_loops(nest)),
        inner(inner_size(nest)),
        inner_of_block(inner_size(nest)),
        scale_stride(nest.loops > 0 ? inner_stride(nest, 0) : 0),
        zero_point_stride(nest.loops > 0 ? inner_stride(nest, 1) : 0) {}

  QUAVER_LAYOUT_FUNCTION bool same_in_round() const { return scale_stride == 0 && zero_point_stride == 0; }
  QUAVER_LAYOUT_FUNCTION bool one_round() const { return outer.loops == 0; }
  QUAVER_LAYOUT_FUNCTION bool same_everywhere() const { return one_round() && same_in_round(); }

  // Neighbouring elements have neighbouring parameters.
  bool follow_elements() const { return scale_stride == 1 && (zero_point == nullptr || zero_point_stride == 1); }

  // A vector's elements lie in one round or in two, and their places in a round are short numbers.
  bool serve_vectors(int vector) const {
    if (same_everywhere()) return true;
    return (one_round() || inner.divisor >= vector) && inner.divisor <= ShortDivisor::kMost;
  }
};

// An element's round, counted from that of the block's first element.
struct RoundPlace {
  int32_t round;
  int32_t at;    // in the round
  int32_t left;  // elements until the next round
};

// Finds rounds of elements near a block's first one with short divisions.
struct RoundFinder {
  const Parameters& parameters;
  int64_t first_round = 0;
  int32_t first_at = 0;

  __device__ __forceinline__ RoundFinder(const Parameters& parameters, int64_t first_element) : parameters(parameters) {
    if (!parameters.one_round()) first_round = parameters.inner.quotient(first_element);
    if (!parameters.same_everywhere())
      first_at = static_cast<int32_t>(first_element - first_round * parameters.inner.divisor);
  }

  // Of the element `beyond` the first.
  __device__ __forceinline__ RoundPlace place(int32_t beyond) const {
    const int32_t at = first_at + beyond;
    if (parameters.one_round()) return {0, at, INT32_MAX};
    const int32_t round = parameters.inner_of_block.quotient(at);
    const int32_t at_in_round = at - round * parameters.inner_of_block.divisor;
    return {round, at_in_round, parameters.inner_of_block.divisor - at_in_round};
  }
};

// Where parameters are.
struct ParameterPointers {
  const float* scale;
  const int32_t* zero_point;

  __device__ __forceinline__ ParameterPointers(const RoundFinder& finder, const RoundPlace& place) {
    const Parameters& parameters = finder.parameters;
    int64_t offset[2] = {place.at * parameters.scale_stride, place.at * parameters.zero_point_stride};
    parameters.outer.add_offsets(finder.first_round + place.round, offset);
    scale = parameters.scale + offset[0];
    zero_point = parameters.zero_point == nullptr ? nullptr : parameters.zero_point + offset[1];
  }

  __device__ __forceinline__ int32_t zero() const { return zero_point == nullptr ? 0 : __ldg(zero_point); }
};

// The parameters of the first `count` elements of a vector, which change from element to element.
template <int kVector>
struct EachParameters {
  float scale[kVector];
  int32_t zero[kVector];

  __device__ __forceinline__ EachParameters(const RoundFinder& finder, int32_t beyond, int count) {
    const RoundPlace place = finder.place(beyond);
    const ParameterPointers here(finder, place);
    const ParameterPointers later(finder, finder.place(beyond + min(place.left, count - 1)));
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      if (i >= count) break;
      const bool is_here = i < place.left;
      const int64_t at = is_here ? i : i - place.left;
      scale[i] = __ldg((is_here ? here.scale : later.scale) + at * finder.parameters.scale_stride);
      zero[i] = 0;
      if (here.zero_point != nullptr)
        zero[i] = __ldg((is_here ? here.zero_point : later.zero_point) + at * finder.parameters.zero_point_stride);
    }
  }
};

}  // namespace quaver
