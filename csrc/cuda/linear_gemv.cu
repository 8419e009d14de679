// linear_gemv.cu: int8_linear of up to 4 rows in one launch: x [M, K] to codes in shared memory, and those times the
// weight [N, K] through the epilogue to out [M, N]. As at each step of decoding; bound by reading the weight once.
//
// Every block quantizes the rows for itself, before it goes through tiles of 16 columns as gemv.cuh has it: x comes
// from the L2 cache twice, for its range and for its codes. The grid is no larger than what runs at once. The sums of
// the weight's codes come on the way: rows 8 to 15 of mma.sync are free, and row 8 is ones.
//   shared memory   GemvSums and the rows' parameters, 12,320 bytes; codes, of each row K rounded up to 128
//                   and 64 more, so that two rows of 64 codes lie in different banks
#include "gemv.cuh"
#include "launch.h"
#include "quotient.cuh"
#include "state.cuh"

namespace quaver {
namespace {

constexpr int kOnesRow = 8;

// x's rows to codes, each by a power of 2 of warps that stand side by side.
template <class T>
__device__ __forceinline__ void quantize_rows(const LinearProblem& linear, uint8_t* smem_codes, int pitch,
                                              ScaleAndZeroPoint (&smem_chosen)[kMostLinearRows]) {
  constexpr int kVector = kWidest<T>;
  using Words = std::conditional_t<kVector == 8, uint2, uint32_t>;  // codes of a vector
  const int64_t rows = linear.product.m;
  const int threads = rows == 1 ? Gemv::kThreads : rows == 2 ? Gemv::kThreads / 2 : Gemv::kThreads / 4;
  const int row = threadIdx.x / threads;
  const int thread = threadIdx.x % threads;
  const int length = row < rows ? static_cast<int>(linear.product.k) : 0;  // a multiple of 16
  const T* const x = static_cast<const T*>(linear.x) + linear.row_offset[row];
  Range found;
#pragma unroll 2
  for (int begin = thread * kVector; begin < length; begin += threads * kVector) {
    const Vector<T, kVector> values = load_of_row<kVector>(x, linear.step, begin, kVector);
#pragma unroll
    for (int i = 0; i < kVector; ++i) found.take(to_float(values.get(i)));
  }
  join_threads(found, threads);
  const ScaleAndZeroPoint chosen = choose_qparams(found.lo, found.hi, linear.symmetric, linear.range, 0.0f);
  const SharedScale<QuantizeMode::kOnnx> shared(chosen.scale, chosen.zero_point, linear.range);
#pragma unroll 2
  for (int begin = thread * kVector; begin < length; begin += threads * kVector) {
    const Vector<T, kVector> values = load_of_row<kVector>(x, linear.step, begin, kVector);
    int32_t code[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) code[i] = shared.code(to_float(values.get(i)));
    const Vector<uint8_t, kVector> codes = pack_bytes(code);
    Words words;
    memcpy(&words, codes.word, sizeof words);
    *reinterpret_cast<Words*>(smem_codes + row * pitch + begin) = words;
  }
  if (thread == 0) smem_chosen[row] = chosen;
}

// The codes of the lane's row among those, and of ones.
struct RowsOfShared {
  const uint8_t* from;
  bool exists;
  uint32_t ones;

  __device__ __forceinline__ RowsOfShared(int64_t rows, const uint8_t* smem_codes, int pitch) {
    const int lane = threadIdx.x % kLanes;
    exists = lane / 4 < rows;
    from = smem_codes + (exists ? lane / 4 : 0) * pitch + lane % 4 * 16;
    ones = lane / 4 == kOnesRow - 8 ? 0x01010101 : 0;
  }

  __device__ __forceinline__ LaneCodes load(int i, int k, bool in_k) const {
    if (i == 1) return {{ones, ones, ones, ones}};
    if (!in_k || !exists) return {};
    const uint4 words = *reinterpret_cast<const uint4*>(from + k);
    return {{words.x, words.y, words.z, words.w}};
  }
};

__device__ __forceinline__ void store_float(const MatmulProblem& problem, float v, int64_t index) {
  const uint32_t bits = float_bits(problem.out_type, v);
  if (problem.out_type == MatmulOutput::kFloat32) {
    static_cast<uint32_t*>(problem.out)[index] = bits;
  } else {
    static_cast<uint16_t*>(problem.out)[index] = static_cast<uint16_t>(bits);
  }
}

template <class T>
__global__ void __launch_bounds__(Gemv::kThreads, Gemv::kBlocks)
    linear_gemv_kernel(const LinearProblem linear, const int64_t tiles, const int pitch) {
  extern __shared__ __align__(128) uint8_t smem_codes[];
  __shared__ GemvSums smem_sum;
  __shared__ ScaleAndZeroPoint smem_chosen[kMostLinearRows];
  quantize_rows<T>(linear, smem_codes, pitch, smem_chosen);
  __syncthreads();

  const MatmulProblem& problem = linear.product;
  for (uint32_t round = 0; tile_in_round(round) < tiles; ++round) {
    GemvAccumulators acc = {};
    multiply_rows<CodeType::kInt8, CodeType::kInt8>(problem, BatchPlace{}, RowsOfShared(problem.m, smem_codes, pitch),
                                                    tile_in_round(round) * Gemv::kColumns, 0,
                                                    static_cast<int>(problem.k), acc);
    const GemvResult result = join_warps(acc, smem_sum);
    const int64_t column = tile_in_round(round) * Gemv::kColumns + result.column;
    if (result.row < problem.m && column < problem.n) {
      const ScaleAndZeroPoint chosen = smem_chosen[result.row];
      const int32_t column_sum = sum_of_warps(smem_sum, kOnesRow, result.column);
      const int32_t product = correct_for_zero_points(result.product, chosen.zero_point, 0, 0, column_sum, 0);
      const float scale = problem.b_scale.data[column * problem.b_scale.stride];
      const float bias = value_at(problem.bias, BatchPlace{}, column, 0.0f);
      const bool has_bias = problem.bias.data != nullptr;
      store_float(problem, scale_product(product, chosen.scale, scale, has_bias, bias, problem.relu),
                  result.row * problem.n + column);
    }
    __syncthreads();
  }
}

}  // namespace

cudaError_t launch_linear_gemv(const LinearProblem& linear, int32_t blocks, cudaStream_t stream) {
  const int64_t tiles = tiles_along(linear.product.n, Gemv::kColumns);
  const int pitch = static_cast<int>(linear_pitch(linear.product.k));
  return with_type(linear.x_type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    linear_gemv_kernel<T><<<blocks, Gemv::kThreads, linear.product.m * pitch, stream>>>(linear, tiles, pitch);
    return cudaGetLastError();
  });
}

}  // namespace quaver
