// requantize.cu: requantize on CUDA: int32 products [..., M, N] to codes of their shape, the matmuls' last stage alone.
// Bound by memory: one read of acc and one write of q for each element.
#include "launch.h"
#include "product_rows.cuh"
#include "quotient.cuh"

namespace quaver {
namespace {

using RequantizedRows = RowsOfThread<RequantizeData>;

// (7), whose sign of zero no code depends on: no bias is as good as one of 0.
__device__ __forceinline__ float scaled(int32_t acc, float a_scale, float b_scale, float bias, bool relu) {
  return scale_product(acc, a_scale, b_scale, true, bias, relu);
}

__device__ __forceinline__ void requantize_rows(const RequantizedRows& rows) {
  const RequantizeData& data = rows.data;
  float b_scale[kVector], out_scale[kVector], bias[kVector];
  int32_t zero_point[kVector];
  rows.load(data.b_scale, kProductBScale, b_scale);
  rows.load(data.out_scale, kProductOutScale, out_scale);
  rows.load_given(data.out_zero_point, kProductZeroPoint, zero_point);
  rows.load_given(data.bias, kProductBias, bias);
  SharedScale<QuantizeMode::kOnnx> out[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) out[i] = {out_scale[i], zero_point[i], data.range};
  rows.for_each<RowsPlan::kTogether, true>(
      static_cast<uint8_t*>(data.q), [&](const Vector<int32_t, kVector>& products, float a_scale) {
        int32_t code[kVector];
#pragma unroll
        for (int i = 0; i < kVector; ++i)
          code[i] = out[i].code(scaled(products.get(i), a_scale, b_scale[i], bias[i], data.relu));
        return pack_bytes(code);
      });
}

__device__ __forceinline__ void requantize_fixed_rows(const RequantizedRows& rows) {
  const RequantizeData& data = rows.data;
  float b_scale[kVector], out_scale[kVector];
  int32_t zero_point[kVector], bias[kVector];
  rows.load(data.b_scale, kProductBScale, b_scale);
  rows.load(data.out_scale, kProductOutScale, out_scale);
  rows.load_given(data.out_zero_point, kProductZeroPoint, zero_point);
  rows.load_given(data.integer_bias, kProductBias, bias);
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
  uint8_t* const to = static_cast<uint8_t*>(data.q);
  if (rows.plan.row_stride[kProductAScale] == 0) {  // one for all rows: two double operations a column, not more
    find_multipliers(__ldg(data.a_scale + rows.offset[kProductAScale]));
    rows.for_each<RowsPlan::kTogether, false>(
        to, [&](const Vector<int32_t, kVector>& products, float) { return codes(products); });
  } else {
    rows.for_each<1, true>(to, [&](const Vector<int32_t, kVector>& products, float a_scale) {
      find_multipliers(a_scale);
      return codes(products);
    });
  }
}

// acc, q: device, rows of neighbouring columns
__global__ void __launch_bounds__(kThreads) requantize_rows_kernel(const RowsPlan plan, const RequantizeData data) {
  RequantizedRows rows{plan, data};
  if (!rows.take_place()) return;
  if (data.mode == RequantizeMode::kFixed) {
    requantize_fixed_rows(rows);
  } else {
    requantize_rows(rows);
  }
}

// acc, q: device, any strides
__global__ void __launch_bounds__(kThreads)
    requantize_elements_kernel(const Walk<kProductOperands> walk, const int64_t elements, const RequantizeData data) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < elements; i += step) {
    int64_t offset[kProductOperands] = {};
    walk.add_offsets(i, offset);
    const int32_t acc = __ldg(data.acc + offset[kProductAcc]);
    const float a_scale = __ldg(data.a_scale + offset[kProductAScale]);
    const float b_scale = __ldg(data.b_scale + offset[kProductBScale]);
    const float out_scale = __ldg(data.out_scale + offset[kProductOutScale]);
    const int32_t zero_point =
        data.out_zero_point == nullptr ? 0 : __ldg(data.out_zero_point + offset[kProductZeroPoint]);
    int32_t code;
    if (data.mode == RequantizeMode::kFixed) {
      const int32_t bias = data.integer_bias == nullptr ? 0 : __ldg(data.integer_bias + offset[kProductBias]);
      code = requantize_fixed(wrapping_add(acc, bias), fixed_multiplier(a_scale, b_scale, out_scale), data.relu,
                              zero_point, data.range);
    } else {
      const float bias = data.bias == nullptr ? 0.0f : __ldg(data.bias + offset[kProductBias]);
      const float v = scaled(acc, a_scale, b_scale, bias, data.relu);
      code = quantize<QuantizeMode::kOnnx>(v, out_scale, zero_point, data.range);
    }
    static_cast<uint8_t*>(data.q)[offset[kProductResult]] = static_cast<uint8_t>(code);
  }
}

}  // namespace

// Int8 and uint8 differ in their range alone.
cudaError_t launch_requantize(const RequantizeArguments& arguments, cudaStream_t stream) {
  const ProductNest& nest = arguments.nest;
  const int64_t elements = nest.numel();
  if (elements == 0) return cudaSuccess;
  if (RowsPlan::serves(nest, arguments.data.acc, static_cast<const uint8_t*>(arguments.data.q))) {
    const RowsPlan plan(nest);
    requantize_rows_kernel<<<static_cast<unsigned>(plan.blocks), kThreads, 0, stream>>>(plan, arguments.data);
  } else {
    requantize_elements_kernel<<<grid_for_elements(elements), kThreads, 0, stream>>>(Walk<kProductOperands>(nest),
                                                                                     elements, arguments.data);
  }
  return cudaGetLastError();
}

}  // namespace quaver
