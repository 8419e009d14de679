// tuned.cpp: the table of measured plans, and what a thread's last matmul was.
#include "tuned.h"

#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <shared_mutex>

namespace quaver {
namespace {

using Key = std::array<int64_t, 8>;

Key key_of(const Device& device, const MatmulShape& shape) {
  return {device.architecture,
          device.multiprocessors,
          shape.m,
          shape.n,
          shape.k,
          shape.batches,
          static_cast<int64_t>(shape.a_layout),
          static_cast<int64_t>(shape.b_layout)};
}

struct Table {
  std::shared_mutex mutex;
  std::map<Key, MatmulPlan> plans;
  std::atomic<bool> any = false;  // so that a process which has none takes no lock
};

// Never destroyed: matmuls may run until the process ends.
Table& table() {
  static Table& only = *new Table;
  return only;
}

}  // namespace

bool set_tuned_plan(const Device& device, const MatmulShape& shape, MatmulKernel kernel, int32_t splits) {
  std::optional<MatmulPlan> wanted;
  for_each_plan(device, shape, [&](const MatmulPlan& plan) {
    if (plan.kernel == kernel && plan.splits == splits) wanted = plan;
  });
  if (!wanted) return false;
  const std::unique_lock lock(table().mutex);
  table().plans[key_of(device, shape)] = *wanted;
  table().any = true;
  return true;
}

void clear_tuned_plans() {
  const std::unique_lock lock(table().mutex);
  table().plans.clear();
  table().any = false;
}

std::optional<MatmulPlan> tuned_plan(const Device& device, const MatmulShape& shape) {
  if (!table().any) return {};
  const std::shared_lock lock(table().mutex);
  const auto found = table().plans.find(key_of(device, shape));
  return found == table().plans.end() ? std::nullopt : std::optional(found->second);
}

PlannedMatmul& last_planned_matmul() {
  static thread_local PlannedMatmul last{};
  return last;
}

}  // namespace quaver
