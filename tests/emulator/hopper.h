// hopper.h: what sm_90 has beyond threads: mbarriers, copies in bulk, multiplications by four warps. These run beside
// the threads: each has a clock of its own, and a thread is ordered after what it has waited for.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace emulator {

struct Block;
struct Code;
struct Warp;

// Up to when the accesses of others are ordered before something: of each actor, and of single threads beyond that.
struct Clocks {
  std::vector<uint32_t> actors;
  std::vector<uint32_t> threads;
};

inline void learn(std::vector<uint32_t>& known, const std::vector<uint32_t>& more) {
  if (known.size() < more.size()) known.resize(more.size(), 0);
  for (size_t i = 0; i < more.size(); ++i) known[i] = std::max(known[i], more[i]);
}

inline void learn(Clocks& known, const Clocks& more) {
  learn(known.actors, more.actors);
  learn(known.threads, more.threads);
}

// `lane`: who did it, or 32 for several of the warp's.
inline bool is_before(uint32_t clock, size_t lane, const Clocks& known, size_t actor) {
  if (actor < known.actors.size() && clock < known.actors[actor]) return true;
  const size_t first = actor * 32;
  if (first + 32 > known.threads.size()) return false;
  const auto threads = known.threads.begin() + first;
  const auto later = [clock](uint32_t each) { return clock < each; };
  return lane < 32 ? later(threads[lane]) : std::all_of(threads, threads + 32, later);
}

// A copy into shared memory whose bytes have been read and not yet written.
struct Flight {
  uint64_t to = 0;
  std::vector<uint8_t> bytes;
  int warp = 0, lane = 0;
  int32_t code = 0;  // the instruction that asked for it
};

struct Mbarrier {
  bool valid = false;
  int actor = 0;       // its transactions
  uint32_t clock = 1;  // theirs
  uint32_t expected = 0;
  uint32_t pending = 0;      // arrivals that the phase still waits for
  int64_t transactions = 0;  // bytes that it still waits for
  uint64_t phase = 0;
  std::deque<Flight> flights;
  Clocks arrived, fenced;                  // what has been released to it
  Clocks released, released_with_a_fence;  // by its last phase that is complete
};

void init_mbarrier(Warp& warp, int lane, uint64_t address, uint32_t count);
void invalidate_mbarrier(Warp& warp, int lane, uint64_t address);
void expect_transactions(Warp& warp, int lane, uint64_t address, int64_t bytes);
struct Arrival {
  uint32_t count = 1;
  uint32_t bytes = 0;  // to expect before
  bool releases = true;
  bool drops = false;        // the later phases wait for fewer
  bool may_complete = true;  // false with .noComplete
};
uint64_t arrive(Warp& warp, int lane, uint64_t address, Arrival how);  // gives the phase
// The active lanes whose phase is complete. `wanted` is a phase as arrive gave it, or its parity.
uint32_t wait_for_phases(Warp& warp, const uint64_t (&address)[32], const uint64_t (&wanted)[32], bool parity,
                         bool acquires);
// Bytes that will arrive at `to` and count for the mbarrier's phase.
void start_flight(Warp& warp, int lane, uint64_t mbarrier, Flight flight);

// The 128 bytes of a tensor map, as tensor_map.py packs them. Extents and coordinates begin with the innermost.
struct TensorMap {
  uint32_t magic = 0;
  uint8_t rank = 0;
  uint8_t element = 0;  // bytes
  uint8_t swizzle = 0;  // bytes that it permutes, 0 for none
  uint8_t unused = 0;
  uint64_t address = 0;
  uint64_t extent[5] = {};
  uint64_t stride[5] = {};  // bytes
  uint16_t box[5] = {};
  uint8_t rest[22] = {};
};
static_assert(sizeof(TensorMap) == 128);

// A lane's copies out of shared memory, in groups; each range is what is still read.
struct BulkStores {
  using Range = std::pair<uint64_t, int>;
  std::vector<Range> open;
  std::vector<std::vector<Range>> groups;  // oldest first
};

void load_bulk(Warp& warp, int lane, uint64_t to, uint64_t from, uint32_t size, uint64_t mbarrier);
void store_bulk(Warp& warp, int lane, uint64_t to, uint64_t from, uint32_t size);
void load_tile(Warp& warp, int lane, uint64_t to, uint64_t map, int rank, const int32_t* at, uint64_t mbarrier);
void store_tile(Warp& warp, int lane, uint64_t map, int rank, const int32_t* at, uint64_t from);
void commit_bulk_stores(Warp& warp);
void wait_for_bulk_stores(Warp& warp, size_t pending);

// Where 16 bytes of shared memory are that a swizzle of 128, 64 or 32 bytes puts at `address`.
inline uint64_t swizzled(uint64_t address, int swizzle) {
  return swizzle == 0 ? address : address ^ ((address >> 7 & (swizzle / 16 - 1)) << 4);
}

inline constexpr int kWarpgroup = 4;

// What a warpgroup multiplies: an operation begins when all four warps have asked for it.
struct Warpgroup {
  struct Operation {
    const Code* code = nullptr;
    uint64_t a = 0, b = 0;
    bool adds = false;
  };
  std::array<uint32_t, kWarpgroup> issued{};
  std::deque<Operation> operations;
  uint32_t forgotten = 0;  // operations before the first that is kept
};

// A warp's part of it. Registers are numbers of 32-bit registers; times are numbers of operations, from 1.
struct Multiplications {
  std::vector<uint32_t> writing, reading;  // [register], the last operation that does
  std::vector<uint32_t> sums;              // [register][lane], of accumulators that are not yet there
  std::vector<uint64_t> changed;           // [register], when an instruction wrote it
  uint64_t fence = 0;                      // the last wgmma.fence
  uint64_t now = 1;
  uint32_t complete = 0;
  std::vector<uint32_t> groups;  // the last operation of each, oldest first

  void track(int registers);
};

struct WarpgroupShape {
  int columns = 0;
  bool a_signed = false, b_signed = false, saturates = false, a_in_registers = false;
};

void multiply_by_warpgroup(Warp& warp, const Code& code, WarpgroupShape shape, const uint64_t* a, const uint64_t* b,
                           uint32_t adds);
void fence_registers(Warp& warp);
void commit_multiplications(Warp& warp);
void wait_for_multiplications(Warp& warp, size_t pending);
void check_registers(Warp& warp, const Code& code);

void fence_proxy(Warp& warp);
uint32_t map_to_block(Warp& warp, int lane, uint32_t rank);

}  // namespace emulator
