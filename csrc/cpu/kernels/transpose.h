// transpose.h: matrices whose rows become columns, in squares that vectors hold. No torch header.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

namespace quaver {

// Rows of a square of `kLanes` by `kLanes`.
template <class T>
struct Square {
  static constexpr int kLanes = 16 / sizeof(T);
  typedef T Row __attribute__((vector_size(16)));  // as `using`, it would be no vector

  Row rows[kLanes];

  // Each pass puts the elements of a row between those of the row half a square below: after as many as the lanes'
  // number has bits, rows are columns.
  void transpose() {
    for (int lanes = kLanes; lanes > 1; lanes /= 2) interleave(std::make_integer_sequence<int, kLanes>());
  }

 private:
  template <int... kLane>
  void interleave(std::integer_sequence<int, kLane...>) {
    Row next[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      const Row a = rows[i];
      const Row b = rows[i + kLanes / 2];
      next[2 * i] = __builtin_shufflevector(a, b, (kLane / 2 + kLane % 2 * kLanes)...);
      next[2 * i + 1] = __builtin_shufflevector(a, b, (kLanes / 2 + kLane / 2 + kLane % 2 * kLanes)...);
    }
    std::memcpy(rows, next, sizeof rows);
  }
};

template <class T>
struct Matrix {
  T* data;
  int64_t pitch;  // from row to row

  T* at(int64_t row, int64_t column) const { return data + row * pitch + column; }
};

// Element (row, column) of `from` to element (column, row) of `to`. Not a part of its callers, in whose loops there
// are no registers left for it.
template <class T>
__attribute__((noinline)) void transpose(const Matrix<const T>& from, int64_t rows, int64_t columns,
                                         const Matrix<T>& to) {
  constexpr int kLanes = Square<T>::kLanes;
  const int64_t whole_rows = rows - rows % kLanes;
  const int64_t whole_columns = columns - columns % kLanes;
  for (int64_t column = 0; column < whole_columns; column += kLanes)
    for (int64_t row = 0; row < whole_rows; row += kLanes) {
      Square<T> square;
      for (int i = 0; i < kLanes; ++i) std::memcpy(&square.rows[i], from.at(row + i, column), 16);
      square.transpose();
      for (int i = 0; i < kLanes; ++i) std::memcpy(to.at(column + i, row), &square.rows[i], 16);
    }
  for (int64_t column = 0; column < columns; ++column)
    for (int64_t row = column < whole_columns ? whole_rows : 0; row < rows; ++row)
      *to.at(column, row) = *from.at(row, column);
}

}  // namespace quaver
