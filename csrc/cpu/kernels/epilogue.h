// epilogue.h: a block's sums of products to results, ARITHMETIC.md (6)-(8) and (10), row by row. No torch header.
#pragma once

#include <type_traits>

#include "arith.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/multiply.h"
#include "matmul_problem.h"

namespace quaver {

template <class T>
inline constexpr bool kIsCode = std::is_same_v<T, int8_t> || std::is_same_v<T, uint8_t>;

// What a panel's columns bring. Beyond the last column stand values of no meaning, but of no harm.
struct alignas(64) ColumnValues {
  float scale[Panel::kColumns];
  float bias[Panel::kColumns];
  float out_scale[Panel::kColumns];
  int32_t out_zero_point[Panel::kColumns];
  int32_t integer_bias[Panel::kColumns];
  int32_t zero_point[Panel::kColumns];
  int32_t sum[Panel::kColumns];  // of b's codes, less K zero points
  int64_t first;                 // column of out
  int count;
};

// What a block's rows bring.
struct RowValues {
  float scale[kBlockRows];
  int32_t zero_point[kBlockRows];
  int32_t sum[kBlockRows];  // of a's codes
};

// A block whose products are there, and whose results are to be stored.
struct StoredBlock {
  const MatmulProblem* problem = nullptr;
  const ColumnValues* columns = nullptr;
  const RowValues* row_values = nullptr;
  const BlockSums* sums = nullptr;
  void* out = nullptr;  // the first result
  int64_t pitch = 0;    // from row to row of results, in elements
  int rows = 0;
};

// (6). The sums of both operands' codes, each by the other's zero point; those of b have taken off the term of both.
QUAVER_FUNCTION int32_t less_zero_points(int32_t product, int32_t a_zero_point, int32_t a_sum, int32_t b_zero_point,
                                         int32_t b_sum) {
  return wrapping_subtract(wrapping_subtract(product, wrapping_multiply(a_zero_point, b_sum)),
                           wrapping_multiply(b_zero_point, a_sum));
}

inline bool has_zero_points(const MatmulProblem& problem) {
  return problem.a_zero_point.data != nullptr || problem.b_zero_point.data != nullptr;
}

// The multipliers of a panel's columns in the fixed mode: made again only for a row whose scale is another.
struct FixedMultipliers {
  int32_t significand[Panel::kColumns];
  int32_t shift[Panel::kColumns];
  float a_scale;
  bool made = false;

  inline __attribute__((always_inline)) void make(float scale, const ColumnValues& column) {
    if (made && scale == a_scale) return;
    for (int n = 0; n < Panel::kColumns; ++n) {
      const FixedMultiplier multiplier = fixed_multiplier(scale, column.scale[n], column.out_scale[n]);
      significand[n] = multiplier.significand;
      shift[n] = multiplier.shift;
    }
    a_scale = scale;
    made = true;
  }
};

// The equations as they stand, for compilers to vectorize. Whole rows of a panel are written where they belong; arrays
// are copied by loops, since a vector that is read soon after it was written in parts is waited for.
template <class Out>
struct Epilogue : StoredBlock {
  explicit Epilogue(const StoredBlock& block) : StoredBlock(block) {}

  inline __attribute__((always_inline)) void row(int i) {
    const ColumnValues& __restrict column = *columns;
    const int32_t* __restrict products = (*sums)[i];
    int32_t without[Panel::kColumns];
    if (has_zero_points(*problem)) {
      for (int n = 0; n < Panel::kColumns; ++n)
        without[n] = less_zero_points(products[n], row_values->zero_point[i], row_values->sum[i], column.zero_point[n],
                                      column.sum[n]);
      products = without;
    }
    Out* __restrict to = static_cast<Out*>(out) + i * pitch;
    if (column.count == Panel::kColumns) return store_row(i, products, to);
    Out results[Panel::kColumns];
    store_row(i, products, results);
    std::memcpy(to, results, column.count * sizeof(Out));
  }

 private:
  FixedMultipliers multipliers;

  inline __attribute__((always_inline)) void store_row(int i, const int32_t* __restrict acc, Out* __restrict to) {
    const ColumnValues& __restrict column = *columns;
    if constexpr (kIsCode<Out>)
      if (problem->mode == RequantizeMode::kFixed) return store_fixed_row(i, acc, to);
    const float a_scale = row_values->scale[i];
    const bool has_bias = problem->bias.data != nullptr;
    for (int n = 0; n < Panel::kColumns; ++n) {
      if constexpr (std::is_same_v<Out, int32_t>) {
        to[n] = acc[n];
      } else {
        const float v = scale_product(acc[n], a_scale, column.scale[n], has_bias, column.bias[n], problem->relu);
        if constexpr (kIsCode<Out>) {
          to[n] = static_cast<Out>(
              quantize<QuantizeMode::kOnnx>(v, column.out_scale[n], column.out_zero_point[n], problem->range));
        } else {
          from_float(v, to[n]);
        }
      }
    }
  }

  inline __attribute__((always_inline)) void store_fixed_row(int i, const int32_t* __restrict acc, Out* __restrict to) {
    const ColumnValues& __restrict column = *columns;
    multipliers.make(row_values->scale[i], column);
    for (int n = 0; n < Panel::kColumns; ++n)
      to[n] = static_cast<Out>(requantize_fixed(wrapping_add(acc[n], column.integer_bias[n]),
                                                {multipliers.significand[n], multipliers.shift[n]}, problem->relu,
                                                column.out_zero_point[n], problem->range));
  }
};

}  // namespace quaver
