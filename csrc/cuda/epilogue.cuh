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

__device__ __forceinline__ int32_t corrected(const MatmulProblem& problem, const EpilogueRow& row,
                                             const EpilogueColumn& column, int32_t product) {
  return correct_for_zero_points(product, row.zero_point, column.zero_point, row.sum, column.sum,
                                 static_cast<int32_t>(problem.k));
}

// The bits of a number as a float type, in the lowest bytes of a word.
__device__ __forceinline__ uint32_t float_bits(MatmulOutput type, float v) {
  const uint32_t half = __half_as_ushort(__float2half_rn(v));
  const uint32_t bfloat = __bfloat16_as_ushort(__float2bfloat16_rn(v));
  const uint32_t narrow = type == MatmulOutput::kFloat16 ? half : bfloat;
  return type == MatmulOutput::kFloat32 ? __float_as_uint(v) : narrow;
}

// The bits of a result that is not int32; codes in the fixed mode are not its affair.
__device__ __forceinline__ uint32_t scaled_bits(const MatmulProblem& problem, const EpilogueRow& row,
                                                const EpilogueColumn& column, int32_t acc) {
  const float v = scale_product(acc, row.scale, column.scale, problem.bias.data != nullptr, column.bias, problem.relu);
  if (problem.out_type >= MatmulOutput::kInt8)  // int8 and uint8 differ in their range alone
    return quantize<QuantizeMode::kOnnx>(v, column.out_scale, column.out_zero_point, problem.range);
  return float_bits(problem.out_type, v);
}

__device__ __forceinline__ int32_t fixed_code(const MatmulProblem& problem, const EpilogueRow& row,
                                              const EpilogueColumn& column, int32_t acc) {
  const FixedMultiplier multiplier = fixed_multiplier(row.scale, column.scale, column.out_scale);
  return requantize_fixed(wrapping_add(acc, column.integer_bias), multiplier, problem.relu, column.out_zero_point,
                          problem.range);
}

// The bytes of a result.
__device__ __forceinline__ int size_of(MatmulOutput type) {
  if (type == MatmulOutput::kInt32 || type == MatmulOutput::kFloat32) return 4;
  return type == MatmulOutput::kFloat16 || type == MatmulOutput::kBFloat16 ? 2 : 1;
}

// One result: `product` is the sum of products of the codes themselves, `index` its place in out.
__device__ __forceinline__ void store_result(const MatmulProblem& problem, const EpilogueRow& row,
                                             const EpilogueColumn& column, int32_t product, int64_t index) {
  const int32_t acc = corrected(problem, row, column, product);
  uint32_t bits = acc;
  if (problem.out_type != MatmulOutput::kInt32)
    bits = problem.mode == RequantizeMode::kFixed ? fixed_code(problem, row, column, acc)
                                                  : scaled_bits(problem, row, column, acc);
  switch (size_of(problem.out_type)) {
    case 4:
      static_cast<uint32_t*>(problem.out)[index] = bits;
      return;
    case 2:
      static_cast<uint16_t*>(problem.out)[index] = static_cast<uint16_t>(bits);
      return;
    default:
      static_cast<uint8_t*>(problem.out)[index] = static_cast<uint8_t>(bits);
  }
}

inline constexpr int kResultsOfVector = 4;

// Whether results of four neighbouring columns are stored at once: where they are one aligned access, but not in the
// fixed mode, whose multipliers of two numbers a result are made by dividing in double precision.
__device__ __forceinline__ bool stores_vectors(const MatmulProblem& problem) {
  const uint64_t address = reinterpret_cast<uint64_t>(problem.out);
  return problem.mode != RequantizeMode::kFixed && problem.n % kResultsOfVector == 0 &&
         address % (kResultsOfVector * size_of(problem.out_type)) == 0;
}

// The results of a row in four neighbouring columns; `index` is the first one's place in out.
__device__ __forceinline__ void store_results(const MatmulProblem& problem, const EpilogueRow& row,
                                              const EpilogueColumn (&column)[kResultsOfVector], const int4& products,
                                              int64_t index) {
  const int32_t product[kResultsOfVector] = {products.x, products.y, products.z, products.w};
  uint32_t bits[kResultsOfVector];
#pragma unroll
  for (int j = 0; j < kResultsOfVector; ++j) {
    bits[j] = corrected(problem, row, column[j], product[j]);
    if (problem.out_type != MatmulOutput::kInt32) bits[j] = scaled_bits(problem, row, column[j], bits[j]);
  }
  if (size_of(problem.out_type) == 4) {
    const Vector<uint32_t, kResultsOfVector> words{{bits[0], bits[1], bits[2], bits[3]}};
    store_vector(words, static_cast<uint32_t*>(problem.out) + index);
  } else if (size_of(problem.out_type) == 2) {
    const Vector<uint16_t, kResultsOfVector> halves{
        {__byte_perm(bits[0], bits[1], 0x5410), __byte_perm(bits[2], bits[3], 0x5410)}};
    store_vector(halves, static_cast<uint16_t*>(problem.out) + index);
  } else {
    store_vector(pack_bytes(bits), static_cast<uint8_t*>(problem.out) + index);
  }
}

}  // namespace quaver
