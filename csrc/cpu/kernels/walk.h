// walk.h: visits a nest of loops run by run, a run being a piece of the innermost loop. No torch header.
#pragma once

#include <algorithm>

#include "layout.h"

namespace quaver {

// Calls run(offset, length) for the runs that make up elements [begin, end) of the nest; offset[i] is where operand i's
// run begins, and it advances by the last loop's stride.
template <int kOperands, class Run>
inline __attribute__((always_inline)) void walk(const LoopNest<kOperands>& nest, int64_t begin, int64_t end,
                                                const Run& run) {
  const int64_t inner = nest.loops > 0 ? nest.size[nest.loops - 1] : 1;
  while (begin < end) {
    int64_t offset[kOperands];
    nest.offsets(begin, offset);
    const int64_t length = std::min(inner - begin % inner, end - begin);
    run(offset, length);
    begin += length;
  }
}

// The stride of an operand in the innermost loop.
template <int kOperands>
int64_t inner_stride(const LoopNest<kOperands>& nest, int operand) {
  return nest.loops > 0 ? nest.stride[nest.loops - 1][operand] : 0;
}

}  // namespace quaver
