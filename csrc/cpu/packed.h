// packed.h: a matrix b [K, N] of a matmul as int8_prepack leaves it: its panels (kernels/panels.h), one after another.
#pragma once

#include "checks.h"
#include "cpu/kernels/panels.h"

namespace quaver {

inline Shape packed_shape(int64_t k, int64_t n) { return {Panel::count(n), Panel::bytes(k)}; }

// The panels of a matrix [K, N].
inline const uint8_t* packed_panels(const char* op, const char* name, const Tensor& packed, int64_t k, int64_t n) {
  const Shape wanted = packed_shape(k, n);
  QUAVER_CHECK(shape_of(packed) == wanted && packed.is_contiguous(), op, name, " must be int8_prepack's, contiguous ",
               to_words(wanted), " for K = ", k, " and N = ", n, ", got ", to_words(shape_of(packed)));
  return static_cast<const uint8_t*>(packed.const_data_ptr());
}

// The panels of b, or null where they were not given.
inline const uint8_t* packed_panels(const char* op, const char* name, const OptionalTensor& packed, const char* b_name,
                                    const Tensor& b) {
  if (!packed) return nullptr;
  check_companion(op, name, *packed, b.scalar_type(), b_name, b);
  QUAVER_CHECK(b.dim() == 2, op, name, " needs b [K, N] without a batch, got b ", to_words(shape_of(b)));
  return packed_panels(op, name, *packed, b.size(0), b.size(1));
}

}  // namespace quaver
