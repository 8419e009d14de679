// matmul_problem.h: one int8 matmul with its epilogue, as every matmul kernel receives it. No torch header.
//
// out[..., m, n] = epilogue(sum_k (a[..., m, k] - a_zero_point[m]) * (b[..., k, n] - b_zero_point[n]))
//
// Operands are pointers with strides in elements; a stride of 0 repeats a value, which is how batches broadcast and
// how a per-tensor scale serves every row. A null pointer is an argument that was not given.
#pragma once

#include <cstdint>

#include "layout.h"
#include "types.h"

namespace quaver {

inline constexpr int kMaxBatchDims = kMaxRank - 2;

struct MatrixView {
  const void* data = nullptr;
  int64_t batch_stride[kMaxBatchDims] = {};
  int64_t row_stride = 0;
  int64_t column_stride = 0;
};

template <class T>
struct VectorView {
  const T* data = nullptr;
  int64_t batch_stride[kMaxBatchDims] = {};
  int64_t stride = 0;
};

enum class MatmulOutput : int32_t { kInt32, kFloat32, kFloat16, kBFloat16, kInt8, kUint8 };

struct MatmulProblem {
  int64_t m = 0, n = 0, k = 0;
  int32_t batch_dims = 0;
  int64_t batch_size[kMaxBatchDims] = {};

  MatrixView a;  // [..., M, K] int8 or uint8
  MatrixView b;  // [..., K, N] int8 or uint8
  CodeType a_type = CodeType::kInt8;
  CodeType b_type = CodeType::kInt8;
  VectorView<int32_t> a_zero_point;  // [..., M]
  VectorView<int32_t> b_zero_point;  // [..., N]
  VectorView<int32_t> a_sum;         // [..., M] sum over k of a
  VectorView<int32_t> b_sum;         // [..., N] sum over k of b

  void* out = nullptr;  // [..., M, N] contiguous
  MatmulOutput out_type = MatmulOutput::kInt32;

  // ARITHMETIC.md (7), for every output but int32
  VectorView<float> a_scale;  // [..., M]
  VectorView<float> b_scale;  // [..., N]
  VectorView<float> bias;     // [N]
  bool relu = false;          // in (10) too

  // ARITHMETIC.md (8), for int8 and uint8
  VectorView<float> out_scale;         // [..., N]
  VectorView<int32_t> out_zero_point;  // [..., N]
  CodeRange range = {0, 0};

  // ARITHMETIC.md (10) in the place of (7) and (8)
  RequantizeMode mode = RequantizeMode::kFloat;
  VectorView<int32_t> integer_bias;  // [N]

  int64_t batches() const {
    int64_t count = 1;
    for (int dim = 0; dim < batch_dims; ++dim) count *= batch_size[dim];
    return count;
  }
};

// Where the results of each batch of a product go that are not [..., M, N] side by side, in elements: row m is row
// m % rows of image m / rows.
struct ResultPlaces {
  int64_t batch = 0;  // from each to the next
  int64_t image = 0;
  int64_t row = 0;
  int64_t column = 0;
  int64_t rows = 0;  // of an image
};

// int8_linear of so few rows that its product makes their codes by itself: x instead of a, with the parameters that
// come of it. ARITHMETIC.md (5).
inline constexpr int kMostLinearRows = 4;

struct LinearProblem {
  MatmulProblem product;
  const void* x = nullptr;
  FloatType x_type = FloatType::kFloat32;
  int64_t row_offset[kMostLinearRows] = {};  // in elements
  int64_t step = 0;                          // from each element of a row to the next
  bool symmetric = true;
  CodeRange range = {0, 0};
};

}  // namespace quaver
