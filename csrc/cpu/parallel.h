// parallel.h: how much work is worth a thread.
#pragma once

#include <torch/csrc/stable/ops.h>

namespace quaver {

// Below this many elements a thread costs more than it brings.
inline constexpr int64_t kElementsPerThread = 32768;

}  // namespace quaver
