// ops.h: the CPU implementations that other CPU implementations build on.
#pragma once

#include "arguments.h"
#include "matmul_problem.h"

namespace quaver {

void choose_qparams_cpu(const QparamsArguments& arguments);

void quantize_cpu(const QuantizeArguments& arguments);

// `packed`: b's panels, or null; `padded`: as RowsOfA has it.
void multiply_cpu(MatmulProblem problem, const uint8_t* packed, bool padded);

}  // namespace quaver
