// parallel.h: work shared among torch's threads, where there is enough.
#pragma once

#include <torch/csrc/stable/ops.h>

namespace quaver {

// Below this many elements a thread costs more than it brings.
inline constexpr int64_t kElementsPerThread = 32768;

// body(begin, end) for all parts of [0, n), none shorter than grain but the last. What is for one thread needs no pool.
template <class Body>
void share(int64_t n, int64_t grain, const Body& body) {
  if (n <= grain) return body(0, n);
  torch::stable::parallel_for(0, n, grain, body);
}

}  // namespace quaver
