// walk.h: visits a nest of loops run by run, a run being a piece of the innermost loop. No torch header.
#pragma once

#include <algorithm>
#include <type_traits>

#include "layout.h"

namespace quaver {

// The stride of an operand in the innermost loop.
template <int kOperands>
inline __attribute__((always_inline)) int64_t inner_stride(const LoopNest<kOperands>& nest, int operand) {
  return nest.loops > 0 ? nest.stride[nest.loops - 1][operand] : 0;
}

// Calls loop(step), with a step of 1 as a constant.
template <class Loop>
inline __attribute__((always_inline)) void with_step(int64_t step, const Loop& loop) {
  if (step == 1) return loop(std::integral_constant<int64_t, 1>{});
  loop(step);
}

// Calls run(offset, length) for the runs that make up elements [begin, end) of the nest; offset[i] is where operand i's
// run begins, and it advances by the last loop's stride. Where to begin takes divisions; from run to run, steps.
template <int kOperands, class Run>
inline __attribute__((always_inline)) void walk(const LoopNest<kOperands>& nest, int64_t begin, int64_t end,
                                                const Run& run) {
  if (begin >= end) return;
  const int outer = nest.loops - 1;  // the number of loops around the innermost
  const int64_t inner = nest.loops > 0 ? nest.size[outer] : 1;
  const int64_t skipped = begin % inner;
  int64_t line[kOperands];  // where the innermost loop would begin
  int64_t step[kMaxLoops];
  nest.offsets(begin - skipped, line);
  for (int64_t loop = outer - 1, rest = begin / inner; loop >= 0; rest /= nest.size[loop], --loop)
    step[loop] = rest % nest.size[loop];

  for (int64_t first = skipped; begin < end; first = 0) {
    int64_t offset[kOperands];
    for (int i = 0; i < kOperands; ++i) offset[i] = line[i] + first * inner_stride(nest, i);
    const int64_t length = std::min(inner - first, end - begin);
    run(offset, length);
    begin += length;
    for (int loop = outer - 1; loop >= 0; --loop) {
      const bool again = ++step[loop] == nest.size[loop];
      const int64_t steps = again ? 1 - nest.size[loop] : 1;
      for (int i = 0; i < kOperands; ++i) line[i] += steps * nest.stride[loop][i];
      if (!again) break;
      step[loop] = 0;
    }
  }
}

}  // namespace quaver
