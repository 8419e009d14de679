// runs.cuh: a tensor as runs of neighbouring elements, cut into vectors that start where 16-byte accesses may.
//
//   run, cut at multiples of the vector's size:     . . x x | x x x x | x x x x | x . . .
//                                                    first:   whole     whole     last:
//                                                    in part                      in part
//
// A dense tensor is one run, whatever its shape; rows of a wider matrix are one each. A whole vector is one access,
// those at the ends go element by element.
#pragma once

#include <algorithm>

#include "vec.cuh"
#include "walk.cuh"

namespace quaver {

// The elements of a run that a vector has.
template <int kOperands>
struct Span {
  int64_t offset[kOperands];  // of the first one
  int64_t element;            // its number in the order of the nest; that of the next run's first where there is none
  int count;                  // 0 to a whole vector's
};

template <int kOperands>
struct Runs {
  Walk<kOperands> outer;  // over the runs
  int64_t runs = 1;
  int64_t length = 1;
  Divisor vectors_of_run;  // so many serve every run, however it is aligned
  ShortDivisor vectors_of_run_in_block;

  Runs() = default;
  Runs(const LoopNest<kOperands>& nest, int vector)
      : outer(outer_loops(nest)),
        runs(outer_loops(nest).numel()),
        length(inner_size(nest)),
        vectors_of_run((inner_size(nest) + 2 * vector - 2) / vector),
        vectors_of_run_in_block(vectors_of_run.divisor) {}

  QUAVER_LAYOUT_FUNCTION int64_t vectors() const { return runs * vectors_of_run.divisor; }
};

// Whether vectors can be cut from a nest: neighbours in the innermost loop are neighbours in memory, for all operands,
// and a loop is long enough to have whole vectors.
template <int kOperands>
bool has_runs(const LoopNest<kOperands>& nest, int vector) {
  for (int i = 0; i < kOperands; ++i)
    if (inner_stride(nest, i) != 1) return false;
  const bool countable = nest.loops < 2 || inner_size(nest) <= ShortDivisor::kMost;
  return inner_size(nest) >= vector && countable;
}

// The vectors of a block, from number `first` on: 64-bit numbers for the first, 32-bit ones from there.
//   data, aligned   what the operand `aligned` points to: its accesses are the widest
template <int kOperands, int kVector, class T>
struct BlockOfVectors {
  const Runs<kOperands>& runs;
  const T* data;
  int aligned;
  int64_t run;
  int64_t vector;                   // the first one's number in its run
  int64_t run_offset[kOperands]{};  // where that run begins
  int shift;                        // of that run, from where vectors may start

  __device__ __forceinline__ BlockOfVectors(const Runs<kOperands>& runs, const T* data, int aligned, int64_t first)
      : runs(runs), data(data), aligned(aligned) {
    run = runs.runs == 1 ? 0 : runs.vectors_of_run.quotient(first);
    vector = first - run * runs.vectors_of_run.divisor;
    runs.outer.add_offsets(run, run_offset);
    shift = misalignment<kVector>(data + run_offset[aligned]);
  }

  // Vector `number` of the block.
  __device__ __forceinline__ Span<kOperands> span(int number) const {
    Span<kOperands> span;
    if (runs.runs == 1) {
      place(span, run_offset, 0, vector * kVector - shift + number * kVector);
      return span;
    }
    const int at = static_cast<int>(vector) + number;
    const int further = runs.vectors_of_run_in_block.quotient(at);
    const int64_t begin = static_cast<int64_t>(at - further * runs.vectors_of_run_in_block.divisor) * kVector;
    int64_t offset[kOperands] = {};
    runs.outer.add_offsets(run + further, offset);
    place(span, offset, run + further, begin - misalignment<kVector>(data + offset[aligned]));
    if (run + further >= runs.runs) span.count = 0;
    return span;
  }

 private:
  __device__ __forceinline__ void place(Span<kOperands>& span, const int64_t (&offset)[kOperands], int64_t of_run,
                                        int64_t begin) const {
    const int64_t from = max(begin, int64_t{0});
    const int64_t left = runs.length - begin;
    const int end = left < kVector ? static_cast<int>(max(left, int64_t{0})) : kVector;
    span.count = max(end - static_cast<int>(from - begin), 0);
    span.element = of_run * runs.length + min(from, runs.length);
    for (int i = 0; i < kOperands; ++i) span.offset[i] = offset[i] + from;
  }
};

}  // namespace quaver
