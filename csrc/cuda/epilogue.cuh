// epilogue.cuh: every matmul's last stage: int32 product -> zero-point terms -> scale -> bias -> ReLU -> int32, float,
// float16, bfloat16, int8 or uint8. ARITHMETIC.md (6)-(8) and (10). All of its choices are run-time branches, the same
// for all threads of a launch.
#pragma once

#include "arith.h"
#include "matmul_problem.h"
#include "vec.cuh"

namespace quaver {

// A batch's place in each batch dimension.
struct BatchPlace {
  int64_t index[kMaxBatchDims];
};

// `batch` counts with the last dimension fastest.
__device__ __forceinline__ BatchPlace batch_place(const MatmulProblem& problem, int64_t batch) {
  BatchPlace place{};
#pragma unroll
  for (int dim = kMaxBatchDims - 1; dim >= 0; --dim) {
    if (dim < problem.batch_dims) {
      const int64_t rest = batch / problem.batch_size[dim];
      place.index[dim] = batch - rest * problem.batch_size[dim];
      batch = rest;
    }
  }
  return place;
}

__device__ __forceinline__ int64_t offset_of(const BatchPlace& place, const int64_t (&stride)[kMaxBatchDims]) {
  int64_t offset = 0;
#pragma unroll
  for (int dim = 0; dim < kMaxBatchDims; ++dim) offset += place.index[dim] * stride[dim];
  return offset;
}

// Row or column `index` of an argument, or `absent` where it was not given.
template <class T>
__device__ __forceinline__ T value_at(const VectorView<T>& view, const BatchPlace& place, int64_t index, T absent) {
  if (view.data == nullptr) return absent;
  return view.data[offset_of(place, view.batch_stride) + index * view.stride];
}

// What one row, and what one column, brings to the results in it.
struct EpilogueRow {
  int32_t zero_point;
  int32_t sum;
  float scale;
};
struct EpilogueColumn {
  int32_t zero_point;
  int32_t sum;
  float scale;
  float bias;
  float out_scale;
  int32_t out_zero_point;
  int32_t integer_bias;
};

__device__ __forceinline__ EpilogueRow epilogue_row(const MatmulProblem& problem, const BatchPlace& place,
                                                    int64_t row) {
  return {value_at(problem.a_zero_point, place, row, 0), value_at(problem.a_sum, place, row, 0),
          value_at(problem.a_scale, place, row, 1.0f)};
}

__device__ __forceinline__ EpilogueColumn epilogue_column(const MatmulProblem& problem, const BatchPlace& place,
                                                          int64_t column) {
  return {value_at(problem.b_zero_point, place, column, 0), value_at(problem.b_sum, place, column, 0),
          value_at(problem.b_scale, place, column, 1.0f),   value_at(problem.bias, place, column, 0.0f),
          value_at(problem.out_scale, place, column, 1.0f), value_at(problem.out_zero_point, place, column, 0),
          value_at(problem.integer_bias, place, column, 0)};
}

// One result: `product` is the sum of products of the codes themselves, `index` its place in out.
__device__ __forceinline__ void store_result(const MatmulProblem& problem, const EpilogueRow& row,
                                             const EpilogueColumn& column, int32_t product, int64_t index) {
  const int32_t acc = correct_for_zero_points(product, row.zero_point, column.zero_point, row.sum, column.sum,
                                              static_cast<int32_t>(problem.k));
  if (problem.out_type == MatmulOutput::kInt32) {
    static_cast<int32_t*>(problem.out)[index] = acc;
    return;
  }
  if (problem.mode == RequantizeMode::kFixed) {  // codes
    const FixedMultiplier multiplier = fixed_multiplier(row.scale, column.scale, column.out_scale);
    static_cast<uint8_t*>(problem.out)[index] = static_cast<uint8_t>(requantize_fixed(
        wrapping_add(acc, column.integer_bias), multiplier, problem.relu, column.out_zero_point, problem.range));
    return;
  }
  const float v = scale_product(acc, row.scale, column.scale, problem.bias.data != nullptr, column.bias, problem.relu);
  switch (problem.out_type) {
    case MatmulOutput::kFloat32:
      from_float(v, static_cast<float*>(problem.out)[index]);
      return;
    case MatmulOutput::kFloat16:
      from_float(v, static_cast<__half*>(problem.out)[index]);
      return;
    case MatmulOutput::kBFloat16:
      from_float(v, static_cast<__nv_bfloat16*>(problem.out)[index]);
      return;
    default:  // int8 and uint8 differ in their range alone
      static_cast<uint8_t*>(problem.out)[index] = static_cast<uint8_t>(
          quantize<QuantizeMode::kOnnx>(v, column.out_scale, column.out_zero_point, problem.range));
  }
}

}  // namespace quaver
