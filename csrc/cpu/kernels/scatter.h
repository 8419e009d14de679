// scatter.h: where a block's results go: straight to their rows, or, where a row's results are no neighbours, to a
// block of their own first and from there, transposed, to their columns. No torch header.
#pragma once

#include <algorithm>
#include <memory>

#include "cpu/kernels/epilogue.h"
#include "cpu/kernels/transpose.h"

namespace quaver {

struct BlockPlace {
  int64_t batch = 0;
  int64_t row = 0;
  int64_t column = 0;
};

class Scatter {
 public:
  struct Target {
    void* out;
    int64_t pitch;
  };

  Scatter(const MatmulProblem& problem, const ResultPlaces& places)
      : out_(static_cast<char*>(problem.out)), places_(places), bytes_(size_of(problem.out_type)) {
    if (places.column != 1) blocks_.reset(new char[2 * kBlockBytes]);
  }

  // Where the loops store a block, the first or the second of two at once.
  Target target(const BlockPlace& place, int turn) const {
    if (blocks_ != nullptr) return {blocks_.get() + turn * kBlockBytes, Panel::kColumns};
    return {out_ + place_of(place.batch, place.row, place.column) * bytes_, places_.row};
  }

  // After it is stored.
  void finish(const StoredBlock& block, const BlockPlace& place) const {
    if (blocks_ == nullptr || block.rows == 0) return;
    if (bytes_ == 1) return move<uint8_t>(block, place);
    if (bytes_ == 2) return move<uint16_t>(block, place);
    move<uint32_t>(block, place);
  }

 private:
  static constexpr int64_t kBlockBytes = int64_t{kBlockRows} * Panel::kColumns * 4;

  char* out_;
  ResultPlaces places_;
  int64_t bytes_;  // of a result
  std::unique_ptr<char[]> blocks_;

  static int64_t size_of(MatmulOutput type) {
    constexpr int kBytes[] = {4, 4, 2, 2, 1, 1};
    return kBytes[static_cast<int>(type)];
  }

  int64_t place_of(int64_t batch, int64_t row, int64_t column) const {
    return batch * places_.batch + row / places_.rows * places_.image + row % places_.rows * places_.row +
           column * places_.column;
  }

  // The rows of an image are neighbours in each column.
  template <class T>
  void move(const StoredBlock& block, const BlockPlace& place) const {
    const T* const from = static_cast<const T*>(block.out);
    for (int row = 0; row < block.rows;) {
      const int64_t left = places_.rows - (place.row + row) % places_.rows;
      const int64_t count = std::min<int64_t>(block.rows - row, left);
      T* const to = reinterpret_cast<T*>(out_) + place_of(place.batch, place.row + row, place.column);
      transpose<T>({from + row * Panel::kColumns, Panel::kColumns}, count, block.columns->count, {to, places_.column});
      row += static_cast<int>(count);
    }
  }
};

}  // namespace quaver
