// conv2d.cu: int8 convolution: x [N, C, H, W] and a weight [O, C / groups, kH, kW] to out [N, O, OH, OW] through the
// matmuls' epilogue. Where groups have several channels it is a product on tensor cores whose rows are gathered on the
// way to shared memory (patch_loads.cuh, mma_loop.cuh); where each channel of x is a group, every thread adds up the
// taps of its results, which memory bounds.
#include "epilogue.cuh"
#include "grid.cuh"
#include "launch.h"
#include "mma_loads.cuh"
#include "mma_loop.cuh"
#include "patch_loads.cuh"
#include "store_tile.cuh"

namespace quaver {
namespace {

// What each warp computes.
using Medium = MmaTile<MatmulKernel::kAnyMedium, 32, 64>;
using Small = MmaTile<MatmulKernel::kAnySmall, 32, 32>;

// What brings the codes of both.
template <class Tile>
struct ConvOperands {
  PatchLoads<Tile, Tile::kM> x;
  AnyLoads<Tile, Tile::kN> weight;

  __device__ __forceinline__ void load_next(uint32_t stage) {
    x.next(stage);
    weight.next(stage);
  }
};

// The place of a pixel's first channel of a group.
__device__ __forceinline__ int64_t pixel_place(const ResultPlaces& places, int64_t group, int64_t pixel) {
  const int64_t image = pixel / places.rows;
  return group * places.batch + image * places.image + (pixel - image * places.rows) * places.row;
}

// Neighbouring lanes store neighbouring pixels of a channel.
template <class Tile>
__device__ __forceinline__ void store_slice_across(const MatmulProblem& problem, const ResultPlaces& places,
                                                   const ResultPlace& place, const ResultSlice<Tile>& slice,
                                                   int64_t first_row) {
  constexpr int kColumnsAtOnce = kLanes / slice.kRows;
  const int i = threadIdx.x % slice.kRows;
  const int64_t row = first_row + i;
  if (row >= problem.m) return;
  const EpilogueRow of_row = epilogue_row(problem, place.batch, row);
  const int64_t to = pixel_place(places, place.batch.index[0], row);
#pragma unroll 1
  for (int in_row = threadIdx.x % kLanes / slice.kRows; in_row < Tile::kWarpN; in_row += kColumnsAtOnce) {
    const int64_t column = place.column + in_row;
    if (column >= problem.n) return;
    store_result(problem, of_row, epilogue_column(problem, place.batch, column), slice.row[i][in_row],
                 to + column * places.column);
  }
}

template <class Tile, CodeType kX>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksTogether<Tile>)
    conv2d_sm80_kernel(const Conv2dProblem conv, const Tiling tiling, const bool x_is_chunks,
                       const OperandLayout weight_layout) {
  extern __shared__ __align__(128) uint8_t smem[];
  const uint32_t ring = shared_address(smem);
  const MatmulProblem& product = conv.product;
  for (uint32_t round = 0; tile_in_round(round) < tiling.tiles; ++round) {
    const WarpPart<Tile> part(computed_anew(threadIdx.x));
    Accumulators<Tile> acc = {};
    {
      const TilePlace place = tile_place(tiling, tile_in_round(round));
      const int64_t column = place.column_tile * Tile::kN;
      const int end = static_cast<int>(product.k);
      const Lines lines{static_cast<const uint8_t*>(product.b.data) + place.batch * product.b.batch_stride[0],
                        product.b.column_stride, product.b.row_stride, product.n};
      ConvOperands<Tile> operands{PatchLoads<Tile, Tile::kM>(conv, place.batch, place.row_tile * Tile::kM, x_is_chunks),
                                  {lines, weight_layout, column, 0, end, Tile::kM * Tile::kK}};
      multiply_stages<Tile, kX, CodeType::kInt8>(operands, part, ring, 0, end, acc);
    }
    const TilePlace place = tile_place(tiling, tile_in_round(computed_anew(round)));
    const ResultPlace to{{{place.batch}},
                         place.batch * conv.places.batch,
                         conv.places.row,
                         place.row_tile * Tile::kM + part.row,
                         place.column_tile * Tile::kN + part.column};
    if (conv.places.column == 1) {
      store_tile<Tile>(product, to, smem, acc);
    } else {
      const ResultSlice<Tile> slice(smem);
      in_slices<Tile>(slice, to.row, acc,
                      [&](int64_t first_row) { store_slice_across<Tile>(product, conv.places, to, slice, first_row); });
    }
    __syncthreads();
  }
}

// How many channels of the result a thread has, neighbours in memory on both sides.
inline constexpr int kChannelsAtOnce = kResultsOfVector;

// The sums of one pixel of the result, of channels [first, first + kCount) of it.
template <class Code, int kCount>
__device__ __forceinline__ void add_taps(const Conv2dProblem& conv, int64_t pixel, int64_t first,
                                         int32_t (&sum)[kCount]) {
  const int64_t line = pixel / conv.out_size[1];
  const int64_t image = line / conv.out_size[0];
  const int64_t top = (line - image * conv.out_size[0]) * conv.step[0] - conv.padding[0];
  const int64_t left = (pixel - line * conv.out_size[1]) * conv.step[1] - conv.padding[1];
  const int32_t* const zero_point = conv.product.a_zero_point.data;
  const int32_t zero = zero_point == nullptr ? 0 : *zero_point;
  const Code* const x = static_cast<const Code*>(conv.x.data) + image * conv.x.image_stride +
                        first / conv.product.n * conv.x.channel_stride;
  const int8_t* const weight = static_cast<const int8_t*>(conv.weight.data) + first;
#pragma unroll 1
  for (int64_t row = 0; row < conv.kernel[0]; ++row) {
    const int64_t y = top + row * conv.dilation[0];
    if (y < 0 || y >= conv.size[0]) continue;
#pragma unroll 1
    for (int64_t column = 0; column < conv.kernel[1]; ++column) {
      const int64_t at = left + column * conv.dilation[1];
      if (at < 0 || at >= conv.size[1]) continue;
      const Vector<Code, kCount> codes = load_vector<kCount>(x + y * conv.x.stride[0] + at * conv.x.stride[1]);
      const Vector<int8_t, kCount> by =
          load_vector<kCount>(weight + row * conv.weight.stride[0] + column * conv.weight.stride[1]);
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        sum[i] = wrapping_add(sum[i], wrapping_multiply(wrapping_subtract(codes.get(i), zero), by.get(i)));
    }
  }
}

// A thread makes kCount neighbouring channels of one pixel. Neighbouring threads are along what is contiguous in out.
//   conv      its weight has a tap's channels side by side
//   product   the same as one product of all channels, without x's zero point, which the sums have taken off
template <class Code, int kCount>
__global__ void __launch_bounds__(kThreads)
    conv2d_depthwise_kernel(const Conv2dProblem conv, const MatmulProblem product) {
  const int64_t runs = product.n / kCount;
  const int64_t items = product.m * runs;
  for (int64_t item = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; item < items;
       item += static_cast<int64_t>(gridDim.x) * kThreads) {
    const bool along_channels = conv.places.column == 1;
    const int64_t outer = item / (along_channels ? runs : product.m);
    const int64_t inner = item - outer * (along_channels ? runs : product.m);
    const int64_t pixel = along_channels ? outer : inner;
    const int64_t channel = (along_channels ? inner : outer) * kCount;
    int32_t sum[kCount] = {};
    add_taps<Code>(conv, pixel, channel, sum);
    const BatchPlace none{};
    const EpilogueRow row = epilogue_row(product, none, pixel);
    const int64_t place = pixel_place(conv.places, 0, pixel) + channel * conv.places.column;
    if constexpr (kCount == kResultsOfVector) {
      EpilogueColumn column[kCount];
#pragma unroll
      for (int i = 0; i < kCount; ++i) column[i] = epilogue_column(product, none, channel + i);
      store_results(product, row, column, {sum[0], sum[1], sum[2], sum[3]}, place);
    } else {
      store_result(product, row, epilogue_column(product, none, channel), sum[0], place);
    }
  }
}

bool aligned(const ImageView& images, int64_t bytes) {
  return reinterpret_cast<uint64_t>(images.data) % bytes == 0 && images.image_stride % bytes == 0 &&
         images.stride[0] % bytes == 0 && images.stride[1] % bytes == 0;
}

template <class Tile, CodeType kX>
cudaError_t launch_tiles(const Conv2dProblem& conv, const MatmulPlan& plan, cudaStream_t stream) {
  const Tiling tiling(conv.product, plan);
  const auto kernel = conv2d_sm80_kernel<Tile, kX>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kRing);
  if (error != cudaSuccess) return error;
  const bool x_is_chunks =
      conv.x.channel_stride == 1 && conv.channels > 0 && conv.channels % Tile::kChunk == 0 && aligned(conv.x, 16);
  kernel<<<grid_for(tiling.tiles), Tile::kThreads, Tile::kRing, stream>>>(conv, tiling, x_is_chunks, plan.b_layout);
  return cudaGetLastError();
}

template <CodeType kX>
cudaError_t launch_product(const Conv2dProblem& conv, const MatmulPlan& plan, cudaStream_t stream) {
  return plan.kernel == MatmulKernel::kAnyMedium ? launch_tiles<Medium, kX>(conv, plan, stream)
                                                 : launch_tiles<Small, kX>(conv, plan, stream);
}

template <class Code>
cudaError_t launch_depthwise(const Conv2dProblem& conv, cudaStream_t stream) {
  MatmulProblem product = conv.product;
  product.n = conv.groups * conv.product.n;
  product.batch_dims = 0;
  product.a_zero_point = {};
  const uint64_t bytes = conv.product.out_type == MatmulOutput::kFloat32 ? 4
                         : conv.product.out_type < MatmulOutput::kInt8   ? 2
                                                                         : 1;
  const bool vectors = conv.product.n == 1 && product.n % kChannelsAtOnce == 0 && conv.x.channel_stride == 1 &&
                       conv.places.column == 1 && aligned(conv.x, kChannelsAtOnce) &&
                       reinterpret_cast<uint64_t>(product.out) % (kChannelsAtOnce * bytes) == 0;
  if (vectors) {
    conv2d_depthwise_kernel<Code, kChannelsAtOnce>
        <<<grid_for_elements(product.m * product.n / kChannelsAtOnce), kThreads, 0, stream>>>(conv, product);
  } else {
    conv2d_depthwise_kernel<Code, 1><<<grid_for_elements(product.m * product.n), kThreads, 0, stream>>>(conv, product);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_conv2d(const Conv2dProblem& conv, cudaStream_t stream) {
  const bool is_signed = conv.product.a_type == CodeType::kInt8;
  if (conv.is_depthwise())
    return is_signed ? launch_depthwise<int8_t>(conv, stream) : launch_depthwise<uint8_t>(conv, stream);
  Device device{};
  const cudaError_t error = current_device(device);
  if (error != cudaSuccess) return error;
  const MatmulPlan plan = plan_conv2d(device, shape_of(conv.product));
  return is_signed ? launch_product<CodeType::kInt8>(conv, plan, stream)
                   : launch_product<CodeType::kUint8>(conv, plan, stream);
}

}  // namespace quaver
