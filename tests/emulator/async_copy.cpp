// async_copy.cpp: cp.async: what a thread has asked to be copied and has not yet waited for.
#include <algorithm>

#include "machine.h"

namespace emulator {

// The source is read now, the destination changes only when the copy is waited for: what a kernel sees before is the
// old content, and reported. PTX ISA, "cp.async": `reading` bytes are read, the others of `size` are zero.
uint32_t start_copy(Warp& warp, int lane, uint64_t to, uint64_t from, int size, uint32_t reading) {
  Copy copy;
  copy.to = to;
  copy.size = size;
  if (reading > static_cast<uint32_t>(size)) {
    warp.machine->report("bad copy", warp, lane, from,
                         "reads " + std::to_string(reading) + " bytes for " + std::to_string(size));
    return 0;
  }
  if (from % size != 0) {
    warp.machine->report("misaligned access", warp, lane, from,
                         "global source of a copy of " + std::to_string(size) + " bytes");
    return 0;
  }
  if (reading == static_cast<uint32_t>(size)) {
    load_global(warp, lane, from, size, copy.bytes);
  } else {
    for (uint32_t i = 0; i < reading; ++i) load_global(warp, lane, from + i, 1, copy.bytes + i);
  }
  if (claim_shared(warp, lane, to, size)) warp.copies[lane].open.push_back(copy);
  return reading;
}

// A group for each lane, be it empty.
void commit_copies(Warp& warp) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    Copies& copies = warp.copies[lane];
    copies.groups.push_back(std::move(copies.open));
    copies.open.clear();
  }
}

// All groups but the last `pending` land.
void wait_for_copies(Warp& warp, size_t pending) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    auto& groups = warp.copies[lane].groups;
    const size_t landing = groups.size() - std::min(groups.size(), pending);
    for (size_t g = 0; g < landing; ++g)
      for (const Copy& copy : groups[g]) land_in_shared(warp, lane, copy.to, copy.size, copy.bytes);
    groups.erase(groups.begin(), groups.begin() + landing);
  }
}

// Global traffic; lanes that read other amounts are counted apart.
void count_copies(Warp& warp, const uint64_t (&from)[kLanes], const uint32_t (&sizes)[kLanes]) {
  const uint32_t mask = warp.mask;
  uint32_t left = mask;
  while (left != 0) {
    const uint32_t size = sizes[__builtin_ctz(left)];
    warp.mask = 0;
    for (int lane = 0; lane < kLanes; ++lane)
      if ((left >> lane & 1) && sizes[lane] == size) warp.mask |= 1u << lane;
    left &= ~warp.mask;
    if (size != 0) count_global(warp, from, static_cast<int>(size));
  }
  warp.mask = mask;
}

}  // namespace emulator
