// runs.cuh: a tensor as runs of neighbouring elements, cut into vectors that start where 16-byte accesses may.
//
//   run, cut at multiples of the vector's size:     . . x x | x x x x | x x x x | x . . .
//                                                    first:   whole     whole     last:
//                                                    in part                      in part
//
// A dense tensor is one run, whatever its shape; rows of a wider matrix are one each. Whole vectors are one access, the
// two ends of a run go element by element.
#pragma once

#include <algorithm>

#include "vec.cuh"
#include "walk.cuh"

namespace quaver {

// A vector's place: elements [first, first + count) of a run.
template <int kOperands>
struct Span {
  int64_t offset[kOperands];  // of the run's first element
  int64_t run;
  int64_t first;
  int count;  // 0 beyond the end
};

template <int kOperands>
struct Runs {
  Walk<kOperands> outer;  // over the runs
  int64_t runs = 1;
  int64_t length = 1;
  Divisor vectors_of_run;  // so many serve every run, however it is aligned

  Runs() = default;
  Runs(const LoopNest<kOperands>& nest, int vector)
      : outer(outer_loops(nest)),
        runs(outer_loops(nest).numel()),
        length(inner_size(nest)),
        vectors_of_run((inner_size(nest) + 2 * vector - 2) / vector) {}

  QUAVER_LAYOUT_FUNCTION int64_t vectors() const { return runs * vectors_of_run.divisor; }

  // Vector `number` of all. `data` is what operand `aligned` points to: its accesses are the widest.
  template <int kVector, class T>
  __device__ __forceinline__ Span<kOperands> span(int64_t number, const T* data, int aligned) const {
    Span<kOperands> span{};
    span.run = runs == 1 ? 0 : vectors_of_run.quotient(number);
    outer.add_offsets(span.run, span.offset);
    const int64_t begin = (number - span.run * vectors_of_run.divisor) * kVector;
    const int64_t shift = misalignment<kVector>(data + span.offset[aligned]);
    const int64_t end = min(begin - shift + kVector, length);
    span.first = max(begin - shift, int64_t{0});
    span.count = number < vectors() ? static_cast<int>(max(end - span.first, int64_t{0})) : 0;
    return span;
  }
};

// Whether vectors can be cut from a nest: neighbours in the innermost loop are neighbours in memory, for all operands,
// and a loop is long enough to have whole vectors.
template <int kOperands>
bool has_runs(const LoopNest<kOperands>& nest, int vector) {
  for (int i = 0; i < kOperands; ++i)
    if (inner_stride(nest, i) != 1) return false;
  return inner_size(nest) >= vector;
}

}  // namespace quaver
