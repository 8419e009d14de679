// mbarrier.cpp: barriers in shared memory that count arrivals and bytes. PTX ISA, "mbarrier".
#include "machine.h"

namespace emulator {

namespace {

constexpr char kMisuse[] = "mbarrier misuse";
constexpr uint32_t kMostArrivals = (1u << 20) - 1;
constexpr int kBytes = 8;

// The object at an address, whose bytes are accessed as by an atomic operation.
Mbarrier* find(Warp& warp, int lane, uint64_t address) {
  if (!can_access_shared(warp, lane, address, kBytes)) return nullptr;
  const auto found = warp.block->mbarriers.find(address);
  if (found == warp.block->mbarriers.end() || !found->second.valid) {
    warp.machine->report(kMisuse, warp, lane, address, "nothing initialized it");
    return nullptr;
  }
  atomic_shared(warp, lane, address, kBytes);
  return &found->second;
}

void mark_bytes(Block& block, uint64_t address, bool part) {
  for (int i = 0; i < kBytes; ++i) {
    block.bytes[address + i].mbarrier = part;
    block.bytes[address + i].written = part;
  }
}

void complete_phase(Block& block, Mbarrier& barrier) {
  make_progress(block);
  if (barrier.pending != 0 || barrier.transactions != 0) return;
  ++barrier.phase;
  barrier.pending = barrier.expected;
  std::vector<uint32_t>& actors = barrier.arrived.actors;
  if (actors.size() <= static_cast<size_t>(barrier.actor)) actors.resize(barrier.actor + 1, 0);
  actors[barrier.actor] = ++barrier.clock;
  barrier.released = barrier.arrived;
  barrier.released_with_a_fence = barrier.fenced;
}

void expect(Warp& warp, int lane, uint64_t address, Mbarrier& barrier, int64_t bytes) {
  barrier.transactions += bytes;
  if (barrier.transactions > kMostArrivals || barrier.transactions < -static_cast<int64_t>(kMostArrivals))
    warp.machine->report(kMisuse, warp, lane, address, "it waits for more bytes than it can count");
}

// Bytes land as late as they may: when someone looks at the phase that they count for, and no further than that.
void land(Block& block, Mbarrier& barrier, uint64_t phase) {
  while (!barrier.flights.empty() && barrier.phase <= phase) {
    const Flight& flight = barrier.flights.front();
    const Mark mark = {barrier.clock, 0};
    for (size_t i = 0; i < flight.bytes.size(); ++i) {
      SharedByte& byte = block.bytes[flight.to + i];
      byte.write = mark;
      byte.writer = static_cast<uint16_t>(barrier.actor);
      byte.written = true;
      byte.in_flight = false;
      block.shared[flight.to + i] = flight.bytes[i];
    }
    barrier.transactions -= static_cast<int64_t>(flight.bytes.size());
    barrier.flights.pop_front();
    complete_phase(block, barrier);
  }
}

// Lanes are ordered after the phases that they have seen to be complete.
void acquire(Warp& warp, const std::array<const Mbarrier*, kLanes>& seen) {
  const Mbarrier* first = seen[__builtin_ctz(warp.mask)];
  bool same = first != nullptr && warp.mask == warp.alive;
  for (int lane = 0; lane < kLanes; ++lane)
    if (warp.mask >> lane & 1) same &= seen[lane] == first;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (seen[lane] == nullptr) continue;
    learn(same ? warp.known : warp.known_to_lane[lane], seen[lane]->released);
    learn(warp.fenced, seen[lane]->released_with_a_fence);
    if (same) break;
  }
}

// What the lane did, and what it is ordered after. Of the other lanes, what they did before the warp last met.
void release(Warp& warp, int lane, Mbarrier& barrier) {
  Clocks& clocks = barrier.arrived;
  learn(clocks, warp.known);
  learn(clocks, warp.known_to_lane[lane]);
  clocks.actors[warp.index] = std::max(clocks.actors[warp.index], warp.synced);
  clocks.threads.resize(warp.block->warps.size() * kLanes, 0);
  uint32_t* threads = clocks.threads.data() + warp.index * kLanes;
  threads[lane] = ++warp.clock;
  for (int other = 0; other < kLanes; ++other)
    if (!(warp.lanes >> other & 1)) threads[other] = UINT32_MAX;
  learn(barrier.fenced, warp.fenced);
}

std::string describe(uint64_t address, const Mbarrier& barrier) {
  return "the mbarrier at " + std::to_string(address) + " waits in its phase " + std::to_string(barrier.phase) +
         " for " + std::to_string(barrier.pending) + " of " + std::to_string(barrier.expected) + " arrivals and " +
         std::to_string(barrier.transactions) + " bytes that never come";
}

}  // namespace

void init_mbarrier(Warp& warp, int lane, uint64_t address, uint32_t count) {
  Block& block = *warp.block;
  if (!can_access_shared(warp, lane, address, kBytes)) return;
  if (count == 0 || count > kMostArrivals) {
    warp.machine->report(kMisuse, warp, lane, address, "a count of " + std::to_string(count));
    return;
  }
  auto [at, is_new] = block.mbarriers.try_emplace(address);
  Mbarrier& barrier = at->second;
  if (barrier.valid) {
    warp.machine->report(kMisuse, warp, lane, address, "it is initialized again without inval");
    return;
  }
  const uint64_t zero = 0;
  store_shared(warp, lane, address, kBytes, &zero);
  mark_bytes(block, address, true);
  if (is_new) barrier.actor = block.actors + static_cast<int>(block.mbarriers.size()) - 1;
  barrier.valid = true;
  barrier.expected = barrier.pending = count;
  barrier.transactions = 0;
  barrier.phase = 0;
}

void invalidate_mbarrier(Warp& warp, int lane, uint64_t address) {
  Mbarrier* barrier = find(warp, lane, address);
  if (barrier == nullptr) return;
  if (!barrier->flights.empty())
    warp.machine->report(kMisuse, warp, lane, address, "inval while a copy counts its bytes there");
  barrier->valid = false;
  mark_bytes(*warp.block, address, false);
  const uint64_t zero = 0;
  store_shared(warp, lane, address, kBytes, &zero);
  mark_bytes(*warp.block, address, false);
}

void expect_transactions(Warp& warp, int lane, uint64_t address, int64_t bytes) {
  Mbarrier* barrier = find(warp, lane, address);
  if (barrier == nullptr) return;
  expect(warp, lane, address, *barrier, bytes);
  complete_phase(*warp.block, *barrier);
}

uint64_t arrive(Warp& warp, int lane, uint64_t address, Arrival how) {
  Mbarrier* barrier = find(warp, lane, address);
  if (barrier == nullptr) return 0;
  const uint64_t phase = barrier->phase;
  if (how.count == 0 || how.count > barrier->pending) {
    warp.machine->report(
        kMisuse, warp, lane, address,
        std::to_string(how.count) + " arrivals where its phase waits for " + std::to_string(barrier->pending));
    return phase;
  }
  if (how.releases) release(warp, lane, *barrier);
  expect(warp, lane, address, *barrier, how.bytes);
  barrier->pending -= how.count;
  if (how.drops) barrier->expected -= how.count;
  if (!how.may_complete && barrier->pending == 0)
    warp.machine->report(kMisuse, warp, lane, address, ".noComplete completes the phase");
  complete_phase(*warp.block, *barrier);
  return phase;
}

uint32_t wait_for_phases(Warp& warp, const uint64_t (&address)[32], const uint64_t (&wanted)[32], bool parity,
                         bool acquires) {
  uint32_t complete = 0, in_vain = 0;
  std::array<const Mbarrier*, kLanes> seen{};
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    complete |= 1u << lane;  // where there is nothing to wait for, too
    Mbarrier* barrier = find(warp, lane, address[lane]);
    if (barrier == nullptr) continue;
    const uint64_t phase = barrier->phase;
    if (parity ? wanted[lane] > 1 : wanted[lane] > phase || wanted[lane] + 1 < phase) {
      warp.machine->report(kMisuse, warp, lane, address[lane],
                           "phase " + std::to_string(wanted[lane]) + " is awaited in phase " + std::to_string(phase));
      continue;
    }
    // A parity is that of this phase or of the last, which is complete.
    const bool is_past = parity ? (phase & 1) != wanted[lane] : wanted[lane] < phase;
    if (!is_past) land(*warp.block, *barrier, phase);
    if (is_past || barrier->phase > phase) {
      seen[lane] = barrier;
    } else {
      complete &= ~(1u << lane);
      in_vain |= 1u << lane;
      warp.awaited = describe(address[lane], *barrier);
      warp.waits_at = warp.code;
    }
  }
  if (acquires) acquire(warp, seen);
  warp.in_vain |= in_vain;
  if (in_vain != 0) warp.idle = warp.yields = true;
  return complete;
}

void start_flight(Warp& warp, int lane, uint64_t address, Flight flight) {
  Mbarrier* barrier = find(warp, lane, address);
  if (barrier == nullptr) return;
  claim_range(warp, lane, flight.to, static_cast<int>(flight.bytes.size()));
  flight.warp = warp.index;
  flight.lane = lane;
  flight.code = warp.code;
  barrier->flights.push_back(std::move(flight));
  make_progress(*warp.block);
}

void make_progress(Block& block) {
  block.fruitless = 0;
  for (Warp& warp : block.warps) {
    warp.idle = false;
    warp.in_vain = 0;
  }
}

void Machine::explain_unfinished(Block& block) {
  for (const auto& [address, barrier] : block.mbarriers) {
    for (const Flight& flight : barrier.flights) {
      Warp& warp = block.warps[flight.warp];
      warp.code = flight.code;
      report("asynchronous copy not waited for", warp, flight.lane, flight.to, "the block ends before it arrives");
    }
  }
  for (Warp& warp : block.warps) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const BulkStores& stores = warp.bulk_stores[lane];
      size_t left = stores.open.size();
      for (const auto& group : stores.groups) left += group.size();
      if (left != 0)
        report("asynchronous copy not waited for", warp, lane, 0, "the block ends while a bulk copy reads its memory");
    }
  }
}

}  // namespace emulator
