// matmul.h: one tile of an int8 matmul with its epilogue, ARITHMETIC.md (6)-(8) and (10). No torch header.
//
// Codes less their zero points are packed as int16, so that one inner loop serves every signedness and every zero
// point. Exact: the bound on K that the ops check is the bound of these sums.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "arith.h"
#include "cpu/kernels/element_types.h"
#include "cpu/kernels/multiply.h"
#include "cpu/simd.h"
#include "matmul_problem.h"

namespace quaver {

struct MatmulTile {
  static constexpr int kRows = 256;
  static constexpr int kColumns = kTileColumns;
  static constexpr int kDepth = 1024;  // packed, a tile of a is 512 KiB and one of b 128 KiB: a core's second cache
};

// What one thread works in; made once for all of its tiles.
struct MatmulScratch {
  std::vector<int16_t> a = std::vector<int16_t>(MatmulTile::kRows * MatmulTile::kDepth);
  std::vector<int16_t> b = std::vector<int16_t>(MatmulTile::kColumns * MatmulTile::kDepth);
  int32_t acc[MatmulTile::kRows][MatmulTile::kColumns];
};

// A tile's place in the problem: its batch as strides' multiples, its first row and column, its extent.
struct TilePlace {
  int64_t batch[kMaxBatchDims];
  int64_t row, column;
  int rows, columns;
};

inline int64_t batch_offset(const int64_t (&stride)[kMaxBatchDims], const TilePlace& place, int dims) {
  int64_t offset = 0;
  for (int dim = 0; dim < dims; ++dim) offset += place.batch[dim] * stride[dim];
  return offset;
}

// A tile's values of a row or column argument, brought side by side; `absent` where the argument was not given.
template <class T, int kCount>
void gather(const VectorView<T>& view, const TilePlace& place, int dims, int64_t first, int count, T absent,
            T (&values)[kCount]) {
  const T* data = view.data ? view.data + batch_offset(view.batch_stride, place, dims) + first * view.stride : nullptr;
  for (int i = 0; i < count; ++i) values[i] = data ? data[i * view.stride] : absent;
}

// Rows of a, `depth` codes each, less the row's zero point: [rows][width] int16, padded with zeros.
template <class Code>
inline __attribute__((always_inline)) void pack_rows(const Code* codes, int64_t row_stride, int64_t k_stride, int rows,
                                                     int depth, const int32_t* zero_point, int16_t* packed, int width) {
  const int padded = (rows + kRowsAtOnce - 1) / kRowsAtOnce * kRowsAtOnce;
  std::fill(packed + static_cast<int64_t>(rows) * width, packed + static_cast<int64_t>(padded) * width, int16_t{0});
  for (int row = 0; row < rows; ++row) {
    int16_t* __restrict to = packed + static_cast<int64_t>(row) * width;
    const Code* __restrict from = codes + row * row_stride;
    const int32_t zero = zero_point[row];
    const auto loop = [&](auto step) QUAVER_INLINE {
      for (int k = 0; k < depth; ++k) to[k] = static_cast<int16_t>(wrapping_subtract(from[k * step], zero));
    };
    if (k_stride == 1) {
      loop(std::integral_constant<int64_t, 1>{});
    } else {
      loop(k_stride);
    }
    if (depth < width) to[depth] = 0;
  }
}

// Columns of b, `depth` codes each, less the column's zero point: [width / 2][kTileColumns][2] int16, padded with
// zeros.
template <class Code>
inline __attribute__((always_inline)) void pack_columns(const Code* codes, int64_t column_stride, int64_t k_stride,
                                                        int columns, int depth, const int32_t* zero_point,
                                                        int16_t* packed, int width) {
  if (columns < kTileColumns || depth < width)
    std::fill(packed, packed + static_cast<int64_t>(width) * kTileColumns, int16_t{0});
  const auto place = [](int k, int column) QUAVER_INLINE { return ((k >> 1) * kTileColumns + column) * 2 + (k & 1); };
  if (column_stride == 1) {
    for (int k = 0; k < depth; ++k)
      for (int column = 0; column < columns; ++column)
        packed[place(k, column)] =
            static_cast<int16_t>(wrapping_subtract(codes[k * k_stride + column], zero_point[column]));
    return;
  }
  for (int column = 0; column < columns; ++column) {
    const Code* from = codes + column * column_stride;
    const int32_t zero = zero_point[column];
    for (int k = 0; k < depth; ++k)
      packed[place(k, column)] = static_cast<int16_t>(wrapping_subtract(from[k * k_stride], zero));
  }
}

// Equations (7) and (8), or (10), over a row of the tile.
template <class Out>
struct Epilogue {
  const MatmulProblem& problem;
  const float* b_scale;
  const float* bias;
  const float* out_scale;
  const int32_t* out_zero_point;
  const int32_t* integer_bias;

  inline __attribute__((always_inline)) void row(const int32_t* __restrict acc, float a_scale, int columns,
                                                 Out* __restrict out) const {
    constexpr bool kCodes = std::is_same_v<Out, int8_t> || std::is_same_v<Out, uint8_t>;
    if (kCodes && problem.mode == RequantizeMode::kFixed) return fixed_row(acc, a_scale, columns, out);
    const bool has_bias = problem.bias.data != nullptr;
    for (int n = 0; n < columns; ++n) {
      if constexpr (std::is_same_v<Out, int32_t>) {
        out[n] = acc[n];
      } else {
        const float v = scale_product(acc[n], a_scale, b_scale[n], has_bias, bias[n], problem.relu);
        if constexpr (kCodes) {
          out[n] = static_cast<Out>(quantize<QuantizeMode::kOnnx>(v, out_scale[n], out_zero_point[n], problem.range));
        } else {
          from_float(v, out[n]);
        }
      }
    }
  }

 private:
  inline __attribute__((always_inline)) void fixed_row(const int32_t* __restrict acc, float a_scale, int columns,
                                                       Out* __restrict out) const {
    if constexpr (sizeof(Out) == 1) {
      for (int n = 0; n < columns; ++n) {
        const FixedMultiplier multiplier = fixed_multiplier(a_scale, b_scale[n], out_scale[n]);
        out[n] = static_cast<Out>(requantize_fixed(wrapping_add(acc[n], integer_bias[n]), multiplier, problem.relu,
                                                   out_zero_point[n], problem.range));
      }
    }
  }
};

template <class A, class B>
void accumulate_tile(const MatmulProblem& problem, const TilePlace& place, MatmulScratch& scratch) {
  using Tile = MatmulTile;
  const int dims = problem.batch_dims;
  int32_t a_zero[Tile::kRows], b_zero[Tile::kColumns];
  gather(problem.a_zero_point, place, dims, place.row, place.rows, 0, a_zero);
  gather(problem.b_zero_point, place, dims, place.column, place.columns, 0, b_zero);
  const A* a = static_cast<const A*>(problem.a.data) + batch_offset(problem.a.batch_stride, place, dims) +
               place.row * problem.a.row_stride;
  const B* b = static_cast<const B*>(problem.b.data) + batch_offset(problem.b.batch_stride, place, dims) +
               place.column * problem.b.column_stride;
  const MultiplyRows multiply_rows = choose_multiply_rows();
  std::fill(&scratch.acc[0][0], &scratch.acc[0][0] + Tile::kRows * Tile::kColumns, 0);
  vectorized([&]() QUAVER_INLINE {
    for (int64_t k = 0; k < problem.k; k += Tile::kDepth) {
      const int depth = static_cast<int>(std::min<int64_t>(Tile::kDepth, problem.k - k));
      const int width = (depth + 1) / 2 * 2;
      pack_rows(a + k * problem.a.column_stride, problem.a.row_stride, problem.a.column_stride, place.rows, depth,
                a_zero, scratch.a.data(), width);
      pack_columns(b + k * problem.b.row_stride, problem.b.column_stride, problem.b.row_stride, place.columns, depth,
                   b_zero, scratch.b.data(), width);
      for (int row = 0; row < place.rows; row += kRowsAtOnce)
        multiply_rows(scratch.a.data() + row * width, scratch.b.data(), width / 2, scratch.acc[row]);
    }
  });
}

template <class Out>
void store_tile(const MatmulProblem& problem, const TilePlace& place, int64_t batch, const MatmulScratch& scratch) {
  using Tile = MatmulTile;
  const int dims = problem.batch_dims;
  float a_scale[Tile::kRows], b_scale[Tile::kColumns], bias[Tile::kColumns], out_scale[Tile::kColumns];
  int32_t out_zero_point[Tile::kColumns], integer_bias[Tile::kColumns];
  gather(problem.a_scale, place, dims, place.row, place.rows, 1.0f, a_scale);
  gather(problem.b_scale, place, dims, place.column, place.columns, 1.0f, b_scale);
  gather(problem.bias, place, dims, place.column, place.columns, 0.0f, bias);
  gather(problem.out_scale, place, dims, place.column, place.columns, 1.0f, out_scale);
  gather(problem.out_zero_point, place, dims, place.column, place.columns, 0, out_zero_point);
  gather(problem.integer_bias, place, dims, place.column, place.columns, 0, integer_bias);
  const Epilogue<Out> epilogue{problem, b_scale, bias, out_scale, out_zero_point, integer_bias};
  Out* out = static_cast<Out*>(problem.out) + (batch * problem.m + place.row) * problem.n + place.column;
  vectorized([&]() QUAVER_INLINE {
    for (int row = 0; row < place.rows; ++row)
      epilogue.row(scratch.acc[row], a_scale[row], place.columns, out + row * problem.n);
  });
}

template <class Body>
void with_type(MatmulOutput type, const Body& body) {
  switch (type) {
    case MatmulOutput::kInt32:
      return body(TypeTag<int32_t>{});
    case MatmulOutput::kFloat32:
      return body(TypeTag<float>{});
    case MatmulOutput::kFloat16:
      return body(TypeTag<Float16>{});
    case MatmulOutput::kBFloat16:
      return body(TypeTag<BFloat16>{});
    case MatmulOutput::kInt8:
      return body(TypeTag<int8_t>{});
    case MatmulOutput::kUint8:
      return body(TypeTag<uint8_t>{});
  }
}

inline int64_t tiles_of(const MatmulProblem& problem) {
  const int64_t rows = (problem.m + MatmulTile::kRows - 1) / MatmulTile::kRows;
  const int64_t columns = (problem.n + MatmulTile::kColumns - 1) / MatmulTile::kColumns;
  return problem.batches() * rows * columns;
}

// Computes tiles [begin, end): rows of tiles vary fastest, so that neighbours share their part of b.
inline void matmul_tiles(const MatmulProblem& problem, int64_t begin, int64_t end) {
  using Tile = MatmulTile;
  const int64_t row_tiles = (problem.m + Tile::kRows - 1) / Tile::kRows;
  const int64_t column_tiles = (problem.n + Tile::kColumns - 1) / Tile::kColumns;
  MatmulScratch scratch;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t batch = tile / (row_tiles * column_tiles);
    TilePlace place{};
    place.row = tile % row_tiles * Tile::kRows;
    place.column = tile / row_tiles % column_tiles * Tile::kColumns;
    place.rows = static_cast<int>(std::min<int64_t>(Tile::kRows, problem.m - place.row));
    place.columns = static_cast<int>(std::min<int64_t>(Tile::kColumns, problem.n - place.column));
    int64_t rest = batch;
    for (int dim = problem.batch_dims - 1; dim >= 0; --dim) {
      place.batch[dim] = rest % problem.batch_size[dim];
      rest /= problem.batch_size[dim];
    }
    with_type(problem.a_type, [&](auto a_tag) {
      with_type(problem.b_type, [&](auto b_tag) {
        accumulate_tile<typename decltype(a_tag)::type, typename decltype(b_tag)::type>(problem, place, scratch);
      });
    });
    with_type(problem.out_type,
              [&](auto out_tag) { store_tile<typename decltype(out_tag)::type>(problem, place, batch, scratch); });
  }
}

}  // namespace quaver
