// arguments.h: what the kernels of each stage receive, on the CPU and on CUDA alike: raw pointers, how to walk over
// them, and the choices of the op. No torch header. The matmuls' is matmul_problem.h.
#pragma once

#include "layout.h"
#include "types.h"

namespace quaver {

// x to the scale and zero point of each block, ARITHMETIC.md (4).
struct QparamsArguments {
  ReductionNest nest;  // x to blocks
  const void* x;
  FloatType x_type;
  float* scale;         // [blocks]
  int32_t* zero_point;  // [blocks]
  int64_t blocks;
  bool symmetric;
  CodeRange range;
  float eps;  // 0: none
};

// x to q, ARITHMETIC.md (2).
struct QuantizeArguments {
  ElementwiseNest nest;  // x to q; in the mode kStochastic, elements are numbered as the nest counts them
  const void* x;
  FloatType x_type;
  void* q;
  CodeType q_type;
  const float* scale;
  const int32_t* zero_point;  // null: 0 everywhere
  CodeRange range;
  QuantizeMode mode;
  int64_t seed;
};

// Codes to their sums along one dimension: what matmuls with zero points need, ARITHMETIC.md (6).
struct SumArguments {
  ReductionNest nest;  // q to sums
  const void* q;
  CodeType q_type;
  int32_t* sum;  // [sums]
  int64_t sums;
};

// x to q with the parameters of its own blocks, ARITHMETIC.md (5): the stages that it is made of, and the loops over
// all of x, q and blocks for a kernel that does them at once.
struct DynamicQuantizeArguments {
  QparamsArguments qparams;
  QuantizeArguments quantize;
  SumArguments sums;  // of rows; sum is null where nobody asked
  bool sums_blocks;   // the rows are the blocks
  DynamicNest nest;
};

// The longest row that is held between its making and its quantization.
inline constexpr int64_t kLongestHeldRow = 16384;

// Rows of numbers that a kernel has just made to codes, each with its own parameters, ARITHMETIC.md (5). The results
// are contiguous, and the codes' type is in the range alone.
struct RowCodes {
  int64_t rows;
  int64_t length;
  uint8_t* q;           // [rows, length]
  float* scale;         // [rows]
  int32_t* zero_point;  // [rows]
  int32_t* row_sum;     // [rows]; null where nobody asked
  bool symmetric;
  CodeRange range;
};

// x and residual to q, ARITHMETIC.md (11): all but the loops.
struct RmsNormData {
  const void* x;
  const void* residual;  // null: none
  void* residual_out;    // contiguous; null where there is no residual
  FloatType x_type;      // of all three
  int64_t x_step;        // from an element of a row to the next
  int64_t residual_step;
  const void* weight;  // contiguous
  FloatType weight_type;
  float eps;
  RowCodes codes;
};

struct RmsNormArguments {
  RowNest nest;
  RmsNormData data;
};

// gate and up to q, ARITHMETIC.md (12): all but the loops.
struct SiluMulData {
  const void* gate;
  const void* up;
  FloatType type;
  int64_t gate_step;
  int64_t up_step;
  RowCodes codes;
};

struct SiluMulArguments {
  RowNest nest;
  SiluMulData data;
};

// acc to q, ARITHMETIC.md (7) and (8) or (10): all but the loops.
struct RequantizeData {
  const int32_t* acc;
  void* q;
  CodeType q_type;
  const float* a_scale;
  const float* b_scale;
  const float* out_scale;
  const int32_t* out_zero_point;  // null: 0 everywhere
  const float* bias;              // null: none, or mode kFixed
  const int32_t* integer_bias;    // null: none, or mode kFloat
  bool relu;
  CodeRange range;
  RequantizeMode mode;
};

struct RequantizeArguments {
  ProductNest nest;
  RequantizeData data;
};

// acc to y, ARITHMETIC.md (7): all but the loops.
struct RescaleData {
  const int32_t* acc;
  void* y;
  FloatType y_type;
  const float* a_scale;
  const float* b_scale;
  const float* bias;  // null: none
  bool relu;
};

struct RescaleArguments {
  ProductNest nest;
  RescaleData data;
};

// q to x, ARITHMETIC.md (3).
struct DequantizeArguments {
  ElementwiseNest nest;  // q to x
  const void* q;
  CodeType q_type;
  void* x;
  FloatType x_type;
  const float* scale;
  const int32_t* zero_point;  // null: 0 everywhere
};

// x to what its codes stand for, or to where these are not clamped: ARITHMETIC.md (9).
struct FakeQuantizeArguments {
  ElementwiseNest nest;  // x to the result; numbered as QuantizeArguments'
  const void* x;
  FloatType x_type;
  void* result;  // x's type, or bool
  const float* scale;
  const int32_t* zero_point;  // null: 0 everywhere
  CodeRange range;
  QuantizeMode mode;
  int64_t seed;
};

}  // namespace quaver
