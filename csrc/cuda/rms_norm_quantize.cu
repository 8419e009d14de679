// rms_norm_quantize.cu: rms_norm_quantize on CUDA: rows of x, with a residual or without, divided by their root mean
// square, times the weight, to q, scale, zero_point, row sums and the sum with the residual. Bound by memory; rows are
// held in registers (held_rows.cuh), and the weight, which all rows share, comes from the caches.
#include "held_rows.cuh"
#include "launch.h"

namespace quaver {
namespace {

// The sum of a row's squares by ARITHMETIC.md (11), which halves the row: first over a thread's own vectors, then over
// warps, through shared memory, then over lanes, then over the places in a vector. An exchange adds the same two
// numbers on both sides. All threads of the block come here together; those of a row get its sum.
//   shared memory   smem_part: what each warp but a row's first gives to one before it, once: 16 KB
//                   smem_sum: the row's sum, by its first warp
template <class T>
__device__ __forceinline__ float sum_of_squares(const HeldFloats<T>& h, int threads) {
  constexpr int kVector = kWidest<T>;
  static_assert(kHeldVectors == 4);
  __shared__ float smem_part[kMostHeldThreads<T> / kLanes][kVector][kLanes];
  __shared__ float smem_sum[kMostHeldThreads<T> / kLanes];
  const int lane = threadIdx.x % kLanes;
  const int warp = threadIdx.x / kLanes;
  const int warps = threads / kLanes;
  const int warp_of_row = warp % warps;
  float part[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const float even = add(multiply(h[0][i], h[0][i]), multiply(h[2][i], h[2][i]));
    const float odd = add(multiply(h[1][i], h[1][i]), multiply(h[3][i], h[3][i]));
    part[i] = add(even, odd);
  }
  for (int apart = warps / 2; apart > 0; apart /= 2) {
    if (warp_of_row >= apart && warp_of_row < 2 * apart) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) smem_part[warp][i][lane] = part[i];
    }
    __syncthreads();
    if (warp_of_row < apart) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) part[i] = add(part[i], smem_part[warp + apart][i][lane]);
    }
  }
  if (warp_of_row == 0) {
    for (int apart = kLanes / 2; apart > 0; apart /= 2) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) part[i] = add(part[i], __shfl_xor_sync(kAllLanes, part[i], apart));
    }
#pragma unroll
    for (int apart = kVector / 2; apart > 0; apart /= 2)
#pragma unroll
      for (int i = 0; i < apart; ++i) part[i] = add(part[i], part[i + apart]);
  }
  if (warps == 1) return part[0];
  if (warp_of_row == 0 && lane == 0) smem_sum[warp] = part[0];
  __syncthreads();
  return smem_sum[warp - warp_of_row];
}

// Elements of the weight as floats, zeros where the row has ended.
template <int kCount, class W>
__device__ __forceinline__ void load_weight(const W* __restrict__ weight, int begin, int count,
                                            float (&value)[kCount]) {
  constexpr int kPiece = kCount < kWidest<W> ? kCount : kWidest<W>;
#pragma unroll
  for (int first = 0; first < kCount; first += kPiece) {
    const int left = max(min(kPiece, count - first), 0);
    const Vector<W, kPiece> piece = load_span<kPiece>(weight + begin + first, left);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) value[first + i] = to_float(piece.get(i));
  }
}

template <class T, class W>
__device__ __forceinline__ void normalize_held(HeldFloats<T>& h, const HeldPart<kWidest<T>>& part, float factor,
                                               const W* __restrict__ weight) {
  constexpr int kVector = kWidest<T>;
#pragma unroll
  for (int u = 0; u < kHeldVectors; ++u) {
    float value[kVector];
    load_weight(weight, part.begin(u), part.count(u), value);
#pragma unroll
    for (int i = 0; i < kVector; ++i) h[u][i] = normalize(h[u][i], factor, value[i]);
  }
}

// The weight in each type with x in each, at the price of a branch that all threads take alike.
template <class T>
__device__ __forceinline__ void normalize_held(HeldFloats<T>& h, const HeldPart<kWidest<T>>& part, float factor,
                                               const RmsNormData& data) {
  switch (data.weight_type) {
    case FloatType::kFloat32:
      return normalize_held<T>(h, part, factor, static_cast<const float*>(data.weight));
    case FloatType::kFloat16:
      return normalize_held<T>(h, part, factor, static_cast<const __half*>(data.weight));
    case FloatType::kBFloat16:
      return normalize_held<T>(h, part, factor, static_cast<const __nv_bfloat16*>(data.weight));
  }
}

//   x, residual             device, rows of data.x_step and data.residual_step; residual may be null
//   residual_out            device [rows, length], or null
//   weight                  device [length]
//   q, scale, zero_point, row_sum   device, as in RowCodes
//   shared memory           17 KB
template <class T>
__global__ void __launch_bounds__(kMostHeldThreads<T>)
    rms_norm_quantize_kernel(const HeldRows rows, const RmsNormData data) {
  constexpr int kVector = kWidest<T>;
  const int64_t at_once = blockDim.x / (rows.warps * kLanes);
  for (int64_t first = blockIdx.x * at_once; first < rows.count; first += gridDim.x * at_once) {
    const HeldPart<kVector> part(rows, first);
    const T* const x = static_cast<const T*>(data.x) + part.offset[kRowFirst];
    HeldFloats<T> h;
#pragma unroll
    for (int u = 0; u < kHeldVectors; ++u) {
      const Vector<T, kVector> vector = load_of_row<kVector>(x, data.x_step, part.begin(u), part.count(u));
#pragma unroll
      for (int i = 0; i < kVector; ++i) h[u][i] = to_float(vector.get(i));
    }
    if (data.residual != nullptr) {
      const T* const residual = static_cast<const T*>(data.residual) + part.offset[kRowSecond];
      T* const out = static_cast<T*>(data.residual_out) + part.row * rows.length;
#pragma unroll
      for (int u = 0; u < kHeldVectors; ++u) {
        const Vector<T, kVector> vector =
            load_of_row<kVector>(residual, data.residual_step, part.begin(u), part.count(u));
#pragma unroll
        for (int i = 0; i < kVector; ++i) h[u][i] = add(h[u][i], to_float(vector.get(i)));
        const Vector<T, kVector> rounded = from_floats<T>(h[u]);
#pragma unroll
        for (int i = 0; i < kVector; ++i) h[u][i] = to_float(rounded.get(i));
        store_span(rounded, out + part.begin(u), part.count(u));
      }
    }
    const float factor = inverse_rms(sum_of_squares<T>(h, part.threads), rows.length, data.eps);
    normalize_held<T>(h, part, factor, data);
    quantize_held<T>(h, part, data.codes);
  }
}

}  // namespace

cudaError_t launch_rms_norm_quantize(const RmsNormArguments& arguments, cudaStream_t stream) {
  const RmsNormData& data = arguments.data;
  if (data.codes.rows == 0) return cudaSuccess;
  return with_type(data.x_type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const HeldRows rows = held_rows<T>(arguments.nest, data.codes);
    rms_norm_quantize_kernel<T><<<rows.blocks(), rows.threads_of_block(), 0, stream>>>(rows, data);
    return cudaGetLastError();
  });
}

}  // namespace quaver
