// requantize.cu: requantize on CUDA: int32 products [..., M, N] to codes of their shape, the matmuls' last stage alone.
// Bound by memory: one read of acc and one write of q for each element.
#include "arith.h"
#include "grid.cuh"
#include "launch.h"
#include "quotient.cuh"
#include "vec.cuh"
#include "walk.cuh"

namespace quaver {
namespace {

constexpr int kVector = kWidest<int32_t>;  // neighbouring columns of a thread

// (7), whose sign of zero no code depends on: no bias is as good as one of 0.
__device__ __forceinline__ float scaled(int32_t acc, float a_scale, float b_scale, float bias, bool relu) {
  return scale_product(acc, a_scale, b_scale, true, bias, relu);
}

// Rows of neighbouring columns, where a thread keeps what its columns bring. Several such planes have each its own.
struct RowsPlan {
  static constexpr int kTogether = 2;  // rows that a thread reads before it works on the first
  static constexpr int kMostRounds = 16;
  static constexpr int64_t kEnoughBlocks = 256;

  Walk<kRequantizeOperands> outer;  // over planes
  int64_t rows = 1;
  int64_t columns;
  int64_t row_stride[kRequantizeOperands] = {};
  int32_t step[kRequantizeOperands];  // from column to column: 0 or 1
  int32_t across = 1;                 // threads side by side in a row: a power of 2
  int32_t across_log2 = 0;
  int64_t rows_of_block;
  Divisor tiles;  // of a row
  Divisor parts;  // of a plane's rows
  int64_t blocks;

  explicit RowsPlan(RequantizeNest nest) : columns(inner_size(nest)) {
    for (int i = 0; i < kRequantizeOperands; ++i) step[i] = static_cast<int32_t>(inner_stride(nest, i));
    nest = outer_loops(nest);
    if (has_row_loop(nest)) {
      rows = inner_size(nest);
      for (int i = 0; i < kRequantizeOperands; ++i) row_stride[i] = inner_stride(nest, i);
      nest = outer_loops(nest);
    }
    outer = Walk<kRequantizeOperands>(nest);
    // A warp side by side, more of them where rows are few.
    const int64_t vectors = columns / kVector;
    while (across < vectors && (across < kLanes || (across < kThreads && rows * across < kThreads))) {
      across *= 2;
      ++across_log2;
    }
    tiles = Divisor((vectors + across - 1) / across);
    rows_of_block = kTogether * (kThreads / across);
    const int64_t most = kMostRounds * rows_of_block;
    while (rows_of_block < most && nest.numel() * tiles.divisor * rows > rows_of_block * kEnoughBlocks)
      rows_of_block *= 2;
    parts = Divisor((rows + rows_of_block - 1) / rows_of_block);
    blocks = nest.numel() * tiles.divisor * parts.divisor;
  }

  // What columns bring stays the same from one round of this loop to the next.
  static bool has_row_loop(const RequantizeNest& nest) {
    for (int i = kRequantizeBScale; i < kRequantizeOperands; ++i)
      if (nest.loops == 0 || inner_stride(nest, i) != 0) return false;
    return true;
  }

  // Whether rows are runs of whole, aligned vectors, and planes large enough for blocks of their own.
  static bool serves(const RequantizeNest& nest, const RequantizeData& data) {
    if (nest.loops == 0 || inner_size(nest) % kVector != 0) return false;
    for (int i = 0; i < kRequantizeOperands; ++i) {
      const int64_t stride = inner_stride(nest, i);
      const bool fits = i <= kRequantizeQ ? stride == 1 : stride == 0 || (stride == 1 && i != kRequantizeAScale);
      if (!fits) return false;
    }
    for (int loop = 0; loop < nest.loops - 1; ++loop)
      if (nest.stride[loop][kRequantizeAcc] % kVector != 0 || nest.stride[loop][kRequantizeQ] % kVector != 0)
        return false;
    if (reinterpret_cast<uint64_t>(data.acc) % 16 != 0 || reinterpret_cast<uint64_t>(data.q) % kVector != 0)
      return false;
    const RowsPlan plan(nest);
    return plan.rows * plan.columns >= kThreads && plan.blocks <= INT32_MAX;
  }
};

// Where a thread's part of a plane begins, and the rows that it has.
struct RowsOfThread {
  const RowsPlan& plan;
  const RequantizeData& data;
  int64_t offset[kRequantizeOperands];  // of its first column, in the plane's first row
  int64_t row;
  int64_t end;

  // What the thread's columns bring of one kind.
  template <class T>
  __device__ __forceinline__ void load(const T* values, int operand, T (&value)[kVector]) const {
    const T* from = values + offset[operand];
    if (plan.step[operand] == 1) {
      const Vector<T, kVector> vector = load_span<kVector>(from, kVector);
#pragma unroll
      for (int i = 0; i < kVector; ++i) value[i] = vector.get(i);
    } else {
      const T only = __ldg(from);
#pragma unroll
      for (int i = 0; i < kVector; ++i) value[i] = only;
    }
  }

  // The same, 0 where nobody gave any.
  template <class T>
  __device__ __forceinline__ void load_given(const T* values, int operand, T (&value)[kVector]) const {
    if (values != nullptr) return load(values, operand, value);
#pragma unroll
    for (int i = 0; i < kVector; ++i) value[i] = 0;
  }

  // convert(vector of products, a_scale) gives the codes of a row's part. Without kScales it gets no a_scale.
  template <int kTogether, bool kScales, class Convert>
  __device__ __forceinline__ void for_each(const Convert& convert) const {
    const int32_t* acc = data.acc + offset[kRequantizeAcc];
    const float* a_scale = data.a_scale + offset[kRequantizeAScale];
    uint8_t* q = static_cast<uint8_t*>(data.q) + offset[kRequantizeQ];
    const int32_t apart = kThreads >> plan.across_log2;
    for (int64_t first = row; first < end; first += kTogether * apart) {
      Vector<int32_t, kVector> products[kTogether];
      float scale[kTogether]{};
#pragma unroll
      for (int u = 0; u < kTogether; ++u) {
        const int64_t at = first + u * apart;
        if (u > 0 && at >= end) break;
        products[u] = load_vector<kVector>(acc + at * plan.row_stride[kRequantizeAcc]);
        if constexpr (kScales) scale[u] = __ldg(a_scale + at * plan.row_stride[kRequantizeAScale]);
      }
#pragma unroll
      for (int u = 0; u < kTogether; ++u) {
        const int64_t at = first + u * apart;
        if (u > 0 && at >= end) break;
        store_vector(convert(products[u], scale[u]), q + at * plan.row_stride[kRequantizeQ]);
      }
    }
  }
};

__device__ __forceinline__ void requantize_rows(const RowsOfThread& rows) {
  const RequantizeData& data = rows.data;
  float b_scale[kVector], out_scale[kVector], bias[kVector];
  int32_t zero_point[kVector];
  rows.load(data.b_scale, kRequantizeBScale, b_scale);
  rows.load(data.out_scale, kRequantizeOutScale, out_scale);
  rows.load_given(data.out_zero_point, kRequantizeZeroPoint, zero_point);
  rows.load_given(data.bias, kRequantizeBias, bias);
  SharedScale<QuantizeMode::kOnnx> out[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) out[i] = {out_scale[i], zero_point[i], data.range};
  rows.for_each<RowsPlan::kTogether, true>([&](const Vector<int32_t, kVector>& products, float a_scale) {
    int32_t code[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i)
      code[i] = out[i].code(scaled(products.get(i), a_scale, b_scale[i], bias[i], data.relu));
    return pack_bytes(code);
  });
}

__device__ __forceinline__ void requantize_fixed_rows(const RowsOfThread& rows) {
  const RequantizeData& data = rows.data;
  float b_scale[kVector], out_scale[kVector];
  int32_t zero_point[kVector], bias[kVector];
  rows.load(data.b_scale, kRequantizeBScale, b_scale);
  rows.load(data.out_scale, kRequantizeOutScale, out_scale);
  rows.load_given(data.out_zero_point, kRequantizeZeroPoint, zero_point);
  rows.load_given(data.integer_bias, kRequantizeBias, bias);
  FixedMultiplier multiplier[kVector];
  const auto find_multipliers = [&](float a_scale) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) multiplier[i] = fixed_multiplier(a_scale, b_scale[i], out_scale[i]);
  };
  const auto codes = [&](const Vector<int32_t, kVector>& products) {
    int32_t code[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i)
      code[i] =
          requantize_fixed(wrapping_add(products.get(i), bias[i]), multiplier[i], data.relu, zero_point[i], data.range);
    return pack_bytes(code);
  };
  if (rows.plan.row_stride[kRequantizeAScale] == 0) {  // one for all rows: two double operations a column, not more
    find_multipliers(__ldg(data.a_scale + rows.offset[kRequantizeAScale]));
    rows.for_each<RowsPlan::kTogether, false>(
        [&](const Vector<int32_t, kVector>& products, float) { return codes(products); });
  } else {
    rows.for_each<1, true>([&](const Vector<int32_t, kVector>& products, float a_scale) {
      find_multipliers(a_scale);
      return codes(products);
    });
  }
}

// acc, q: device, rows of neighbouring columns
__global__ void __launch_bounds__(kThreads) requantize_rows_kernel(const RowsPlan plan, const RequantizeData data) {
  const int64_t row_part = plan.tiles.quotient(blockIdx.x);
  const int64_t plane = plan.parts.quotient(row_part);
  const int64_t first_vector = (blockIdx.x - row_part * plan.tiles.divisor) << plan.across_log2;
  const int64_t column = (first_vector + (threadIdx.x & (plan.across - 1))) * kVector;
  if (column >= plan.columns) return;
  const int64_t first_row = (row_part - plane * plan.parts.divisor) * plan.rows_of_block;
  RowsOfThread rows{plan, data};
#pragma unroll
  for (int i = 0; i < kRequantizeOperands; ++i) rows.offset[i] = column * plan.step[i];
  plan.outer.add_offsets(plane, rows.offset);
  rows.row = first_row + (threadIdx.x >> plan.across_log2);
  rows.end = min(first_row + plan.rows_of_block, plan.rows);
  if (data.mode == RequantizeMode::kFixed) {
    requantize_fixed_rows(rows);
  } else {
    requantize_rows(rows);
  }
}

// acc, q: device, any strides
__global__ void __launch_bounds__(kThreads)
    requantize_elements_kernel(const Walk<kRequantizeOperands> walk, const int64_t elements,
                               const RequantizeData data) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < elements; i += step) {
    int64_t offset[kRequantizeOperands] = {};
    walk.add_offsets(i, offset);
    const int32_t acc = __ldg(data.acc + offset[kRequantizeAcc]);
    const float a_scale = __ldg(data.a_scale + offset[kRequantizeAScale]);
    const float b_scale = __ldg(data.b_scale + offset[kRequantizeBScale]);
    const float out_scale = __ldg(data.out_scale + offset[kRequantizeOutScale]);
    const int32_t zero_point =
        data.out_zero_point == nullptr ? 0 : __ldg(data.out_zero_point + offset[kRequantizeZeroPoint]);
    int32_t code;
    if (data.mode == RequantizeMode::kFixed) {
      const int32_t bias = data.integer_bias == nullptr ? 0 : __ldg(data.integer_bias + offset[kRequantizeBias]);
      code = requantize_fixed(wrapping_add(acc, bias), fixed_multiplier(a_scale, b_scale, out_scale), data.relu,
                              zero_point, data.range);
    } else {
      const float bias = data.bias == nullptr ? 0.0f : __ldg(data.bias + offset[kRequantizeBias]);
      const float v = scaled(acc, a_scale, b_scale, bias, data.relu);
      code = quantize<QuantizeMode::kOnnx>(v, out_scale, zero_point, data.range);
    }
    static_cast<uint8_t*>(data.q)[offset[kRequantizeQ]] = static_cast<uint8_t>(code);
  }
}

}  // namespace

// Int8 and uint8 differ in their range alone.
cudaError_t launch_requantize(const RequantizeArguments& arguments, cudaStream_t stream) {
  const RequantizeNest& nest = arguments.nest;
  const int64_t elements = nest.numel();
  if (elements == 0) return cudaSuccess;
  if (RowsPlan::serves(nest, arguments.data)) {
    const RowsPlan plan(nest);
    requantize_rows_kernel<<<static_cast<unsigned>(plan.blocks), kThreads, 0, stream>>>(plan, arguments.data);
  } else {
    requantize_elements_kernel<<<grid_for_elements(elements), kThreads, 0, stream>>>(Walk<kRequantizeOperands>(nest),
                                                                                     elements, arguments.data);
  }
  return cudaGetLastError();
}

}  // namespace quaver
