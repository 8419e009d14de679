// matmul_rows.h: a chunk of a's rows, as blocks that every instruction set multiplies, with what its rows bring. No
// torch header.
//
// Rows are read where they are, where they have the form that the instructions take (multiply.h), and are copied
// otherwise. A convolution's rows (patches.h) are gathered.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "cpu/kernels/epilogue.h"
#include "cpu/kernels/multiply.h"
#include "cpu/kernels/patches.h"
#include "cpu/kernels/sum_codes.h"

namespace quaver {

using BatchIndex = int64_t[kMaxBatchDims];

inline int64_t offset_of(const BatchIndex& batch, const int64_t (&stride)[kMaxBatchDims]) {
  int64_t offset = 0;
  for (int dim = 0; dim < kMaxBatchDims; ++dim) offset += batch[dim] * stride[dim];
  return offset;
}

// A row or column argument's values [first, first + count); `absent` where it was not given.
template <class T>
void gather(const VectorView<T>& view, const BatchIndex& batch, int64_t first, int count, T absent, T* values) {
  const T* data = view.data ? view.data + offset_of(batch, view.batch_stride) + first * view.stride : nullptr;
  for (int i = 0; i < count; ++i) values[i] = data ? data[i * view.stride] : absent;
}

// Bytes that no constructor fills.
inline std::unique_ptr<uint8_t[]> uninitialized(int64_t bytes) {
  return std::unique_ptr<uint8_t[]>(new uint8_t[bytes]);
}

// From row to row of copies, in bytes: not a power of 2, which would bring many rows to the same places of a cache.
inline int64_t pitch_of(int64_t k, RowForm form) {
  const int64_t bytes = form == RowForm::kWide ? 2 * k : k;
  return (Panel::steps(bytes) | 1) * Panel::kStepCodes;
}

struct RowsOfA {
  const MatmulProblem& problem;
  bool padded;  // codes have the form kTiles already
  RowForm form;
  const Patches* patches = nullptr;  // what rows are made of in the place of problem.a, a group for each batch
};

class MatmulChunk {
 public:
  MatmulChunk(const RowsOfA& source, int64_t rows)
      : source_(source),
        blocks_((rows + kBlockRows - 1) / kBlockRows),
        values_(blocks_.size()),
        moved_sums_(blocks_.size()) {}

  // Rows [first, first + rows) of a batch.
  void take(const BatchIndex& batch, int64_t first, int64_t rows) {
    const MatmulProblem& problem = source_.problem;
    blocks_.resize((rows + kBlockRows - 1) / kBlockRows);
    const uint8_t* a = static_cast<const uint8_t*>(problem.a.data) + offset_of(batch, problem.a.batch_stride);
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const int64_t row = first + static_cast<int64_t>(i) * kBlockRows;
      const int count = static_cast<int>(std::min<int64_t>(first + rows - row, kBlockRows));
      const BlockOfRows there{a + row * problem.a.row_stride, problem.a.row_stride, count};
      if (source_.patches != nullptr) {
        blocks_[i] = gather_patches(i, batch[0], row, count);
      } else {
        blocks_[i] = can_be_read(there) ? there : copy(i, there);
      }
      RowValues& values = values_[i];
      gather(problem.a_scale, batch, row, count, 1.0f, values.scale);
      gather(problem.a_zero_point, batch, row, count, 0, values.zero_point);
      gather(problem.a_sum, batch, row, count, 0, values.sum);
      if (needs_sums()) add_up(i);
    }
  }

  int64_t blocks() const { return static_cast<int64_t>(blocks_.size()); }
  const BlockOfRows& block(int64_t i) const { return blocks_[i]; }
  const RowValues& values(int64_t i) const { return values_[i]; }
  // MovedSums::row
  const int32_t* moved_sums(int64_t i) const { return moved_sums_[i].data(); }

 private:
  const RowsOfA source_;
  std::unique_ptr<uint8_t[]> copies_;
  std::unique_ptr<uint8_t[]> patch_;
  std::vector<BlockOfRows> blocks_;
  std::vector<RowValues> values_;
  std::vector<std::array<int32_t, kBlockRows>> moved_sums_;

  bool moves() const { return source_.form == RowForm::kMoved && source_.problem.a_type == CodeType::kInt8; }
  bool moves_b() const { return source_.form == RowForm::kMoved && source_.problem.b_type == CodeType::kUint8; }
  bool sums_are_absent() const {
    return source_.problem.b_zero_point.data != nullptr && source_.problem.a_sum.data == nullptr;
  }
  bool needs_sums() const { return moves_b() || sums_are_absent(); }

  bool can_be_read(const BlockOfRows& block) const {
    if (moves() || source_.form == RowForm::kWide) return false;
    if (source_.padded) return true;
    const MatmulProblem& problem = source_.problem;
    if (problem.a.column_stride != 1 || problem.k % 4 != 0) return false;
    return source_.form != RowForm::kTiles || (problem.k % Panel::kStepCodes == 0 && block.rows % 16 == 0);
  }

  // Where copies of a block's rows go.
  uint8_t* place_of_copies(size_t i) {
    const int64_t bytes = kBlockRows * pitch_of(source_.problem.k, source_.form);
    if (copies_ == nullptr) copies_ = uninitialized(static_cast<int64_t>(values_.size()) * bytes);
    return copies_.get() + static_cast<int64_t>(i) * bytes;
  }

  BlockOfRows gather_patches(size_t i, int64_t group, int64_t first, int rows) {
    if (patch_ == nullptr) patch_ = uninitialized(source_.problem.k);
    return copies(i, rows, 1, [&](int row) {
      source_.patches->gather(group, first + row, patch_.get());
      return patch_.get();
    });
  }

  BlockOfRows copy(size_t i, const BlockOfRows& block) {
    return copies(i, block.rows, source_.problem.a.column_stride,
                  [&](int row) { return block.codes + row * block.stride; });
  }

  // Rows in the form that is asked for, made of codes_of(row), which are `stride` apart.
  template <class CodesOf>
  BlockOfRows copies(size_t i, int rows, int64_t stride, const CodesOf& codes_of) {
    const int64_t k = source_.problem.k;
    const int64_t pitch = pitch_of(k, source_.form);
    uint8_t* const to = place_of_copies(i);
    for (int row = 0; row < rows; ++row) {
      const uint8_t* const from = codes_of(row);
      if (source_.form == RowForm::kWide) {
        int16_t* const line = reinterpret_cast<int16_t*>(to + row * pitch);
        with_type(source_.problem.a_type, [&](auto tag) {
          using Code = typename decltype(tag)::type;
          take_codes(from, stride, line, [](uint8_t code) QUAVER_INLINE { return static_cast<Code>(code); });
        });
        std::fill(line + k, line + filled(k), int16_t{0});
      } else {
        uint8_t* const line = to + row * pitch;
        const uint8_t by = moves() ? 0x80 : 0;
        take_codes(from, stride, line, [by](uint8_t code) QUAVER_INLINE { return code ^ by; });
        std::fill(line + k, line + filled(k), uint8_t{0});
      }
    }
    return {to, pitch, rows};
  }

  template <class To, class Take>
  void take_codes(const uint8_t* __restrict from, int64_t stride, To* __restrict to, const Take& take) const {
    const int64_t k = source_.problem.k;
    vectorized([&]() QUAVER_INLINE {
      with_step(stride, [&](auto step) QUAVER_INLINE {
        for (int64_t i = 0; i < k; ++i) to[i] = take(from[i * step]);
      });
    });
  }

  // How many codes a row of k has with the zeros behind it.
  int64_t filled(int64_t k) const {
    const int64_t multiple = source_.form == RowForm::kTiles ? Panel::kStepCodes : 4;
    return (k + multiple - 1) / multiple * multiple;
  }

  // The sums of a block's codes, for zero points of b, and for what moving its codes adds.
  void add_up(size_t i) {
    const int32_t k = static_cast<int32_t>(source_.problem.k);
    for (int row = 0; row < blocks_[i].rows; ++row) {
      const int32_t sum = sum_of(blocks_[i].codes + row * blocks_[i].stride, k);
      moved_sums_[i][row] = moves_b() ? wrapping_multiply(sum, 128) : 0;
      if (sums_are_absent()) values_[i].sum[row] = moves() ? wrapping_subtract(sum, wrapping_multiply(k, 128)) : sum;
    }
  }

  int32_t sum_of(const uint8_t* codes, int64_t k) const {
    if (source_.form == RowForm::kWide) return sum_run(reinterpret_cast<const int16_t*>(codes), 1, k);
    if (source_.problem.a_type == CodeType::kUint8 || moves()) return sum_run(codes, 1, k);
    return sum_run(reinterpret_cast<const int8_t*>(codes), 1, k);
  }
};

}  // namespace quaver
