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

// Where the parameters of an element are.
struct ParameterPlace {
  int64_t round;
  int32_t at;    // in the round
  int32_t left;  // elements until the next round
  const float* scale;
  const int32_t* zero_point;

  __device__ __forceinline__ int32_t zero() const { return zero_point == nullptr ? 0 : __ldg(zero_point); }
};

// Finds places of elements near a block's first one with short divisions.
struct ParameterFinder {
  const Parameters& parameters;
  int64_t first_round = 0;
  int32_t first_at = 0;

  __device__ __forceinline__ ParameterFinder(const Parameters& parameters, int64_t first_element)
      : parameters(parameters) {
    if (!parameters.one_round()) first_round = parameters.inner.quotient(first_element);
    if (!parameters.same_everywhere())
      first_at = static_cast<int32_t>(first_element - first_round * parameters.inner.divisor);
  }

  // Of the element `beyond` the first.
  __device__ __forceinline__ ParameterPlace place(int32_t beyond) const {
    ParameterPlace place{first_round, first_at + beyond, INT32_MAX, parameters.scale, parameters.zero_point};
    int64_t offset[2] = {};
    if (!parameters.one_round()) {
      const int32_t rounds = parameters.inner_of_block.quotient(place.at);
      place.round += rounds;
      place.at -= rounds * parameters.inner_of_block.divisor;
      place.left = parameters.inner_of_block.divisor - place.at;
      parameters.outer.add_offsets(place.round, offset);
    }
    place.scale += offset[0] + place.at * parameters.scale_stride;
    if (place.zero_point != nullptr) place.zero_point += offset[1] + place.at * parameters.zero_point_stride;
    return place;
  }
};

// The parameters of the first `count` elements of a vector one by one, `next` being the place of the first one in
// another round, if there is any.
template <int kVector>
struct EachParameters {
  float scale[kVector];
  int32_t zero[kVector];

  __device__ __forceinline__ EachParameters(const Parameters& parameters, const ParameterPlace& place,
                                            const ParameterPlace& next, int count) {
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

}  // namespace quaver
