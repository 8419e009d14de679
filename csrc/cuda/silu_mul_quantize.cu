// silu_mul_quantize.cu: silu_mul_quantize on CUDA: rows of silu(gate) * up to q, scale, zero_point and row sums. Bound
// by memory; rows are held in registers (held_rows.cuh).
#include "held_rows.cuh"
#include "launch.h"

namespace quaver {
namespace {

//   gate, up                device, rows of data.gate_step and data.up_step
//   q, scale, zero_point, row_sum   device, as in RowCodes
//   shared memory           a state of each warp, of ranges and of sums: 384 bytes
template <class T>
__global__ void __launch_bounds__(kMostHeldThreads<T>)
    silu_mul_quantize_kernel(const HeldRows rows, const SiluMulData data) {
  constexpr int kVector = kWidest<T>;
  const int64_t at_once = blockDim.x / (rows.warps * kLanes);
  for (int64_t first = blockIdx.x * at_once; first < rows.count; first += gridDim.x * at_once) {
    const HeldPart<kVector> part(rows, first);
    const T* const gate = static_cast<const T*>(data.gate) + part.offset[kRowFirst];
    const T* const up = static_cast<const T*>(data.up) + part.offset[kRowSecond];
    Vector<T, kVector> gates[kHeldVectors];
    Vector<T, kVector> ups[kHeldVectors];
#pragma unroll
    for (int u = 0; u < kHeldVectors; ++u) {
      gates[u] = load_of_row<kVector>(gate, data.gate_step, part.begin(u), part.count(u));
      ups[u] = load_of_row<kVector>(up, data.up_step, part.begin(u), part.count(u));
    }
    HeldFloats<T> y;
#pragma unroll
    for (int u = 0; u < kHeldVectors; ++u)
#pragma unroll
      for (int i = 0; i < kVector; ++i) y[u][i] = multiply(silu(to_float(gates[u].get(i))), to_float(ups[u].get(i)));
    quantize_held<T>(y, part, data.codes);
  }
}

}  // namespace

cudaError_t launch_silu_mul_quantize(const SiluMulArguments& arguments, cudaStream_t stream) {
  const SiluMulData& data = arguments.data;
  if (data.codes.rows == 0) return cudaSuccess;
  return with_type(data.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const HeldRows rows = held_rows<T>(arguments.nest, data.codes);
    silu_mul_quantize_kernel<T><<<rows.blocks(), rows.threads_of_block(), 0, stream>>>(rows, data);
    return cudaGetLastError();
  });
}

}  // namespace quaver
