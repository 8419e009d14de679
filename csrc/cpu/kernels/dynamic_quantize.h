// dynamic_quantize.h: blocks of floats to codes with parameters of their own, ARITHMETIC.md (5), one block after the
// other, so that a block is in a cache still when its codes are made. No torch header.
#pragma once

#include "cpu/kernels/qparams.h"
#include "cpu/kernels/quantize.h"
#include "cpu/kernels/sum_codes.h"

namespace quaver {

// The loops over blocks, and those over a block's elements.
struct BlockNest {
  DynamicNest blocks;
  DynamicNest elements;

  // Neighbours, as most rows are: all of a block is read before the next.
  bool has_runs() const { return elements.loops == 1 && elements.stride[0][kDynamicX] == 1; }
};

inline BlockNest split(const DynamicNest& nest) {
  BlockNest parts;
  for (int loop = 0; loop < nest.loops; ++loop) {
    DynamicNest& part = nest.stride[loop][kDynamicResult] != 0 ? parts.blocks : parts.elements;
    part.push(nest.size[loop], nest.stride[loop]);
  }
  parts.elements.merge();
  return parts;
}

// Blocks [begin, end) in the order of their loops.
template <class T, class Code>
void dynamic_quantize_blocks(const DynamicQuantizeArguments& arguments, const BlockNest& nest, int64_t begin,
                             int64_t end) {
  vectorized_fused([&](auto fused) QUAVER_INLINE {
    const QparamsArguments& qparams = arguments.qparams;
    const int64_t n = nest.elements.numel();
    const int64_t q_stride = inner_stride(nest.elements, kDynamicQ);
    const bool far = arguments.nest.numel() * static_cast<int64_t>(sizeof(T)) >= kFarBytes;
    ElementwiseNest run;
    run.push(n, {1, q_stride, 0, 0});
    for (int64_t block = begin; block < end; ++block) {
      int64_t offset[kDynamicOperands];
      nest.blocks.offsets(block, offset);
      const T* const x = static_cast<const T*>(qparams.x) + offset[kDynamicX];
      Code* const q = static_cast<Code*>(arguments.quantize.q) + offset[kDynamicQ];
      const int64_t result = offset[kDynamicResult];
      float lo = 0.0f;
      float hi = 0.0f;
      widen_one(x, 1, n, far, lo, hi, fused);
      const ScaleAndZeroPoint chosen = choose_qparams(lo, hi, qparams.symmetric, qparams.range, qparams.eps);
      qparams.scale[result] = chosen.scale;
      qparams.zero_point[result] = chosen.zero_point;
      elementwise(run, 0, n, NoDraws(0), x, q, &chosen.scale, &chosen.zero_point,
                  Quantization<QuantizeMode::kOnnx, Code, fused>{qparams.range}, fused);
      if (arguments.sums_blocks) arguments.sums.sum[result] = sum_run(q, q_stride, n);
    }
  });
}

inline void dynamic_quantize_blocks(const DynamicQuantizeArguments& arguments, const BlockNest& nest, int64_t begin,
                                    int64_t end) {
  with_type(arguments.qparams.x_type, [&](auto x_tag) {
    using T = typename decltype(x_tag)::type;
    with_type(arguments.quantize.q_type, [&](auto q_tag) {
      using Code = typename decltype(q_tag)::type;
      dynamic_quantize_blocks<T, Code>(arguments, nest, begin, end);
    });
  });
}

}  // namespace quaver
