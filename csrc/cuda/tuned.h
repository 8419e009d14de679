// tuned.h: plans of matmuls that were measured, in the place of those that plan.h makes. Of all threads of the process.
#pragma once

#include <optional>

#include "plan.h"

namespace quaver {

// False for a plan that cannot serve.
[[nodiscard]] bool set_tuned_plan(const Device& device, const MatmulShape& shape, MatmulKernel kernel, int32_t splits);
void clear_tuned_plans();

std::optional<MatmulPlan> tuned_plan(const Device& device, const MatmulShape& shape);

// What the calling thread's last matmul was, as far as a plan depends on it.
struct PlannedMatmul {
  Device device;
  MatmulShape shape;
};
PlannedMatmul& last_planned_matmul();

}  // namespace quaver
