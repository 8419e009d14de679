// elementwise.cuh: what quantize and dequantize share: a float tensor x and a code tensor q of one shape, visited
// vector by vector together with the parameters of their blocks.
//
// Bytes in flight: reading 3.35 TB/s (H100 SXM) with some 700 ns of latency needs 2.3 MB under way, 18 KB for each of
// its 132 multiprocessors. 768 threads with 16 elements each ask for 24 or 48 KB where x is read; where codes are read,
// which are at most a third of the traffic, for 12 KB.
#pragma once

#include "arith.h"
#include "grid.cuh"
#include "parameters.cuh"
#include "runs.cuh"
#include "vec.cuh"

namespace quaver {

enum ElementwiseTensor { kX, kQ, kElementwiseTensors };

// Vectors that a thread reads before it works on the first: 16 elements.
template <int kVector>
inline constexpr int kTogether = 16 / kVector;

struct VectorsPlan {
  Runs<kElementwiseTensors> runs;
  Parameters parameters;
  int32_t vectors_of_block;

  unsigned blocks() const { return static_cast<unsigned>((runs.vectors() + vectors_of_block - 1) / vectors_of_block); }
};

// Parameters change from element to element.
struct EachPlan : VectorsPlan {};

// An operation has
//   Source, Result                     the types of elements
//   Shared                             what elements with the same scale and zero point share: made of these and the
//                                      operation
//   wide()                             the float tensor, of type Wide: vectors are aligned to it
//   source(offsets), result(offsets)   where elements are
//   convert(vector, shared)            the results of elements with the same parameters
//   convert_each(vector, shareds)      of elements that each have their own
//   convert_one(element, scale, zero)
template <int kVector, class Operation>
struct SharedWork {
  using Source = Vector<typename Operation::Source, kVector>;
  using Result = Vector<typename Operation::Result, kVector>;
  const Operation& operation;
  const RoundFinder finder;
  int32_t round = -1;  // whose parameters `shared` holds
  typename Operation::Shared shared;

  __device__ __forceinline__ SharedWork(const Operation& operation, const Parameters& parameters, int64_t first_element)
      : operation(operation), finder(parameters, first_element) {}

  __device__ __forceinline__ typename Operation::Shared of_round(const RoundPlace& place) const {
    const ParameterPointers pointers(finder, place);
    return {__ldg(pointers.scale), pointers.zero(), operation};
  }

  __device__ __forceinline__ Result result(const Source& source, const Span<kElementwiseTensors>& span) {
    const RoundPlace place = finder.place(span.beyond);
    if (place.round != round) shared = of_round(place);
    round = place.round;
    const Result result = operation.convert(source, shared);
    if (place.left >= span.count) return result;
    shared = of_round({++round, 0, 0});
    const Result later = operation.convert(source, shared);
    Result joined{};
#pragma unroll
    for (int i = 0; i < kVector; ++i) joined.put(i, i < place.left ? result.get(i) : later.get(i));
    return joined;
  }
};

template <int kVector, class Operation>
struct EachWork {
  using Source = Vector<typename Operation::Source, kVector>;
  using Result = Vector<typename Operation::Result, kVector>;
  const Operation& operation;
  const RoundFinder finder;

  __device__ __forceinline__ EachWork(const Operation& operation, const Parameters& parameters, int64_t first_element)
      : operation(operation), finder(parameters, first_element) {}

  __device__ __forceinline__ Result result(const Source& source, const Span<kElementwiseTensors>& span) const {
    const EachParameters<kVector> each(finder, span.beyond, span.count);
    Result result{};
#pragma unroll
    for (int i = 0; i < kVector; ++i) result.put(i, operation.convert_one(source.get(i), each.scale[i], each.zero[i]));
    return result;
  }
};

// A block has kThreads * kTogether neighbouring vectors.
template <int kVector, class Plan, class Operation>
__device__ __forceinline__ void for_each_vector(const Plan& plan, const Operation& operation) {
  using Work =
      std::conditional_t<std::is_same_v<Plan, EachPlan>, EachWork<kVector, Operation>, SharedWork<kVector, Operation>>;
  constexpr int kCount = kTogether<kVector>;
  const BlockOfVectors<kElementwiseTensors, kVector, typename Operation::Wide> block(
      plan.runs, operation.wide(), kX, static_cast<int64_t>(blockIdx.x) * kThreads * kCount);
  Span<kElementwiseTensors> spans[kCount];
  Vector<typename Operation::Source, kVector> sources[kCount];
#pragma unroll
  for (int u = 0; u < kCount; ++u) {
    spans[u] = block.span(threadIdx.x + u * kThreads);
    sources[u] = load_span<kVector>(operation.source(spans[u].offset), spans[u].count);
  }
  Work work(operation, plan.parameters, block.first_element);
#pragma unroll
  for (int u = 0; u < kCount; ++u)
    if (spans[u].count > 0)
      store_span(work.result(sources[u], spans[u]), operation.result(spans[u].offset), spans[u].count);
}

// Rows of neighbouring elements, each column with parameters of its own.
struct ColumnsPlan {
  static constexpr int kVector = 4;  // columns of a thread, whose parameters it keeps in registers
  static constexpr int kWidth = kVector * kLanes;
  static constexpr int kRowsTogether = kThreads / kLanes;
  static constexpr int kLeastRows = 4 * kRowsTogether;
  static constexpr int kMostRows = 256;
  static constexpr int kEnoughBlocks = 256;

  int64_t rows;
  int64_t columns;
  int64_t x_stride;
  int64_t q_stride;
  const float* scale;         // device [columns]
  const int32_t* zero_point;  // the same, or null
  int32_t rows_of_block = kLeastRows;
  Divisor tiles;  // of kWidth columns

  ColumnsPlan(int64_t rows, int64_t columns, int64_t x_stride, int64_t q_stride, const Parameters& parameters)
      : rows(rows),
        columns(columns),
        x_stride(x_stride),
        q_stride(q_stride),
        scale(parameters.scale),
        zero_point(parameters.zero_point),
        tiles((columns + kWidth - 1) / kWidth) {
    while (rows_of_block < kMostRows && rows * tiles.divisor > rows_of_block * kEnoughBlocks) rows_of_block *= 2;
  }

  unsigned blocks() const {
    return static_cast<unsigned>(tiles.divisor * ((rows + rows_of_block - 1) / rows_of_block));
  }
};

// A block has kWidth columns of plan.rows_of_block rows, a warp every kRowsTogether-th of these.
//   shared memory   smem_scale, smem_zero: [kWidth] each; all warps read all of them, lane by lane 16 bytes
template <class Operation>
__device__ __forceinline__ void for_each_column(const ColumnsPlan& plan, const Operation& operation) {
  constexpr int kVector = ColumnsPlan::kVector;
  constexpr int kRows = 4;  // that a thread reads before it works on the first
  __shared__ alignas(16) float smem_scale[ColumnsPlan::kWidth];
  __shared__ alignas(16) int32_t smem_zero[ColumnsPlan::kWidth];
  const int64_t part = plan.tiles.quotient(blockIdx.x);
  const int64_t first_column = (blockIdx.x - part * plan.tiles.divisor) * ColumnsPlan::kWidth;
  if (threadIdx.x < ColumnsPlan::kWidth) {
    const int64_t column = first_column + threadIdx.x;
    smem_scale[threadIdx.x] = column < plan.columns ? __ldg(plan.scale + column) : 1.0f;
    smem_zero[threadIdx.x] = column < plan.columns && plan.zero_point != nullptr ? __ldg(plan.zero_point + column) : 0;
  }
  __syncthreads();
  const int lane = threadIdx.x % kLanes;
  const int64_t column = first_column + lane * kVector;
  if (column >= plan.columns) return;
  const float4 scales = reinterpret_cast<const float4*>(smem_scale)[lane];
  const int4 zeros = reinterpret_cast<const int4*>(smem_zero)[lane];
  const typename Operation::Shared shared[kVector] = {{scales.x, zeros.x, operation},
                                                      {scales.y, zeros.y, operation},
                                                      {scales.z, zeros.z, operation},
                                                      {scales.w, zeros.w, operation}};
  const int64_t first_row = part * plan.rows_of_block + threadIdx.x / kLanes;
  const int64_t end = min((part + 1) * plan.rows_of_block, plan.rows);
  int64_t offset[kElementwiseTensors] = {first_row * plan.x_stride + column, first_row * plan.q_stride + column};
  for (int64_t row = first_row; row < end; row += kRows * ColumnsPlan::kRowsTogether) {
    Vector<typename Operation::Source, kVector> sources[kRows];
    int64_t offsets[kRows][kElementwiseTensors];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      offsets[u][kX] = offset[kX];
      offsets[u][kQ] = offset[kQ];
      if (row + u * ColumnsPlan::kRowsTogether < end) sources[u] = load_vector<kVector>(operation.source(offset));
      offset[kX] += ColumnsPlan::kRowsTogether * plan.x_stride;
      offset[kQ] += ColumnsPlan::kRowsTogether * plan.q_stride;
    }
#pragma unroll
    for (int u = 0; u < kRows; ++u)
      if (row + u * ColumnsPlan::kRowsTogether < end)
        store_vector(operation.convert_each(sources[u], shared), operation.result(offsets[u]));
  }
}

struct ElementsPlan {
  Walk<kElementwiseTensors> walk;
  Walk<2> parameters;
  const float* scale;
  const int32_t* zero_point;  // null: 0 everywhere
  int64_t elements;

  unsigned blocks() const { return grid_for_elements(elements); }
};

// Any strides: each thread takes every gridDim.x * kThreads-th element.
template <class Operation>
__device__ __forceinline__ void for_each_element(const ElementsPlan& plan, const Operation& operation) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < plan.elements; i += step) {
    int64_t offset[kElementwiseTensors] = {};
    int64_t parameter[2] = {};
    plan.walk.add_offsets(i, offset);
    plan.parameters.add_offsets(i, parameter);
    const int32_t zero = plan.zero_point == nullptr ? 0 : __ldg(plan.zero_point + parameter[1]);
    *operation.result(offset) =
        operation.convert_one(*operation.source(offset), __ldg(plan.scale + parameter[0]), zero);
  }
}

// Whether columns have parameters of their own and can be read as vectors.
template <class T>
bool has_columns(const LoopNest<kElementwiseTensors>& tensors, const Parameters& parameters, const void* x,
                 const void* q) {
  constexpr int kVector = ColumnsPlan::kVector;
  const int64_t columns = parameters.inner.divisor;
  if (!parameters.follow_elements() || parameters.outer.loops > 1 || columns % kVector != 0) return false;
  if (parameters.outer.stride[0][0] != 0 || parameters.outer.stride[0][1] != 0) return false;
  if (tensors.loops > 2 || !has_runs(tensors, kVector)) return false;
  if (tensors.loops == 2 &&
      (inner_size(tensors) != columns || tensors.stride[0][kX] % kVector != 0 || tensors.stride[0][kQ] % kVector != 0))
    return false;
  return reinterpret_cast<uint64_t>(x) % (kVector * sizeof(T)) == 0 && reinterpret_cast<uint64_t>(q) % kVector == 0;
}

// Calls launch(plan, CountTag of a vector's elements) with the plan that fits.
template <class T, class Launch>
cudaError_t choose_elementwise(const ElementwiseNest& nest, int x_operand, int q_operand, const void* x, const void* q,
                               const float* scale, const int32_t* zero_point, const Launch& launch) {
  const LoopNest<kElementwiseTensors> tensors = nest.of({x_operand, q_operand});
  const LoopNest<2> of_parameters = nest.of({kScale, kZeroPoint});
  const Parameters parameters(of_parameters, scale, zero_point);
  if (has_columns<T>(tensors, parameters, x, q)) {
    const int64_t columns = parameters.inner.divisor;
    const bool rows = tensors.loops == 2;
    return launch(ColumnsPlan(nest.numel() / columns, columns, rows ? tensors.stride[0][kX] : columns,
                              rows ? tensors.stride[0][kQ] : columns, parameters),
                  CountTag<ColumnsPlan::kVector>{});
  }
  constexpr int kVector = kWidest<T>;
  if (has_runs(tensors, kVector) && parameters.serve_vectors(kVector)) {
    const VectorsPlan plan{Runs<kElementwiseTensors>(tensors, kVector), parameters, kThreads * kTogether<kVector>};
    return parameters.same_in_round() ? launch(plan, CountTag<kVector>{}) : launch(EachPlan{plan}, CountTag<kVector>{});
  }
  const ElementsPlan plan{Walk<kElementwiseTensors>(tensors), Walk<2>(of_parameters), scale, zero_point, nest.numel()};
  return launch(plan, CountTag<1>{});
}

}  // namespace quaver
