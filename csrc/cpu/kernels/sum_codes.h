// sum_codes.h: sums of codes along one dimension; they wrap like every int32 sum here. No torch header.
#pragma once

#include "arguments.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/walk.h"
#include "cpu/simd.h"

namespace quaver {

template <class Code>
int32_t sum_run(const Code* codes, int64_t stride, int64_t n) {
  int32_t result = 0;
  vectorized([&]() QUAVER_INLINE {
    with_step(stride, [&](auto step) QUAVER_INLINE {
      uint32_t sum = 0;  // a variable of its own: what bytes could alias stays in memory
      for (int64_t i = 0; i < n; ++i) sum += static_cast<uint32_t>(static_cast<int32_t>(codes[i * step]));
      result = static_cast<int32_t>(sum);
    });
  });
  return result;
}

// Sums [begin, end) in the order of the kept loops.
inline void sum_codes(const SumArguments& arguments, int64_t begin, int64_t end) {
  const SplitReduction loops = split(arguments.nest);
  const int64_t n = loops.folded.numel();
  const int64_t stride = inner_stride(loops.folded, kReduced);
  with_type(arguments.q_type, [&](auto tag) {
    using Code = typename decltype(tag)::type;
    for (int64_t i = begin; i < end; ++i) {
      int64_t offset[kReductionOperands];
      loops.kept.offsets(i, offset);
      arguments.sum[offset[kResult]] = sum_run(static_cast<const Code*>(arguments.q) + offset[kReduced], stride, n);
    }
  });
}

}  // namespace quaver
