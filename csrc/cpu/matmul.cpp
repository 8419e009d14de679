// matmul.cpp: the three int8 matmuls on the CPU: codes to an exact int32 product, and that product scaled to floats or
// requantized to codes.
#include "cpu/kernels/matmul.h"

#include "cpu/ops.h"
#include "cpu/packed.h"
#include "cpu/parallel.h"
#include "prepare_matmul.h"

namespace quaver {

void multiply_cpu(MatmulProblem problem, const uint8_t* packed, bool padded) {
  if (problem.m * problem.n * problem.batches() == 0) return;
  fold_batch_into_rows(problem);
  const MatmulTasks tasks(problem);
  share(tasks.count(problem), tasks.grain(problem), [&](int64_t begin, int64_t end) {
    MatmulThread(problem, tasks, packed, padded, contiguous_places(problem)).run(begin, end);
  });
}

Tensor int8_matmul_cpu(const Outs<1>* given, const Tensor& a, const Tensor& b, OptionalTensor a_zero_point,
                       OptionalTensor b_zero_point, OptionalTensor a_sum, OptionalTensor b_sum,
                       OptionalTensor b_packed) {
  const MatmulArguments arguments = int8_matmul_arguments(a, b, a_zero_point, b_zero_point, a_sum, b_sum);
  Tensor out;
  const MatmulProblem problem = prepare_matmul(arguments, given, out);
  multiply_cpu(problem, packed_panels(arguments.op, "b_packed", b_packed, "b", b), false);
  return out;
}

Tensor int8_matmul_dequantize_cpu(const Outs<1>* given, const Tensor& a, const Tensor& b, const Tensor& a_scale,
                                  const Tensor& b_scale, OptionalTensor a_zero_point, OptionalTensor b_zero_point,
                                  OptionalTensor a_sum, OptionalTensor b_sum, OptionalTensor bias, bool relu,
                                  ScalarType dtype, OptionalTensor b_packed) {
  const MatmulArguments arguments =
      int8_matmul_dequantize_arguments(a, b, a_scale, b_scale, a_zero_point, b_zero_point, a_sum, b_sum, bias, relu);
  Tensor out;
  const MatmulProblem problem = prepare_matmul_dequantize(arguments, dtype, given, out);
  multiply_cpu(problem, packed_panels(arguments.op, "b_packed", b_packed, "b", b), false);
  return out;
}

Tensor int8_matmul_requantize_cpu(const Outs<1>* given, const Tensor& a, const Tensor& b, const Tensor& a_scale,
                                  const Tensor& b_scale, const Tensor& out_scale, OptionalTensor a_zero_point,
                                  OptionalTensor b_zero_point, OptionalTensor out_zero_point, OptionalTensor a_sum,
                                  OptionalTensor b_sum, OptionalTensor bias, bool relu, ScalarType dtype,
                                  std::optional<int64_t> q_min, std::optional<int64_t> q_max, std::string mode,
                                  OptionalTensor b_packed) {
  const MatmulArguments arguments = int8_matmul_requantize_arguments(
      a, b, a_scale, b_scale, out_scale, a_zero_point, b_zero_point, out_zero_point, a_sum, b_sum, bias, relu, mode);
  Tensor out;
  const MatmulProblem problem = prepare_matmul_requantize(arguments, dtype, q_min, q_max, mode, given, out);
  multiply_cpu(problem, packed_panels(arguments.op, "b_packed", b_packed, "b", b), false);
  return out;
}

Tensor int8_prepack_cpu(const Tensor& b) {
  constexpr const char* kOp = "int8_prepack";
  const CodeType type = check_codes(kOp, "b", b);
  QUAVER_CHECK(b.dim() == 2, kOp, "b must have 2 dimensions, [K, N], got ", b.dim());
  const int64_t k = b.size(0);
  const int64_t n = b.size(1);
  const Shape shape = packed_shape(k, n);
  Tensor packed = torch::stable::new_empty(b, shape);
  const uint8_t* codes = static_cast<const uint8_t*>(b.const_data_ptr());
  uint8_t* to = static_cast<uint8_t*>(packed.mutable_data_ptr());
  share(shape[0], kElementsPerThread / shape[1] + 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t first = panel * Panel::kColumns;
      const int columns = static_cast<int>(std::min<int64_t>(n - first, Panel::kColumns));
      make_panel({codes + first * b.stride(1), b.stride(0), b.stride(1), k, columns, type}, to + panel * shape[1]);
    }
  });
  return packed;
}

}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) {
  quaver::implement<quaver::int8_matmul_cpu>(m, "int8_matmul");
  quaver::implement<quaver::int8_matmul_dequantize_cpu>(m, "int8_matmul_dequantize");
  quaver::implement<quaver::int8_matmul_requantize_cpu>(m, "int8_matmul_requantize");
  m.impl("int8_prepack", TORCH_BOX(&quaver::int8_prepack_cpu));
}
