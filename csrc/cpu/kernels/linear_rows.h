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
    pitch = pitch_of(length);
    q = uninitialized(rows * pitch);
    scale.reset(new float[rows]);
    zero_point.reset(new int32_t[rows]);
  }
};

template <class T>
void quantize_linear_rows(const LinearRows& rows, int64_t begin, int64_t end) {
  vectorized([&]() QUAVER_INLINE {
    const CodeRange range = rows.range;
    for (int64_t row = begin; row < end; ++row) {
      int64_t offset[kRowOperands];
      rows.nest.offsets(row, offset);
      const T* __restrict from = static_cast<const T*>(rows.x) + offset[kRowFirst];
      uint8_t* __restrict q = rows.q.get() + row * rows.pitch;
      float lo = 0.0f;
      float hi = 0.0f;
      widen_one(from, rows.step, rows.length, lo, hi);
      const ScaleAndZeroPoint chosen = choose_qparams(lo, hi, rows.symmetric, range, 0.0f);
      with_step(rows.step, [&](auto step) QUAVER_INLINE {
        for (int64_t i = 0; i < rows.length; ++i)
          q[i] = static_cast<uint8_t>(
              quantize<QuantizeMode::kOnnx>(to_float(from[i * step]), chosen.scale, chosen.zero_point, range));
      });
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
