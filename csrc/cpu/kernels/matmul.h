// matmul.h: an int8 matmul with its epilogue, ARITHMETIC.md (6)-(8) and (10), in blocks of 32 rows and 32 columns. No
// torch header.
//
// A task is a panel of b (panels.h) and a chunk of a's rows that stays in a core's second cache. A block's products go
// through the epilogue at once: no matrix of them is ever in memory. A convolution is such a matmul, whose rows are
// gathered (patches.h) and whose results may lie across (scatter.h).
#pragma once

#include <algorithm>
#include <memory>
#include <optional>

#include "cpu/kernels/epilogue.h"
#include "cpu/kernels/epilogue_avx2.h"
#include "cpu/kernels/epilogue_avx512.h"
#include "cpu/kernels/matmul_rows.h"
#include "cpu/kernels/multiply.h"
#include "cpu/kernels/multiply_amx.h"
#include "cpu/kernels/multiply_avx2.h"
#include "cpu/kernels/panels.h"
#include "cpu/kernels/scatter.h"

namespace quaver {

inline RowForm row_form(CpuCapability capability) {
  if (capability == CpuCapability::kAmx) return RowForm::kTiles;
  if (capability == CpuCapability::kAvxVnni || capability == CpuCapability::kAvx512Vnni) return RowForm::kMoved;
  return capability == CpuCapability::kAvx2 ? RowForm::kWide : RowForm::kFours;
}

template <class A, class B>
MultiplyBlock choose_multiply(CpuCapability capability) {
#if defined(__x86_64__)
  if (capability >= CpuCapability::kAvx512Vnni) return multiply_avx512_vnni<B>;
  if (capability == CpuCapability::kAvx512) return multiply_avx512<A, B>;
  if (capability == CpuCapability::kAvxVnni) return multiply_avx_vnni<B>;
  if (capability == CpuCapability::kAvx2) return multiply_avx2<B>;
#endif
  return multiply_portable<A, B>;
}

// How a matmul is cut, in the order in which a thread takes the tasks: panels fastest, then chunks, then batches.
struct MatmulTasks {
  static constexpr int64_t kChunkBytes = 1 << 20;  // half of a second cache
  static constexpr int64_t kMostRows = 512;
  static constexpr int64_t kProductsPerThread = 1 << 22;  // what is worth a thread

  int64_t rows;  // of a chunk
  int64_t chunks;
  int64_t panels;

  explicit MatmulTasks(const MatmulProblem& problem) {
    const int64_t fit = kChunkBytes / pitch_of(problem.k, row_form(cpu_capability())) / kBlockRows * kBlockRows;
    rows = std::min(std::clamp<int64_t>(fit, kBlockRows, kMostRows), problem.m);
    chunks = (problem.m + rows - 1) / rows;
    panels = Panel::count(problem.n);
  }

  int64_t count(const MatmulProblem& problem) const { return problem.batches() * chunks * panels; }
  int64_t grain(const MatmulProblem& problem) const {
    const int64_t products = rows * Panel::kColumns * std::max<int64_t>(problem.k, 1);
    return std::max<int64_t>(kProductsPerThread / products, 1);
  }
};

inline void batch_index(const MatmulProblem& problem, int64_t batch, BatchIndex& index) {
  for (int dim = kMaxBatchDims - 1; dim >= 0; --dim) {
    index[dim] = dim < problem.batch_dims ? batch % problem.batch_size[dim] : 0;
    if (dim < problem.batch_dims) batch /= problem.batch_size[dim];
  }
}

// What a panel's columns bring; `panel` has the sums of their codes, and is null where nothing needs them.
inline void gather_columns(const MatmulProblem& problem, const BatchIndex& batch, int64_t first, const uint8_t* panel,
                           ColumnValues& columns) {
  const int count = static_cast<int>(std::min<int64_t>(problem.n - first, Panel::kColumns));
  columns.first = first;
  columns.count = count;
  for (int n = count; n < Panel::kColumns; ++n) columns.scale[n] = columns.out_scale[n] = 1.0f;
  gather(problem.b_scale, batch, first, count, 1.0f, columns.scale);
  gather(problem.bias, batch, first, count, 0.0f, columns.bias);
  gather(problem.out_scale, batch, first, count, 1.0f, columns.out_scale);
  gather(problem.out_zero_point, batch, first, count, 0, columns.out_zero_point);
  gather(problem.integer_bias, batch, first, count, 0, columns.integer_bias);
  gather(problem.b_zero_point, batch, first, count, 0, columns.zero_point);
  if (problem.b_sum.data != nullptr) {
    gather(problem.b_sum, batch, first, count, 0, columns.sum);
  } else if (panel != nullptr) {
    std::memcpy(columns.sum, panel + Panel::steps(problem.k) * Panel::kStepBytes, sizeof columns.sum);
  } else {
    std::memset(columns.sum, 0, sizeof columns.sum);
  }
  for (int n = 0; n < count; ++n)
    columns.sum[n] =
        wrapping_subtract(columns.sum[n], wrapping_multiply(static_cast<int32_t>(problem.k), columns.zero_point[n]));
}

inline PanelSource panel_source(const MatmulProblem& problem, const BatchIndex& batch, int64_t first) {
  const MatrixView& b = problem.b;
  return {static_cast<const uint8_t*>(b.data) + offset_of(batch, b.batch_stride) + first * b.column_stride,
          b.row_stride,
          b.column_stride,
          problem.k,
          static_cast<int>(std::min<int64_t>(problem.n - first, Panel::kColumns)),
          problem.b_type};
}

using StoreBlock = void (*)(const StoredBlock& block);
using MultiplyAndStore = void (*)(const BlockOfRows& a, const uint8_t* panel, int64_t steps, const StoredBlock& pending,
                                  BlockSums& sums);

template <class Out>
void store_block(const StoredBlock& block) {
  vectorized([&]() QUAVER_INLINE {
    Epilogue<Out> epilogue(block);
    for (int row = 0; row < block.rows; ++row) epilogue.row(row);
  });
}

#if defined(__x86_64__)
template <class Code>
QUAVER_AVX2 void store_block_avx2(const StoredBlock& block) {
  const EpilogueAvx2<Code> epilogue(block);
  for (int row = 0; row < block.rows; ++row) epilogue.row(row);
}

template <class Out>
QUAVER_AVX512 void store_block_avx512(const StoredBlock& block) {
  const EpilogueAvx512<Out> epilogue(block);
  for (int row = 0; row < block.rows; ++row) epilogue.row(row);
}

template <class A, class B, class Stored>
void multiply_and_store_amx(const BlockOfRows& a, const uint8_t* panel, int64_t steps, const StoredBlock& pending,
                            BlockSums& sums) {
  if (a.rows <= 16) return multiply_tiles<A, B, 1, Stored>(a, panel, steps, pending, sums);
  multiply_tiles<A, B, 2, Stored>(a, panel, steps, pending, sums);
}

template <class A, class B, class Out>
MultiplyAndStore choose_multiply_and_store(bool fixed) {
  if constexpr (kIsCode<Out>)
    if (fixed) return multiply_and_store_amx<A, B, Epilogue<Out>>;
  return multiply_and_store_amx<A, B, EpilogueAvx512<Out>>;
}
#endif

// What computes a matmul here: loops that multiply a block, and loops that store it; or, with AMX, those that do both.
struct MatmulLoops {
  RowForm form = RowForm::kFours;
  MultiplyBlock multiply = nullptr;
  StoreBlock store = nullptr;
  MultiplyAndStore multiply_and_store = nullptr;

  explicit MatmulLoops(const MatmulProblem& problem) {
    const CpuCapability capability = cpu_capability();
    form = row_form(capability);
    with_type(problem.a_type, [&](auto a_tag) {
      with_type(problem.b_type, [&](auto b_tag) {
        using A = typename decltype(a_tag)::type;
        using B = typename decltype(b_tag)::type;
        multiply = choose_multiply<A, B>(capability);
        with_type(problem.out_type, [&](auto out_tag) {
          using Out = typename decltype(out_tag)::type;
          store = store_block<Out>;
#if defined(__x86_64__)
          const bool fixed = problem.mode == RequantizeMode::kFixed;
          if constexpr (kIsCode<Out>)
            if (capability >= CpuCapability::kAvx2 && !fixed) store = store_block_avx2<Out>;
          if (capability >= CpuCapability::kAvx512 && !fixed) store = store_block_avx512<Out>;
          if (capability == CpuCapability::kAmx) multiply_and_store = choose_multiply_and_store<A, B, Out>(fixed);
#endif
        });
      });
    });
  }
};

// The places of [..., M, N] side by side.
inline ResultPlaces contiguous_places(const MatmulProblem& problem) {
  return {problem.m * problem.n, 0, problem.n, 1, problem.m};
}

// What one thread works with.
class MatmulThread {
 public:
  // `packed`: b's panels one after another, or null; `padded` and `patches`: as RowsOfA has them.
  MatmulThread(const MatmulProblem& problem, const MatmulTasks& tasks, const uint8_t* packed, bool padded,
               const ResultPlaces& places, const Patches* patches = nullptr)
      : problem_(problem),
        tasks_(tasks),
        loops_(problem),
        packed_(packed),
        scatter_(problem, places),
        chunk_({problem, padded, loops_.form, patches}, tasks.rows) {
    if (packed == nullptr) panel_ = uninitialized(Panel::bytes(problem.k));
  }

  void run(int64_t begin, int64_t end) {
#if defined(__x86_64__)
    std::optional<AmxTiles> tiles;
    if (loops_.multiply_and_store != nullptr) tiles.emplace();
#endif
    for (int64_t task = begin; task < end; ++task) {
      const int64_t chunk = task / tasks_.panels;
      if (task == begin || task % tasks_.panels == 0) take_chunk(chunk);
      multiply_panel(task % tasks_.panels, columns_[task % 2]);
    }
    store_pending();
  }

 private:
  const MatmulProblem& problem_;
  const MatmulTasks& tasks_;
  const MatmulLoops loops_;
  const uint8_t* packed_;
  Scatter scatter_;
  MatmulChunk chunk_;
  std::unique_ptr<uint8_t[]> panel_;
  int64_t batch_number_ = 0;
  BatchIndex batch_ = {};
  int64_t first_row_ = 0;
  ColumnValues columns_[2];  // of this panel, and of the one before, whose last block may be pending
  alignas(64) BlockSums sums_[2];
  int turn_ = 0;
  StoredBlock pending_;
  BlockPlace pending_place_;

  void take_chunk(int64_t chunk) {
    store_pending();  // which needs what its rows bring
    batch_number_ = chunk / tasks_.chunks;
    first_row_ = chunk % tasks_.chunks * tasks_.rows;
    batch_index(problem_, batch_number_, batch_);
    chunk_.take(batch_, first_row_, std::min(tasks_.rows, problem_.m - first_row_));
  }

  const uint8_t* panel_at(int64_t panel) {
    if (packed_ != nullptr) return packed_ + panel * Panel::bytes(problem_.k);
    make_panel(panel_source(problem_, batch_, panel * Panel::kColumns), panel_.get());
    return panel_.get();
  }

  void multiply_panel(int64_t number, ColumnValues& columns) {
    const int64_t steps = Panel::steps(problem_.k);
    const uint8_t* panel = panel_at(number);
    gather_columns(problem_, batch_, number * Panel::kColumns, panel, columns);
    MovedSums moved;
    if (loops_.form == RowForm::kMoved) of_moved_codes(panel + steps * Panel::kStepBytes, moved);
    for (int64_t i = 0; i < chunk_.blocks(); ++i) {
      const BlockPlace place{batch_number_, first_row_ + i * kBlockRows, columns.first};
      const StoredBlock stored = stored_block(i, columns, place);
      BlockSums& sums = sums_[turn_];
      if (loops_.multiply_and_store != nullptr) {
        if (pending_.problem == nullptr) pending_ = {&problem_, &columns, &chunk_.values(i), nullptr, nullptr, 0, 0};
        loops_.multiply_and_store(chunk_.block(i), panel, steps, pending_, sums);
        scatter_.finish(pending_, pending_place_);
        pending_ = stored;
        pending_place_ = place;
        turn_ = 1 - turn_;
      } else {
        std::memcpy(moved.row, chunk_.moved_sums(i), sizeof moved.row);
        loops_.multiply(chunk_.block(i), panel, (problem_.k + 3) / 4, moved, sums);
        loops_.store(stored);
        scatter_.finish(stored, place);
      }
    }
  }

  // MovedSums::column
  void of_moved_codes(const uint8_t* panel_sums, MovedSums& moved) const {
    std::memcpy(moved.column, panel_sums, sizeof moved.column);
    const int32_t by = problem_.a_type == CodeType::kInt8 ? -128 : 0;
    for (int32_t& sum : moved.column) sum = wrapping_multiply(sum, by);
  }

  StoredBlock stored_block(int64_t i, const ColumnValues& columns, const BlockPlace& place) {
    const auto [out, pitch] = scatter_.target(place, turn_);
    return {&problem_, &columns, &chunk_.values(i), &sums_[turn_], out, pitch, chunk_.block(i).rows};
  }

  void store_pending() {
    if (pending_.rows > 0) {
      loops_.store(pending_);
      scatter_.finish(pending_, pending_place_);
    }
    pending_.rows = 0;
  }
};

}  // namespace quaver
