// linear_rows.h: rows of floats to the codes that a matmul takes, each with its own parameters, ARITHMETIC.md (5). No
// torch header.
#pragma once

#include "cpu/kernels/matmul_rows.h"
#include "cpu/kernels/row_codes.h"

namespace quaver {

// x as rows, and memory for what they become: whole tiles of rows, each row followed by zeros to a whole step.
struct LinearRows {
  RowNest nest;  // over the rows
  const void* x;
  FloatType x_type;
  int64_t step;  // from an element of a row to the next
  int64_t count;
  int64_t length;
  bool symmetric;
  CodeRange range;
  int64_t pitch;
  std::unique_ptr<uint8_t[]> q;
  std::unique_ptr<float[]> scale;
  std::unique_ptr<int32_t[]> zero_point;

  void allocate() {
    constexpr int64_t kTile = 16;
    const int64_t rows = (count + kTile - 1) / kTile * kTile;
    pitch = pitch_of(length, RowForm::kTiles);
    q = uninitialized(rows * pitch);
    scale.reset(new float[rows]);
    zero_point.reset(new int32_t[rows]);
  }
};

template <class T>
void quantize_linear_rows(const LinearRows& rows, int64_t begin, int64_t end) {
  vectorized_fused([&](auto fused) QUAVER_INLINE {
    for (int64_t row = begin; row < end; ++row) {
      int64_t offset[kRowOperands];
      rows.nest.offsets(row, offset);
      const T* const x = static_cast<const T*>(rows.x) + offset[kRowFirst];
      uint8_t* const q = rows.q.get() + row * rows.pitch;
      const ScaleAndZeroPoint chosen = quantize_run(x, rows.step, rows.length, q, rows.symmetric, rows.range, fused);
      std::memset(q + rows.length, 0, rows.pitch - rows.length);
      rows.scale[row] = chosen.scale;
      rows.zero_point[row] = chosen.zero_point;
    }
  });
}

inline void quantize_linear_rows(const LinearRows& rows, int64_t begin, int64_t end) {
  with_type(rows.x_type, [&](auto tag) { quantize_linear_rows<typename decltype(tag)::type>(rows, begin, end); });
}

}  // namespace quaver
