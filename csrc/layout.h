// layout.h: how a kernel walks over tensors of any rank, stride and granularity. No torch header.
//
// An op on tensors of rank r becomes a nest of loops. Each dimension gives two of them, one over the blocks that share
// a scale and one over the elements of a block; in each loop every operand advances by its own stride. Loops that all
// operands cross in step are merged, so that the common cases end as one, two or three long loops.
#pragma once

#include <cstdint>

namespace quaver {

inline constexpr int kMaxRank = 6;
inline constexpr int kMaxLoops = 2 * kMaxRank;

#if defined(__CUDACC__)
#define QUAVER_LAYOUT_FUNCTION __host__ __device__
#else
#define QUAVER_LAYOUT_FUNCTION
#endif

// Strides are in elements. Loop 0 is the outermost.
template <int kOperands>
struct LoopNest {
  int32_t loops = 0;
  int64_t size[kMaxLoops] = {};
  int64_t stride[kMaxLoops][kOperands] = {};

  QUAVER_LAYOUT_FUNCTION int64_t numel() const {
    int64_t count = 1;
    for (int loop = 0; loop < loops; ++loop) count *= size[loop];
    return count;
  }

  // Element `index` of the nest, counted with the last loop fastest, to each operand's offset.
  QUAVER_LAYOUT_FUNCTION void offsets(int64_t index, int64_t (&offset)[kOperands]) const {
    for (int operand = 0; operand < kOperands; ++operand) offset[operand] = 0;
    for (int loop = loops - 1; loop >= 0; --loop) {
      const int64_t rest = index / size[loop];
      const int64_t step = index - rest * size[loop];
      for (int operand = 0; operand < kOperands; ++operand) offset[operand] += step * stride[loop][operand];
      index = rest;
    }
  }

  void push(int64_t loop_size, const int64_t (&strides)[kOperands]) {
    if (loop_size == 1) return;
    size[loops] = loop_size;
    for (int operand = 0; operand < kOperands; ++operand) stride[loops][operand] = strides[operand];
    ++loops;
  }

  // Puts the loops in the order of one operand's memory, largest stride first, and merges what can be merged.
  void arrange(int operand) {
    for (int i = 1; i < loops; ++i)
      for (int j = i; j > 0 && stride[j - 1][operand] < stride[j][operand]; --j) swap(j - 1, j);
    merge();
  }

  // The loops as some of the operands see them: what only the others could not cross in step is merged.
  template <int kSome>
  LoopNest<kSome> of(const int (&operands)[kSome]) const {
    LoopNest<kSome> some;
    some.loops = loops;
    for (int loop = 0; loop < loops; ++loop) {
      some.size[loop] = size[loop];
      for (int i = 0; i < kSome; ++i) some.stride[loop][i] = stride[loop][operands[i]];
    }
    some.merge();
    return some;
  }

  void merge() {
    int last = 0;
    for (int loop = 1; loop < loops; ++loop) {
      if (in_step(last, loop)) {
        size[last] *= size[loop];
      } else {
        ++last;
        size[last] = size[loop];
      }
      for (int i = 0; i < kOperands; ++i) stride[last][i] = stride[loop][i];
    }
    if (loops > 0) loops = last + 1;
  }

 private:
  bool in_step(int outer, int inner) const {
    for (int operand = 0; operand < kOperands; ++operand)
      if (stride[outer][operand] != size[inner] * stride[inner][operand]) return false;
    return true;
  }

  void swap(int i, int j) {
    const int64_t held_size = size[i];
    size[i] = size[j];
    size[j] = held_size;
    for (int operand = 0; operand < kOperands; ++operand) {
      const int64_t held = stride[i][operand];
      stride[i][operand] = stride[j][operand];
      stride[j][operand] = held;
    }
  }
};

// The operands of the elementwise ops, in the order of their strides: a float tensor and a code tensor of one shape
// and the parameters that they share block by block.
enum ElementwiseOperand { kSource, kTarget, kScale, kZeroPoint, kElementwiseOperands };
using ElementwiseNest = LoopNest<kElementwiseOperands>;

// The operands of a reduction: a tensor and its results, one for each block. A loop inside a block has stride 0 in the
// results.
enum ReductionOperand { kReduced, kResult, kReductionOperands };
using ReductionNest = LoopNest<kReductionOperands>;

// The operands of a reduction whose elements are then replaced one by one: x, q and the results.
enum DynamicOperand { kDynamicX, kDynamicQ, kDynamicResult, kDynamicOperands };
using DynamicNest = LoopNest<kDynamicOperands>;

// The operands of what makes rows of codes: x and its residual, or gate and up. Their loops are those over rows.
enum RowOperand { kRowFirst, kRowSecond, kRowOperands };
using RowNest = LoopNest<kRowOperands>;

// The operands of requantize and rescale: int32 products and results of one shape, a scale for each row, and what each
// column brings.
enum ProductOperand {
  kProductAcc,
  kProductResult,
  kProductAScale,
  kProductBScale,
  kProductOutScale,
  kProductZeroPoint,
  kProductBias,
  kProductOperands
};
using ProductNest = LoopNest<kProductOperands>;

// The loops of a reduction that stay (one round for each result) and those that are folded into a result.
struct SplitReduction {
  ReductionNest kept;
  ReductionNest folded;
};

inline SplitReduction split(const ReductionNest& nest) {
  SplitReduction parts;
  for (int loop = 0; loop < nest.loops; ++loop) {
    ReductionNest& part = nest.stride[loop][kResult] != 0 ? parts.kept : parts.folded;
    part.push(nest.size[loop], nest.stride[loop]);
  }
  return parts;
}

}  // namespace quaver
