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
  int beyond;                 // so many elements after BlockOfVectors::first_element, in the order of the nest
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

// The vectors of a block of threads, from number `first` on: 64-bit numbers for where they begin, 32-bit ones from
// there.
//   data, aligned   what the operand `aligned` points to: its accesses are the widest
template <int kOperands, int kVector, class T>
struct BlockOfVectors {
  const Runs<kOperands>& runs;
  const T* data;
  int aligned;
  int64_t run = 0;
  int64_t vector;         // in that run
  int64_t begin;          // of the vector, in the only run: negative where the run begins inside of it
  int64_t first_element;  // what elements are counted from: the block's first one, or its run's

  __device__ __forceinline__ BlockOfVectors(const Runs<kOperands>& runs, const T* data, int aligned, int64_t first)
      : runs(runs), data(data), aligned(aligned) {
    if (runs.runs == 1) {
      begin = first * kVector - misalignment<kVector>(data);
      first_element = min(max(begin, int64_t{0}), runs.length);
    } else {
      run = runs.vectors_of_run.quotient_by_many(first);
      vector = first - run * runs.vectors_of_run.divisor;
      first_element = run * runs.length;
    }
  }

  // Vector `number` of the block.
  __device__ __forceinline__ Span<kOperands> span(int number) const {
    return runs.runs == 1 ? span_of_one_run(number) : span_of_many_runs(number);
  }

  __device__ __forceinline__ Span<kOperands> span_of_one_run(int number) const {
    const int low = begin < 0 ? static_cast<int>(-begin) : 0;
    const int high = static_cast<int>(min(runs.length - begin, int64_t{INT32_MAX}));
    const int from = max(number * kVector, low);
    Span<kOperands> span;
    for (int i = 0; i < kOperands; ++i) span.offset[i] = begin + from;
    span.beyond = from - low;
    span.count = max(min(number * kVector + kVector, high) - from, 0);
    return span;
  }

  __device__ __forceinline__ Span<kOperands> span_of_many_runs(int number) const {
    const int at = static_cast<int>(vector) + number;
    const int further = runs.vectors_of_run_in_block.quotient(at);
    Span<kOperands> span{};
    runs.outer.add_offsets(run + further, span.offset);
    const int length = static_cast<int>(runs.length);
    const int start = (at - further * runs.vectors_of_run_in_block.divisor) * kVector -
                      misalignment<kVector>(data + span.offset[aligned]);
    const int from = max(start, 0);
    for (int i = 0; i < kOperands; ++i) span.offset[i] += from;
    span.beyond = further * length + min(from, length);
    span.count = run + further < runs.runs ? max(min(start + kVector, length) - from, 0) : 0;
    return span;
  }
};

}  // namespace quaver
