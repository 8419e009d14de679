// ops.h: the CPU implementations that other CPU implementations build on.
#pragma once

#include <optional>
#include <string>
#include <tuple>

#include "arguments.h"
#include "checks.h"
#include "matmul_problem.h"
#include "out.h"

namespace quaver {

void choose_qparams_cpu(const QparamsArguments& arguments);

void quantize_cpu(const QuantizeArguments& arguments);

std::tuple<Tensor, Tensor, Tensor, Tensor> dynamic_quantize_cpu(const Outs<4>* given, const Tensor& x,
                                                                Shape scale_shape, bool symmetric, ScalarType dtype,
                                                                std::optional<int64_t> q_min,
                                                                std::optional<int64_t> q_max, std::optional<double> eps,
                                                                bool return_row_sum);

// `packed`: b's panels, or null; `padded`: as RowsOfA has it.
void multiply_cpu(MatmulProblem problem, const uint8_t* packed, bool padded);

}  // namespace quaver
