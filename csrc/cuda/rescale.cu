// rescale.cu: rescale on CUDA: int32 products [..., M, N] to floats of their shape, a matmul's last stage alone. Bound
// by memory: one read of acc and one write of y for each element.
#include "launch.h"
#include "product_rows.cuh"

namespace quaver {
namespace {

// acc, y: device, rows of neighbouring columns
template <class Y>
__global__ void __launch_bounds__(kThreads) rescale_rows_kernel(const RowsPlan plan, const RescaleData data) {
  RowsOfThread<RescaleData> rows{plan, data};
  if (!rows.take_place()) return;
  float b_scale[kVector], bias[kVector];
  rows.load(data.b_scale, kProductBScale, b_scale);
  rows.load_given(data.bias, kProductBias, bias);
  const bool has_bias = data.bias != nullptr;
  rows.template for_each<RowsPlan::kTogether, true>(
      static_cast<Y*>(data.y), [&](const Vector<int32_t, kVector>& products, float a_scale) {
        float v[kVector];
#pragma unroll
        for (int i = 0; i < kVector; ++i)
          v[i] = scale_product(products.get(i), a_scale, b_scale[i], has_bias, bias[i], data.relu);
        return from_floats<Y, kVector>(v);
      });
}

// acc, y: device, any strides
template <class Y>
__global__ void __launch_bounds__(kThreads)
    rescale_elements_kernel(const Walk<kProductOperands> walk, const int64_t elements, const RescaleData data) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < elements; i += step) {
    int64_t offset[kProductOperands] = {};
    walk.add_offsets(i, offset);
    const int32_t acc = __ldg(data.acc + offset[kProductAcc]);
    const float a_scale = __ldg(data.a_scale + offset[kProductAScale]);
    const float b_scale = __ldg(data.b_scale + offset[kProductBScale]);
    const bool has_bias = data.bias != nullptr;
    const float bias = has_bias ? __ldg(data.bias + offset[kProductBias]) : 0.0f;
    from_float(scale_product(acc, a_scale, b_scale, has_bias, bias, data.relu),
               static_cast<Y*>(data.y)[offset[kProductResult]]);
  }
}

}  // namespace

cudaError_t launch_rescale(const RescaleArguments& arguments, cudaStream_t stream) {
  const ProductNest& nest = arguments.nest;
  const RescaleData& data = arguments.data;
  const int64_t elements = nest.numel();
  if (elements == 0) return cudaSuccess;
  return with_type(data.y_type, [&](auto tag) {
    using Y = typename decltype(tag)::type;
    if (RowsPlan::serves(nest, data.acc, static_cast<const Y*>(data.y))) {
      const RowsPlan plan(nest);
      rescale_rows_kernel<Y><<<static_cast<unsigned>(plan.blocks), kThreads, 0, stream>>>(plan, data);
    } else {
      rescale_elements_kernel<Y>
          <<<grid_for_elements(elements), kThreads, 0, stream>>>(Walk<kProductOperands>(nest), elements, data);
    }
    return cudaGetLastError();
  });
}

}  // namespace quaver
