// memory.cpp: the memories of the emulated device, and the checks on every access.
#include <algorithm>

#include "machine.h"

namespace emulator {

GlobalMemory& global_memory() {
  static GlobalMemory memory;
  return memory;
}

void GlobalMemory::add(uint64_t begin, uint64_t size, bool holds_data) {
  Allocation allocation;
  allocation.begin = begin;
  allocation.end = begin + size;
  if (!holds_data) allocation.written.assign(size, 0);
  allocations_[begin] = std::move(allocation);
  last_ = nullptr;
}

void GlobalMemory::remove(uint64_t begin) {
  allocations_.erase(begin);
  last_ = nullptr;
}

void GlobalMemory::clear() {
  allocations_.clear();
  last_ = nullptr;
}

int GlobalMemory::unwritten() const {
  int count = 0;
  for (const auto& [begin, allocation] : allocations_)
    count += std::find(allocation.written.begin(), allocation.written.end(), 0) != allocation.written.end();
  return count;
}

Allocation* GlobalMemory::find(uint64_t address) {
  if (last_ != nullptr && last_->begin <= address && address < last_->end) return last_;
  auto next = allocations_.upper_bound(address);
  if (next == allocations_.begin()) return nullptr;
  Allocation& candidate = std::prev(next)->second;
  if (address >= candidate.end) return nullptr;
  last_ = &candidate;
  return last_;
}

namespace {

// Also for addresses so large that their end wraps around.
bool within(uint64_t address, int size, uint64_t end) {
  return address <= end && static_cast<uint64_t>(size) <= end - address;
}

bool aligned(Warp& warp, int lane, uint64_t address, int size, const char* space) {
  if (address % size == 0) return true;
  warp.machine->report("misaligned access", warp, lane, address,
                       std::string(space) + " access of " + std::to_string(size) + " bytes");
  return false;
}

Allocation* allocation_of(Warp& warp, int lane, uint64_t address, int size) {
  if (!aligned(warp, lane, address, size, "global")) return nullptr;
  Allocation* found = global_memory().find(address);
  if (found != nullptr && address + size <= found->end) return found;
  warp.machine->report("out of bounds", warp, lane, address,
                       "global access of " + std::to_string(size) + " bytes outside every allocation");
  return nullptr;
}

uint64_t stamp_of(const Warp& warp) {
  return static_cast<uint64_t>(warp.machine->launch_number) << 32 | (warp.block->index + 1);
}

constexpr uint64_t kAtomicStamp = 1ull << 31;  // above every block's number

// Another block of this launch touched the byte: nothing orders blocks.
bool is_foreign(uint64_t stamp, uint64_t mine) {
  return stamp != 0 && ((stamp ^ mine) & ~kAtomicStamp) != 0 && stamp >> 32 == mine >> 32;
}

bool is_foreign_to_atomic(uint64_t stamp, uint64_t mine) {
  return (stamp & kAtomicStamp) == 0 && is_foreign(stamp, mine);
}

// Who touched each byte takes many times the byte's own size: allocations of more than 256 MiB go without, and so
// without the checks for races.
constexpr uint64_t kLargestStamped = 256ull << 20;

bool keep_stamps(Allocation& allocation) {
  const uint64_t size = allocation.end - allocation.begin;
  if (size > kLargestStamped) return false;
  if (allocation.writer.empty()) {
    allocation.writer.assign(size, 0);
    allocation.reader.assign(size, 0);
    allocation.store.assign(size, {});
  }
  return true;
}

// Out of line: asked for every byte, the rest of `ordered` answers nearly always.
[[gnu::noinline]] bool ordered_by_mbarriers(const Warp& warp, int lane, int actor, const Mark& earlier) {
  return is_before(earlier.clock, earlier.lane, warp.known, actor) ||
         (lane != kLanes && is_before(earlier.clock, earlier.lane, warp.known_to_lane[lane], actor));
}

// Whether an earlier access of `actor` is ordered before what this lane does now.
[[gnu::always_inline]] inline bool ordered(const Warp& warp, int lane, int actor, const Mark& earlier) {
  if (earlier.clock == 0) return true;
  if (actor == warp.index) {
    if ((earlier.lane == lane && lane != kLanes) || earlier.clock < warp.synced) return true;
  } else if (actor < warp.block->actors && earlier.clock < warp.known.actors[actor]) {
    return true;
  }
  return ordered_by_mbarriers(warp, lane, actor, earlier);
}

std::string by_whom(const Block& block, int actor, int lane) {
  const int warps = static_cast<int>(block.warps.size());
  if (actor >= block.actors) return "a bulk copy";
  if (actor >= warps) return "wgmma of warpgroup " + std::to_string(actor - warps);
  return lane == kLanes ? "warp " + std::to_string(actor) : "thread " + std::to_string(actor * kLanes + lane);
}

// What another thread of this block stored to the byte, with no barrier since; reported.
bool races_within_block(Warp& warp, int lane, const Allocation& allocation, uint64_t at, uint64_t mine,
                        const char* what) {
  const Store& store = allocation.store[at];
  if (allocation.writer[at] != mine || ordered(warp, lane, store.warp, store.mark)) return false;
  warp.machine->report("race within a block", warp, lane, allocation.begin + at,
                       what + by_whom(*warp.block, store.warp, store.mark.lane) + " wrote, with no barrier between");
  return true;
}

}  // namespace

bool load_global(Warp& warp, int lane, uint64_t address, int size, void* value) {
  std::memset(value, 0, size);
  Allocation* allocation = allocation_of(warp, lane, address, size);
  if (allocation == nullptr) return false;
  const uint64_t first = address - allocation->begin;
  const uint64_t mine = stamp_of(warp);
  const bool stamped = keep_stamps(*allocation);
  for (int i = 0; i < size; ++i) {
    if (!allocation->written.empty() && !allocation->written[first + i]) {
      warp.machine->report("uninitialized read", warp, lane, address + i, "global memory that nothing wrote");
      break;
    }
  }
  for (int i = 0; stamped && i < size; ++i) {
    if (is_foreign(allocation->writer[first + i], mine)) {
      warp.machine->report("race between blocks", warp, lane, address + i, "read of what another block wrote");
      break;
    }
    if (races_within_block(warp, lane, *allocation, first + i, mine, "read of what ")) break;
    allocation->reader[first + i] = mine;
  }
  std::memcpy(value, reinterpret_cast<const void*>(address), size);
  return true;
}

bool store_global(Warp& warp, int lane, uint64_t address, int size, const void* value) {
  Allocation* allocation = allocation_of(warp, lane, address, size);
  if (allocation == nullptr) return false;
  const uint64_t first = address - allocation->begin;
  const uint64_t mine = stamp_of(warp);
  const bool stamped = keep_stamps(*allocation);
  for (int i = 0; stamped && i < size; ++i) {
    if (is_foreign(allocation->writer[first + i], mine) || is_foreign(allocation->reader[first + i], mine)) {
      warp.machine->report("race between blocks", warp, lane, address + i, "write to what another block used");
      break;
    }
    if (races_within_block(warp, lane, *allocation, first + i, mine, "write to what ")) break;
    allocation->writer[first + i] = mine;
    allocation->store[first + i] = {{warp.clock, static_cast<uint8_t>(lane)}, static_cast<uint8_t>(warp.index)};
  }
  if (!allocation->written.empty()) std::fill_n(allocation->written.begin() + first, size, uint8_t{1});
  std::memcpy(reinterpret_cast<void*>(address), value, size);
  return true;
}

void* atomic_global(Warp& warp, int lane, uint64_t address, int size) {
  Allocation* allocation = allocation_of(warp, lane, address, size);
  if (allocation == nullptr) return nullptr;
  const uint64_t first = address - allocation->begin;
  const uint64_t mine = stamp_of(warp);
  const bool stamped = keep_stamps(*allocation);
  bool reported = false;
  for (int i = 0; i < size; ++i) {
    if (!reported && !allocation->written.empty() && !allocation->written[first + i]) {
      warp.machine->report("uninitialized read", warp, lane, address + i, "atomic on global memory that nothing wrote");
      reported = true;
    }
    if (!stamped) continue;
    uint64_t& writer = allocation->writer[first + i];
    if (!reported && (is_foreign_to_atomic(writer, mine) || is_foreign(allocation->reader[first + i], mine))) {
      warp.machine->report("race between blocks", warp, lane, address + i,
                           "atomic on what another block used without one");
      reported = true;
    }
    if (writer != mine) writer = mine | kAtomicStamp;  // this block's own plain write weighs more
  }
  return reinterpret_cast<void*>(address);
}

namespace {

bool shared_in_bounds(Warp& warp, int lane, uint64_t address, int size) {
  if (!aligned(warp, lane, address, size, "shared")) return false;
  if (within(address, size, warp.block->shared.size())) return true;
  warp.machine->report(
      "out of bounds", warp, lane, address,
      "shared access of " + std::to_string(size) + " bytes in " + std::to_string(warp.block->shared.size()));
  return false;
}

// What a warp last did to a byte, without a barrier since its last mark: several lanes and kinds may share one.
void mark_use(Mark& mark, const Warp& warp, int lane, uint8_t kind) {
  const bool before = mark.clock >= warp.synced;
  mark.lane = static_cast<uint8_t>(before && mark.lane != lane ? kLanes : lane);
  mark.kinds = static_cast<uint8_t>(before ? mark.kinds | kind : kind);
  mark.clock = warp.clock;
}

constexpr char kInFlight[] = "asynchronous copy not waited for";
constexpr char kMisuse[] = "mbarrier misuse";

// `reader` is the lane that gets the value, or kLanes for several.
bool read_shared(Warp& warp, int lane, int reader, uint64_t address, int size, void* value) {
  std::memset(value, 0, size);
  if (!shared_in_bounds(warp, lane, address, size)) return false;
  Block& block = *warp.block;
  const size_t warps = block.warps.size();
  const size_t actors = block.actors;
  bool reported = false;
  for (int i = 0; i < size; ++i) {
    const SharedByte& byte = block.bytes[address + i];
    if (!reported && byte.mbarrier) {
      warp.machine->report(kMisuse, warp, lane, address + i, "read of its bytes");
      reported = true;
    } else if (!reported && byte.in_flight) {
      warp.machine->report(kInFlight, warp, lane, address + i, "read of what it writes");
      reported = true;
    } else if (!reported && !byte.written) {
      warp.machine->report("uninitialized read", warp, lane, address + i, "shared memory that nothing wrote");
      reported = true;
    } else if (!reported && !ordered(warp, reader, byte.writer, byte.write)) {
      warp.machine->report(
          "shared race", warp, lane, address + i,
          "read of what " + by_whom(block, byte.writer, byte.write.lane) + " wrote, with no barrier between");
      reported = true;
    }
    for (size_t other = 0; other < warps && byte.atomics && !reported; ++other) {
      const Mark& earlier = block.reads[(address + i) * actors + other];
      if (!(earlier.kinds & kAtomic) || ordered(warp, reader, static_cast<int>(other), earlier)) continue;
      warp.machine->report("shared race", warp, lane, address + i,
                           "read of what warp " + std::to_string(other) + " changed, with no barrier between");
      reported = true;
    }
    mark_use(block.reads[(address + i) * actors + warp.index], warp, reader, kPlain);
  }
  std::memcpy(value, block.shared.data() + address, size);
  return true;
}

// Nothing that others did to these bytes may still be going on.
// `writer` is the lane that writes, or kLanes for several.
void check_overwriting(Warp& warp, int lane, int writer, uint64_t address, int size) {
  Block& block = *warp.block;
  bool reported = false;
  for (int i = 0; i < size && !reported; ++i) {
    const SharedByte& byte = block.bytes[address + i];
    if (byte.in_flight || byte.bulk_reads != 0) {
      warp.machine->report(kInFlight, warp, lane, address + i,
                           byte.in_flight ? "write to what it writes" : "write to what it reads");
      reported = true;
    } else if (byte.mbarrier) {
      warp.machine->report(kMisuse, warp, lane, address + i, "write to its bytes");
      reported = true;
    }
    if (!reported && !ordered(warp, writer, byte.writer, byte.write)) {
      warp.machine->report(
          "shared race", warp, lane, address + i,
          "write to what " + by_whom(block, byte.writer, byte.write.lane) + " wrote, with no barrier between");
      reported = true;
    }
    for (int other = 0; other < block.actors && !reported; ++other) {
      const Mark& read = block.reads[(address + i) * block.actors + other];
      if (!ordered(warp, writer, other, read)) {
        warp.machine->report("shared race", warp, lane, address + i,
                             "write to what " + by_whom(block, other, kLanes) + " read, with no barrier between");
        reported = true;
      }
    }
  }
}

void write_shared(Warp& warp, int lane, uint64_t address, int size, const void* value) {
  Block& block = *warp.block;
  for (int i = 0; i < size; ++i) {
    SharedByte& byte = block.bytes[address + i];
    byte.write = {warp.clock, static_cast<uint8_t>(lane)};
    byte.writer = static_cast<uint16_t>(warp.index);
    byte.written = true;
    byte.in_flight = false;
  }
  std::memcpy(block.shared.data() + address, value, size);
}

}  // namespace

bool load_shared(Warp& warp, int lane, uint64_t address, int size, void* value) {
  return read_shared(warp, lane, lane, address, size, value);
}

bool can_access_shared(Warp& warp, int lane, uint64_t address, int size) {
  return shared_in_bounds(warp, lane, address, size);
}

bool load_shared_for_warp(Warp& warp, int lane, uint64_t address, int size, void* value) {
  return read_shared(warp, lane, kLanes, address, size, value);
}

bool store_shared(Warp& warp, int lane, uint64_t address, int size, const void* value) {
  if (!shared_in_bounds(warp, lane, address, size)) return false;
  check_overwriting(warp, lane, lane, address, size);
  write_shared(warp, lane, address, size, value);
  return true;
}

bool store_shared_for_warp(Warp& warp, int lane, uint64_t address, int size, const void* value) {
  if (!shared_in_bounds(warp, lane, address, size)) return false;
  check_overwriting(warp, lane, kLanes, address, size);
  write_shared(warp, kLanes, address, size, value);
  return true;
}

bool claim_shared(Warp& warp, int lane, uint64_t address, int size) {
  if (!shared_in_bounds(warp, lane, address, size)) return false;
  claim_range(warp, lane, address, size);
  return true;
}

void claim_range(Warp& warp, int lane, uint64_t address, int size) {
  check_overwriting(warp, lane, lane, address, size);
  for (int i = 0; i < size; ++i) warp.block->bytes[address + i].in_flight = true;
}

void land_in_shared(Warp& warp, int lane, uint64_t address, int size, const void* value) {
  write_shared(warp, lane, address, size, value);
}

// Marked among the reads, so that the mark of a store before it stays and is seen by other warps' atomics.
void* atomic_shared(Warp& warp, int lane, uint64_t address, int size) {
  if (!shared_in_bounds(warp, lane, address, size)) return nullptr;
  Block& block = *warp.block;
  const int warps = static_cast<int>(block.warps.size());
  bool reported = false;
  for (int i = 0; i < size; ++i) {
    SharedByte& byte = block.bytes[address + i];
    const auto race = [&](const std::string& with) {
      if (!reported) {
        warp.machine->report("shared race", warp, lane, address + i,
                             "atomic on what " + with + " without one, with no barrier between");
      }
      reported = true;
    };
    if (!reported && byte.in_flight) {
      warp.machine->report(kInFlight, warp, lane, address + i, "atomic on what it writes");
      reported = true;
    }
    if (!reported && !byte.written) {
      warp.machine->report("uninitialized read", warp, lane, address + i, "atomic on shared memory that nothing wrote");
      reported = true;
    }
    if (!ordered(warp, lane, byte.writer, byte.write)) race(by_whom(block, byte.writer, byte.write.lane) + " wrote");
    for (int other = 0; other < warps && !reported; ++other) {
      const Mark& read = block.reads[(address + i) * block.actors + other];
      if ((read.kinds & kPlain) && !ordered(warp, lane, other, read)) race("warp " + std::to_string(other) + " read");
    }
    mark_use(block.reads[(address + i) * block.actors + warp.index], warp, lane, kAtomic);
    byte.atomics = true;
  }
  return block.shared.data() + address;
}

// All lanes of a warp read for wgmma; a lane for its bulk copy.
bool read_shared_asynchronously(Warp& warp, int lane, uint64_t address, int size, void* value, int actor,
                                uint32_t clock) {
  std::memset(value, 0, size);
  if (!shared_in_bounds(warp, lane == kLanes ? 0 : lane, address, size)) return false;
  Block& block = *warp.block;
  const int warps = static_cast<int>(block.warps.size());
  const int thread = lane == kLanes ? 0 : lane;
  const SharedByte* alike = nullptr;  // the last byte that was right
  for (int i = 0; i < size; ++i) {
    const SharedByte& byte = block.bytes[address + i];
    if (actor >= 0) block.reads[(address + i) * block.actors + actor] = {clock, kLanes, kPlain};
    if (alike != nullptr && std::memcmp(alike, &byte, sizeof byte) == 0) continue;
    const char* kind = nullptr;
    std::string words;
    if (byte.in_flight) {
      kind = kInFlight, words = "read of what it writes";
    } else if (byte.mbarrier) {
      kind = kMisuse, words = "read of its bytes";
    } else if (!byte.written) {
      kind = "uninitialized read", words = "shared memory that nothing wrote";
    } else if (!ordered(warp, lane, byte.writer, byte.write)) {
      kind = "shared race";
      words = "read of what " + by_whom(block, byte.writer, byte.write.lane) + " wrote, with no barrier between";
    } else if (byte.writer < warps && !is_before(byte.write.clock, byte.write.lane, warp.fenced, byte.writer)) {
      kind = "missing proxy fence";
      words =
          "what " + by_whom(block, byte.writer, byte.write.lane) + " wrote is read with no fence.proxy.async between";
    }
    if (kind != nullptr) {
      warp.machine->report(kind, warp, thread, address + i, words);
    } else {
      alike = &byte;
    }
  }
  std::memcpy(value, block.shared.data() + address, size);
  return true;
}

void begin_bulk_read(Block& block, uint64_t address, int size) {
  for (int i = 0; i < size; ++i) ++block.bytes[address + i].bulk_reads;
}

void end_bulk_read(Warp& warp, int lane, uint64_t address, int size) {
  Block& block = *warp.block;
  for (int i = 0; i < size; ++i) {
    --block.bytes[address + i].bulk_reads;
    mark_use(block.reads[(address + i) * block.actors + warp.index], warp, lane, kPlain);
  }
}

bool load_local(Warp& warp, int lane, uint64_t address, int size, void* value) {
  std::memset(value, 0, size);
  const uint64_t bytes = warp.machine->program.local_bytes;
  if (!aligned(warp, lane, address, size, "local")) return false;
  if (!within(address, size, bytes)) {
    warp.machine->report("out of bounds", warp, lane, address, "local access");
    return false;
  }
  std::memcpy(value, warp.local.data() + lane * bytes + address, size);
  return true;
}

bool store_local(Warp& warp, int lane, uint64_t address, int size, const void* value) {
  const uint64_t bytes = warp.machine->program.local_bytes;
  if (!aligned(warp, lane, address, size, "local")) return false;
  if (!within(address, size, bytes)) {
    warp.machine->report("out of bounds", warp, lane, address, "local access");
    return false;
  }
  std::memcpy(warp.local.data() + lane * bytes + address, value, size);
  return true;
}

bool load_param(Warp& warp, int lane, uint64_t address, int size, void* value) {
  std::memset(value, 0, size);
  const std::vector<uint8_t>& parameters = warp.machine->launch.parameters;
  if (!aligned(warp, lane, address, size, "parameter")) return false;
  if (!within(address, size, parameters.size())) {
    warp.machine->report("out of bounds", warp, lane, address, "parameter access");
    return false;
  }
  std::memcpy(value, parameters.data() + address, size);
  return true;
}

bool load_generic(Warp& warp, int lane, uint64_t address, int size, void* value) {
  if (address >= kSharedWindow) return load_shared(warp, lane, address - kSharedWindow, size, value);
  if (address >= kLocalWindow) return load_local(warp, lane, address - kLocalWindow, size, value);
  if (address >= kParamWindow) return load_param(warp, lane, address - kParamWindow, size, value);
  return load_global(warp, lane, address, size, value);
}

bool store_generic(Warp& warp, int lane, uint64_t address, int size, const void* value) {
  if (address >= kSharedWindow) return store_shared(warp, lane, address - kSharedWindow, size, value);
  if (address >= kLocalWindow) return store_local(warp, lane, address - kLocalWindow, size, value);
  return store_global(warp, lane, address, size, value);
}

namespace {

// Sorts what the active lanes touch in pieces of `unit` bytes; returns the pieces' addresses without repeats.
int distinct_pieces(const Warp& warp, const uint64_t (&address)[kLanes], int size, int unit, uint64_t* pieces) {
  int count = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    for (uint64_t piece = address[lane] / unit; piece <= (address[lane] + size - 1) / unit; ++piece)
      pieces[count++] = piece;
  }
  std::sort(pieces, pieces + count);
  return static_cast<int>(std::unique(pieces, pieces + count) - pieces);
}

// Adds distinct pieces, in order, to the traffic with the allocations that they lie in; what is outside of all is
// reported elsewhere.
void count_traffic(CodeCounters& counters, const uint64_t* pieces, int count, int unit) {
  for (int i = 0; i < count;) {
    const Allocation* allocation = global_memory().find(pieces[i] * unit);
    const int first = i++;
    if (allocation == nullptr) continue;
    while (i < count && pieces[i] * unit < allocation->end) ++i;
    auto known = std::find_if(counters.traffic.begin(), counters.traffic.end(),
                              [&](const auto& entry) { return entry.first == allocation->begin; });
    if (known == counters.traffic.end()) known = counters.traffic.insert(known, {allocation->begin, 0});
    known->second += static_cast<uint64_t>(i - first) * unit;
  }
}

}  // namespace

void count_global(Warp& warp, const uint64_t (&address)[kLanes], int size) {
  CodeCounters& counters = warp.machine->counters[warp.code];
  uint64_t pieces[kLanes * 16];
  const int unit = size < 4 ? size : 4;
  const int distinct = distinct_pieces(warp, address, size, unit, pieces);
  counters.bytes += static_cast<uint64_t>(__builtin_popcount(warp.mask)) * size;
  counters.ideal += (static_cast<uint64_t>(distinct) * unit + 31) / 32;
  count_traffic(counters, pieces, distinct, unit);
  counters.units += distinct_pieces(warp, address, size, 32, pieces);
}

// A wavefront serves one word of each of the 32 banks; accesses of 8 and 16 bytes go by half and quarter warps.
void count_shared(Warp& warp, const uint64_t (&address)[kLanes], int size) {
  CodeCounters& counters = warp.machine->counters[warp.code];
  counters.bytes += static_cast<uint64_t>(__builtin_popcount(warp.mask)) * size;
  const int lanes = size <= 4 ? kLanes : kLanes * 4 / size;
  for (int first = 0; first < kLanes; first += lanes) {
    uint64_t words[kLanes * 4];
    int count = 0;
    for (int lane = first; lane < first + lanes; ++lane) {
      if (!(warp.mask >> lane & 1)) continue;
      for (uint64_t word = address[lane] / 4; word <= (address[lane] + size - 1) / 4; ++word) words[count++] = word;
    }
    if (count == 0) continue;
    std::sort(words, words + count);
    count = static_cast<int>(std::unique(words, words + count) - words);
    int in_bank[32] = {};
    int fullest = 0;
    for (int i = 0; i < count; ++i) fullest = std::max(fullest, ++in_bank[words[i] % 32]);
    counters.units += fullest;
    counters.ideal += (count + 31) / 32;
  }
}

void order_warp(Warp& warp) {
  warp.synced = ++warp.clock;
  for (Clocks& each : warp.known_to_lane) {
    learn(warp.known, each);
    each = {};
  }
}

}  // namespace emulator
