// matmul_rows.h: a chunk of a's rows, as blocks that every instruction set multiplies, with what its rows bring. No
// torch header.
//
// Rows are read where they are, but for those that the instructions cannot take so, which are copied: those that end
// within a step of a panel, that are not contiguous, whose codes are moved (multiply.h), and on AMX a block of rows
// that is no whole tile. A convolution's rows (patches.h) are gathered.
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

// From row to row of copies: not a power of 2, which would bring many rows to the same places of a cache.
inline int64_t pitch_of(int64_t k) { return (Panel::steps(k) + 1 - Panel::steps(k) % 2) * Panel::kStepCodes; }

struct RowsOfA {
  const MatmulProblem& problem;
  bool padded;       // rows are followed by zeros to a whole step, and by rows that can be read to a whole tile
  bool moved;        // int8 codes are moved by 128
  bool whole_tiles;  // blocks are read as 16 or 32 rows
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
  std::vector<BlockOfRows> blocks_;
  std::vector<RowValues> values_;
  std::vector<std::array<int32_t, kBlockRows>> moved_sums_;

  bool moves() const { return source_.moved && source_.problem.a_type == CodeType::kInt8; }
  bool moves_b() const { return source_.moved && source_.problem.b_type == CodeType::kUint8; }
  bool sums_are_absent() const {
    return source_.problem.b_zero_point.data != nullptr && source_.problem.a_sum.data == nullptr;
  }
  bool needs_sums() const { return moves_b() || sums_are_absent(); }

  bool can_be_read(const BlockOfRows& block) const {
    if (moves()) return false;
    if (source_.padded) return true;
    const MatmulProblem& problem = source_.problem;
    return problem.a.column_stride == 1 && problem.k % Panel::kStepCodes == 0 &&
           (!source_.whole_tiles || block.rows % 16 == 0);
  }

  // Where copies of a block's rows go, pitch_of(k) apart.
  uint8_t* place_of_copies(size_t i) {
    const int64_t bytes = kBlockRows * pitch_of(source_.problem.k);
    if (copies_ == nullptr) copies_ = uninitialized(static_cast<int64_t>(values_.size()) * bytes);
    return copies_.get() + static_cast<int64_t>(i) * bytes;
  }

  BlockOfRows gather_patches(size_t i, int64_t group, int64_t first, int rows) {
    const int64_t k = source_.problem.k;
    const int64_t pitch = pitch_of(k);
    uint8_t* const to = place_of_copies(i);
    const bool moved = moves();
    for (int row = 0; row < rows; ++row) {
      uint8_t* __restrict line = to + row * pitch;
      source_.patches->gather(group, first + row, line);
      if (moved)
        vectorized([&]() QUAVER_INLINE {
          for (int64_t j = 0; j < k; ++j) line[j] ^= 0x80;
        });
      std::memset(line + k, 0, Panel::steps(k) * Panel::kStepCodes - k);
    }
    return {to, pitch, rows};
  }

  BlockOfRows copy(size_t i, const BlockOfRows& block) {
    const MatmulProblem& problem = source_.problem;
    const int64_t pitch = pitch_of(problem.k);
    uint8_t* const to = place_of_copies(i);
    const uint8_t by = moves() ? 0x80 : 0;
    for (int row = 0; row < block.rows; ++row) {
      const uint8_t* __restrict from = block.codes + row * block.stride;
      uint8_t* __restrict line = to + row * pitch;
      vectorized([&]() QUAVER_INLINE {
        if (problem.a.column_stride == 1) {
          for (int64_t k = 0; k < problem.k; ++k) line[k] = from[k] ^ by;
        } else {
          for (int64_t k = 0; k < problem.k; ++k) line[k] = from[k * problem.a.column_stride] ^ by;
        }
      });
      std::memset(line + problem.k, 0, Panel::steps(problem.k) * Panel::kStepCodes - problem.k);
    }
    return {to, pitch, block.rows};
  }

  // The sums of a block's codes, for zero points of b, and for what moving its codes adds.
  void add_up(size_t i) {
    const MatmulProblem& problem = source_.problem;
    const int32_t k = static_cast<int32_t>(problem.k);
    for (int row = 0; row < blocks_[i].rows; ++row) {
      const uint8_t* codes = blocks_[i].codes + row * blocks_[i].stride;
      const bool is_signed = problem.a_type == CodeType::kInt8 && !moves();
      const int32_t sum = is_signed ? sum_run(reinterpret_cast<const int8_t*>(codes), 1, k) : sum_run(codes, 1, k);
      moved_sums_[i][row] = moves_b() ? wrapping_multiply(sum, 128) : 0;
      if (sums_are_absent()) values_[i].sum[row] = moves() ? wrapping_subtract(sum, wrapping_multiply(k, 128)) : sum;
    }
  }
};

}  // namespace quaver
