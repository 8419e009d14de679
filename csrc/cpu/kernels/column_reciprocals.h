// column_reciprocals.h: 1 / s for each column of rows that have the same scales, made once for all rows. No torch
// header.
#pragma once

#include <vector>

#include "cpu/kernels/quotient.h"
#include "cpu/kernels/walk.h"

namespace quaver {

// Whether a mode takes its codes from them. Each column has a rest and bounds of its own, and with those the products
// take longer than a division of 8 floats does; that of 16 floats takes longer still.
template <QuantizeMode kMode, int kWidth>
inline constexpr bool kTakesColumnReciprocals = kAvoidsDivision<kMode, kWidth> && kWidth == 16;

// None where rows differ, are too few for it to pay, or have a scale or zero point that needs a division.
class ColumnReciprocals {
 public:
  ColumnReciprocals() = default;
  inline __attribute__((always_inline)) ColumnReciprocals(const ElementwiseNest& nest, int64_t elements,
                                                          const float* scale, const int32_t* zero_point,
                                                          CodeRange range) {
    if (!same_in_rows(nest) || elements < kLeastRows * nest.size[nest.loops - 1]) return;
    const int64_t columns = nest.size[nest.loops - 1];
    const int64_t zero_stride = inner_stride(nest, kZeroPoint);
    bool all = true;
    for (int64_t i = 0; i < columns; ++i) all &= avoids_division(scale[i], zero_point[i * zero_stride], range);
    if (!all) return;
    reciprocals_.resize(columns);
    for (int64_t i = 0; i < columns; ++i) reciprocals_[i] = divide(1.0f, scale[i]);
  }

  inline __attribute__((always_inline)) explicit operator bool() const { return !reciprocals_.empty(); }
  inline __attribute__((always_inline)) const float* from(int64_t column) const { return &reciprocals_[column]; }

 private:
  static constexpr int64_t kLeastRows = 4;

  static bool same_in_rows(const ElementwiseNest& nest) {
    if (inner_stride(nest, kScale) != 1) return false;
    for (int loop = 0; loop < nest.loops - 1; ++loop)
      if (nest.stride[loop][kScale] != 0 || nest.stride[loop][kZeroPoint] != 0) return false;
    return true;
  }

  std::vector<float> reciprocals_;
};

}  // namespace quaver
