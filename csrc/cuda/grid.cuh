// grid.cuh: the shape of grids whose threads or blocks stride over more work than there are of them.
#pragma once

#include <cstdint>

namespace quaver {

inline constexpr int kLanes = 32;
inline constexpr uint32_t kAllLanes = 0xFFFFFFFFu;
inline constexpr int kMaxThreads = 1024;  // of a block
inline constexpr int kThreads = 256;      // of a block, unless a kernel says otherwise

// Enough blocks to fill any GPU several times over, few enough to fit every grid limit.
inline constexpr int64_t kMaxBlocks = 1 << 16;

inline unsigned grid_for(int64_t blocks) { return static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks); }

inline unsigned grid_for_elements(int64_t elements) { return grid_for((elements + kThreads - 1) / kThreads); }

}  // namespace quaver
