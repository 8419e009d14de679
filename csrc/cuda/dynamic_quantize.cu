// dynamic_quantize.cu: dynamic_quantize on CUDA where a block of x is one run of neighbours, such as a row: x to q,
// scale, zero_point and row sums with one read of x and one write of q. Bound by memory.
//
// A row is held in registers between the finding of its range and its quantization: kHeld vectors of 16 bytes by each
// thread of a block, 16,384 elements (some fewer where rows are not aligned). Longer rows are read twice, by
// choose_qparams and by quantize.
//
// Bytes in flight: an H100 needs 18 KB for each multiprocessor (elementwise.cuh). 768 threads ask for 48 KB at once.
#include "grid.cuh"
#include "launch.h"
#include "quotient.cuh"
#include "runs.cuh"
#include "state.cuh"
#include "vec.cuh"

namespace quaver {
namespace {

constexpr int kHeld = 4;
constexpr int kLongestRow = 16384;

template <class T>
constexpr int kMostThreads = kLongestRow / (kHeld * kWidest<T>);

struct RowsPlan {
  Walk<kDynamicOperands> rows;
  int64_t count;
  int64_t length;
  int32_t warps;  // of a row: a power of 2

  int rows_of_block() const { return std::max(kThreads / (kLanes * warps), 1); }  // short rows share one
  int threads_of_block() const { return rows_of_block() * warps * kLanes; }
  unsigned blocks() const { return grid_for((count + rows_of_block() - 1) / rows_of_block()); }
};

// Each row is taken by plan.warps warps that stand side by side.
//   x                   device [rows] of plan.length neighbours
//   q                   device, the same; the codes' type is in the range alone
//   scale, zero_point   device [rows]
//   row_sum             device [rows], or null
//   shared memory       a state of each warp, of ranges and of sums: 384 bytes
template <class T>
__global__ void __launch_bounds__(kMostThreads<T>)
    dynamic_quantize_kernel(const RowsPlan plan, const T* __restrict__ x, uint8_t* __restrict__ q,
                            float* __restrict__ scale, int32_t* __restrict__ zero_point, int32_t* __restrict__ row_sum,
                            const bool symmetric, const CodeRange range, const float eps) {
  constexpr int kVector = kWidest<T>;
  const int threads = plan.warps * kLanes;
  const int thread = threadIdx.x % threads;
  const int at_once = blockDim.x / threads;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * at_once; first < plan.count;
       first += static_cast<int64_t>(gridDim.x) * at_once) {
    const int64_t row = first + threadIdx.x / threads;
    int64_t offset[kDynamicOperands] = {};
    int length = 0;
    if (row < plan.count) {
      plan.rows.add_offsets(row, offset);
      length = static_cast<int>(plan.length);
    }
    const T* row_x = x + offset[kDynamicX];
    const int shift = misalignment<kVector>(row_x);  // vectors are cut as in runs.cuh
    Vector<T, kVector> held[kHeld];
    Range found;
#pragma unroll
    for (int u = 0; u < kHeld; ++u) {
      const int begin = (thread + u * threads) * kVector - shift;
      const int from = max(begin, 0);
      held[u] = load_span<kVector>(row_x + from, max(min(begin + kVector, length) - from, 0));
    }
#pragma unroll
    for (int u = 0; u < kHeld; ++u)
#pragma unroll
      for (int i = 0; i < kVector; ++i) found.take(to_float(held[u].get(i)));
    join_threads(found, threads);
    const ScaleAndZeroPoint chosen = choose_qparams(found.lo, found.hi, symmetric, range, eps);
    const SharedScale<QuantizeMode::kOnnx> shared(chosen.scale, chosen.zero_point, range);

    Sum sum;
#pragma unroll
    for (int u = 0; u < kHeld; ++u) {
      const int begin = (thread + u * threads) * kVector - shift;
      const int from = max(begin, 0);
      const int count = min(begin + kVector, length) - from;
      if (count <= 0) continue;
      int32_t code[kVector];
#pragma unroll
      for (int i = 0; i < kVector; ++i) code[i] = shared.code(to_float(held[u].get(i)));
#pragma unroll
      for (int i = 0; i < kVector; ++i) sum.take(code[i]);
      // What stands for the elements that a vector at the row's end lacks are zeros, whose code is the zero point.
      sum.take(-(kVector - count) * chosen.zero_point);
      store_span(pack_bytes(code), q + offset[kDynamicQ] + from, count);
    }
    if (row_sum != nullptr) join_threads(sum, threads);
    if (thread == 0 && row < plan.count) {
      scale[offset[kDynamicResult]] = chosen.scale;
      zero_point[offset[kDynamicResult]] = chosen.zero_point;
      if (row_sum != nullptr) row_sum[offset[kDynamicResult]] = sum.value;
    }
  }
}

// The loops over x and q together with the results: those of rows, and the one inside a row, if that is all there is.
struct SplitRows {
  DynamicNest rows;
  DynamicNest inside;

  explicit SplitRows(const DynamicNest& nest) {
    for (int loop = 0; loop < nest.loops; ++loop) {
      DynamicNest& part = nest.stride[loop][kDynamicResult] != 0 ? rows : inside;
      part.push(nest.size[loop], nest.stride[loop]);
    }
  }

  bool is_neighbours() const {
    return inside.loops == 0 ||
           (inside.loops == 1 && inside.stride[0][kDynamicX] == 1 && inside.stride[0][kDynamicQ] == 1);
  }
};

template <class T>
int64_t vectors_of_row(const SplitRows& loops, const void* x) {
  constexpr int kVector = kWidest<T>;
  bool aligned = reinterpret_cast<uint64_t>(x) % 16 == 0;
  for (int loop = 0; loop < loops.rows.loops; ++loop) aligned &= loops.rows.stride[loop][kDynamicX] % kVector == 0;
  return (inner_size(loops.inside) + (aligned ? kVector - 1 : 2 * kVector - 2)) / kVector;
}

template <class T>
bool fits(const SplitRows& loops, const void* x) {
  return vectors_of_row<T>(loops, x) <= kMostThreads<T> * kHeld;
}

template <class T>
RowsPlan plan_rows(const SplitRows& loops, const void* x) {
  const int64_t wanted = (vectors_of_row<T>(loops, x) + kHeld * kLanes - 1) / (kHeld * kLanes);
  RowsPlan plan{Walk<kDynamicOperands>(loops.rows), loops.rows.numel(), inner_size(loops.inside), 1};
  while (plan.warps < wanted) plan.warps *= 2;
  return plan;
}

template <class T>
cudaError_t launch_in_one_read(const DynamicQuantizeArguments& arguments, bool sums, cudaStream_t stream) {
  const QparamsArguments& qparams = arguments.qparams;
  const RowsPlan plan = plan_rows<T>(SplitRows(arguments.nest), qparams.x);
  if (plan.count == 0) return cudaSuccess;
  dynamic_quantize_kernel<<<plan.blocks(), plan.threads_of_block(), 0, stream>>>(
      plan, static_cast<const T*>(qparams.x), static_cast<uint8_t*>(arguments.quantize.q), qparams.scale,
      qparams.zero_point, sums ? arguments.sums.sum : nullptr, qparams.symmetric, qparams.range, qparams.eps);
  return cudaGetLastError();
}

cudaError_t launch_in_two_reads(const DynamicQuantizeArguments& arguments, void* scratch, cudaStream_t stream) {
  const cudaError_t error = launch_choose_qparams(arguments.qparams, scratch, stream);
  return error == cudaSuccess ? launch_quantize(arguments.quantize, stream) : error;
}

// Which stages are left to kernels of their own.
struct Stages {
  bool two_reads;
  bool sums;

  template <class T>
  Stages(const DynamicQuantizeArguments& arguments, TypeTag<T>) {
    const SplitRows loops(arguments.nest);
    two_reads = !loops.is_neighbours() || !fits<T>(loops, arguments.qparams.x);
    sums = arguments.sums.sum != nullptr && (two_reads || !arguments.sums_blocks);
  }
};

}  // namespace

int64_t dynamic_quantize_scratch(const DynamicQuantizeArguments& arguments) {
  int64_t bytes = 0;
  const cudaError_t known = with_type(arguments.qparams.x_type, [&](auto tag) {
    const Stages stages(arguments, tag);
    if (stages.two_reads) bytes = choose_qparams_scratch(arguments.qparams);
    if (stages.sums) bytes = std::max(bytes, sum_codes_scratch(arguments.sums));
    return cudaSuccess;
  });
  return known == cudaSuccess ? bytes : 0;
}

cudaError_t launch_dynamic_quantize(const DynamicQuantizeArguments& arguments, void* scratch, cudaStream_t stream) {
  return with_type(arguments.qparams.x_type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Stages stages(arguments, tag);
    const cudaError_t error = stages.two_reads ? launch_in_two_reads(arguments, scratch, stream)
                                               : launch_in_one_read<T>(arguments, !stages.sums, stream);
    if (error != cudaSuccess || !stages.sums) return error;
    return launch_sum_codes(arguments.sums, scratch, stream);
  });
}

}  // namespace quaver
