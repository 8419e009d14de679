// machine.h: a GPU's threads on the CPU: warps of 32 lanes that run decoded PTX, the memories they see, and the checks
// that a sanitizer would make. What one instruction does is in instructions.h and in generated code; this is the rest.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "hopper.h"

namespace emulator {

inline constexpr int kLanes = 32;
inline constexpr int kMaxOperands = 24;
inline constexpr uint32_t kAllLanes = 0xFFFFFFFFu;
inline constexpr int kBarriers = 16;

// Generic addresses of shared memory begin here; no host pointer is this large.
inline constexpr uint64_t kSharedWindow = 0x7F00000000000000ull;
inline constexpr uint64_t kLocalWindow = 0x7E00000000000000ull;
inline constexpr uint64_t kParamWindow = 0x7D00000000000000ull;

struct Warp;
struct Code;
using Function = void (*)(Warp&, const Code&);

// What an instruction means for the order of execution.
enum class Flow : int32_t { kNext, kBranch, kExit, kBarrier, kWarpSync };

// One decoded instruction. Operands are register numbers, literals' bits or addresses, as its function expects them.
struct Code {
  Function run = nullptr;
  Flow flow = Flow::kNext;
  int32_t guard = -1;  // a predicate, or -1
  bool guard_negated = false;
  int32_t target = -1;  // of a branch
  int64_t operand[kMaxOperands] = {};
  std::vector<int32_t> registers;  // 32-bit registers that it names: number * 2, + 1 where it writes
  std::vector<int32_t> fragment;   // of wgmma: the accumulators, then A where it is in registers
};

struct CodeCounters {
  uint64_t warps = 0;  // times that a warp executed it with some lane
  uint64_t lanes = 0;  // lanes in them
  uint64_t bytes = 0;  // asked of memory
  uint64_t units = 0;  // global: 32-byte sectors; shared: wavefronts
  uint64_t ideal = 0;  // the fewest units that could carry the distinct bytes
  // Of global memory: where allocations begin, and the bytes asked of each, a byte once for all lanes of a warp.
  std::vector<std::pair<uint64_t, uint64_t>> traffic;
};

struct Report {
  std::string kind;
  int32_t code = -1;  // the instruction's number
  uint32_t block = 0;
  int32_t thread = -1;
  uint64_t address = 0;
  std::string words;
};

struct Program {
  std::string kernel;
  std::vector<Code> codes;
  int registers32 = 0;
  int registers64 = 0;
  int predicates = 0;
  // Special registers, set once in every warp: their place among the 32-bit registers or -1, in the order of Special.
  std::array<int32_t, 34> special{};
  uint32_t static_shared = 0;
  uint32_t local_bytes = 0;
  bool has_wgmma = false;
};

enum Special {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneid,
  kWarpid,
  kLanemaskEq,
  kLanemaskLt,
  kLanemaskLe,
  kLanemaskGt,
  kLanemaskGe,
  kNwarpid,
  // A block is its own cluster.
  kClusteridX,
  kClusteridY,
  kClusteridZ,
  kNclusteridX,
  kNclusteridY,
  kNclusteridZ,
  kClusterCtaidX,
  kClusterCtaidY,
  kClusterCtaidZ,
  kClusterNctaidX,
  kClusterNctaidY,
  kClusterNctaidZ,
  kClusterCtarank,
  kClusterNctarank
};

// How a byte was accessed: atomic operations do not race with each other.
inline constexpr uint8_t kPlain = 1, kAtomic = 2;

// An access to a byte of shared memory, for the race check.
struct Mark {
  uint32_t clock = 0;  // of the warp, 0: none
  uint8_t lane = 0;    // kLanes: several
  uint8_t kinds = 0;
};

// A thread's store to a byte of global memory, for the race check within its block.
struct Store {
  Mark mark;
  uint8_t warp = 0;
};

// A device allocation: host memory that kernels may touch, with what is known of each byte.
struct Allocation {
  uint64_t begin = 0;
  uint64_t end = 0;
  std::vector<uint8_t> written;          // empty: all of it holds data
  std::vector<uint64_t> writer, reader;  // launch << 32 | block + 1, of the last access; empty where kept by none
  std::vector<Store> store;              // the last, within the block of `writer`
};

class GlobalMemory {
 public:
  void add(uint64_t begin, uint64_t size, bool holds_data);
  void remove(uint64_t begin);
  void clear();
  Allocation* find(uint64_t address);
  size_t size() const { return allocations_.size(); }
  int unwritten() const;  // allocations of results with bytes that nothing wrote

 private:
  std::map<uint64_t, Allocation> allocations_;
  Allocation* last_ = nullptr;
};

GlobalMemory& global_memory();

struct SharedByte {
  Mark write;           // of stores
  uint16_t writer = 0;  // an actor
  bool written = false;
  bool atomics = false;     // some atomic access has been
  bool in_flight = false;   // an asynchronous copy writes it and has not been waited for
  bool mbarrier = false;    // part of one
  uint16_t bulk_reads = 0;  // bulk copies that read it and have not been waited for
};

// Asynchronous copies of a thread, which land in shared memory when they are waited for.
struct Copy {
  uint64_t to = 0;
  int size = 0;
  uint8_t bytes[16] = {};
};
struct Copies {
  std::vector<Copy> open;                 // in no group yet
  std::vector<std::vector<Copy>> groups;  // oldest first
};

struct Machine;

struct Block {
  Machine* machine = nullptr;
  uint32_t index = 0;
  std::vector<uint8_t> shared;
  std::vector<SharedByte> bytes;
  // Who accesses shared memory: warps, then warpgroups (their wgmma), then each mbarrier's transactions.
  int actors = 0;           // warps and warpgroups
  std::vector<Mark> reads;  // [byte][actor], of loads and of atomic operations
  std::vector<Warp> warps;
  std::vector<Warpgroup> warpgroups;
  std::map<uint64_t, Mbarrier> mbarriers;  // by address
  int fruitless = 0;                       // rounds since something happened that a wait may wait for
  struct Barrier {
    uint32_t expected = 0;
    uint32_t arrived = 0;
    std::vector<int> warps;  // that took part
    std::vector<int> waiting;
  } barriers[kBarriers];
};

enum class State { kReady, kAtBarrier, kDone };

struct Warp {
  Block* block = nullptr;
  Machine* machine = nullptr;
  int index = 0;
  State state = State::kReady;
  int32_t at_barrier = -1;
  uint32_t lanes = 0;  // that there are
  uint32_t alive = 0;
  uint32_t mask = 0;  // of the instruction that runs
  int32_t code = 0;   // its number
  bool converged = true;
  std::array<int32_t, kLanes> pc{};
  uint32_t waiting = 0;  // lanes that wait for others of their warp
  uint32_t clock = 1;
  uint32_t synced = 1;  // what its lanes did before this time is ordered before what any lane does now
  Clocks known;         // what this warp is ordered after
  std::array<Clocks, kLanes> known_to_lane;  // what single lanes have learned, and the others not yet
  Clocks fenced;                             // up to where writes are ordered before asynchronous copies and wgmma
  bool idle = false;                         // its last wait was in vain
  bool yields = false;                       // others are to run now
  bool again = false;                        // the instruction is to run again
  uint32_t in_vain = 0;                      // lanes whose last wait was
  std::string awaited;                       // by that wait, in words
  int32_t waits_at = 0;                      // its instruction
  Multiplications multiplications;
  std::vector<uint32_t> r32;
  std::vector<uint64_t> r64;
  std::vector<uint32_t> predicate;  // a bit for each lane
  std::vector<uint8_t> local;       // [lane][local_bytes]
  std::array<Copies, kLanes> copies;
  std::array<BulkStores, kLanes> bulk_stores;

  uint32_t* at32(int64_t number) { return r32.data() + number * kLanes; }
  uint64_t* at64(int64_t number) { return r64.data() + number * kLanes; }
  int thread(int lane) const { return index * kLanes + lane; }
};

struct Launch {
  std::array<uint32_t, 3> grid{1, 1, 1};
  std::array<uint32_t, 3> block{1, 1, 1};
  uint32_t dynamic_shared = 0;
  uint64_t seed = 0;
  uint64_t first_block = 0;  // those before it are left out
  uint64_t most_steps = 0;   // warp instructions after which it is given up; 0: it may take as long as it likes
  std::vector<uint8_t> parameters;
};

struct Machine {
  const Program& program;
  Launch launch;
  uint32_t launch_number = 0;
  std::mt19937_64 random;
  std::vector<CodeCounters> counters;
  std::vector<Report> reports;
  uint64_t executed = 0;
  std::map<int32_t, std::vector<bool>> passed_by;  // barrier -> the instructions from which a way leads past it

  Machine(const Program& program, Launch launch);
  void run();
  void report(const char* kind, const Warp& warp, int lane, uint64_t address, std::string words);

 private:
  bool given_up() const { return launch.most_steps != 0 && executed > launch.most_steps; }
  void run_block(uint32_t index);
  void start_warps(Block& block, uint32_t index);
  void step(Block& block, Warp& warp, int quantum);
  void branch(Warp& warp, const Code& code, uint32_t group, int32_t at);
  bool barrier(Block& block, Warp& warp, const Code& code, uint32_t group);
  bool comes_to(int32_t from, int32_t at);
  bool all_come_to(const Warp& warp, uint32_t lanes, int32_t at);
  void release(Block& block, Block::Barrier& barrier);
  bool explain_deadlock(Block& block);
  void explain_unfinished(Block& block);
};

// Memory, with every check. `size` is in bytes; loads return false where the access was refused, and leave zeros.
bool load_global(Warp& warp, int lane, uint64_t address, int size, void* value);
bool store_global(Warp& warp, int lane, uint64_t address, int size, const void* value);
bool load_shared(Warp& warp, int lane, uint64_t address, int size, void* value);
bool store_shared(Warp& warp, int lane, uint64_t address, int size, const void* value);
bool load_local(Warp& warp, int lane, uint64_t address, int size, void* value);
bool store_local(Warp& warp, int lane, uint64_t address, int size, const void* value);
bool load_param(Warp& warp, int lane, uint64_t address, int size, void* value);
bool load_generic(Warp& warp, int lane, uint64_t address, int size, void* value);
bool store_generic(Warp& warp, int lane, uint64_t address, int size, const void* value);

// Where an atomic operation may read and write its `size` bytes, with every check; null where it was refused.
void* atomic_global(Warp& warp, int lane, uint64_t address, int size);
void* atomic_shared(Warp& warp, int lane, uint64_t address, int size);

// Whether an access to shared memory would be aligned and within it; reported where not.
bool can_access_shared(Warp& warp, int lane, uint64_t address, int size);

// Reads for more lanes than the one that has the address: any lane's write that is not ordered before races with it.
bool load_shared_for_warp(Warp& warp, int lane, uint64_t address, int size, void* value);

// Reads for the asynchronous proxy: what threads stored there must be fenced. `actor` is noted as the reader, if any.
bool read_shared_asynchronously(Warp& warp, int lane, uint64_t address, int size, void* value, int actor,
                                uint32_t clock);

// Writes what more lanes have than the one that has the address.
bool store_shared_for_warp(Warp& warp, int lane, uint64_t address, int size, const void* value);

// Asynchronous copies: shared memory is claimed when a copy starts, and written when it lands.
bool claim_shared(Warp& warp, int lane, uint64_t address, int size);
void claim_range(Warp& warp, int lane, uint64_t address, int size);  // that is within it
void land_in_shared(Warp& warp, int lane, uint64_t address, int size, const void* value);
// A bulk copy still reads these bytes; it has been waited for by a lane.
void begin_bulk_read(Block& block, uint64_t address, int size);
void end_bulk_read(Warp& warp, int lane, uint64_t address, int size);
uint32_t start_copy(Warp& warp, int lane, uint64_t to, uint64_t from, int size, uint32_t reading);
void commit_copies(Warp& warp);
void wait_for_copies(Warp& warp, size_t pending);
void count_copies(Warp& warp, const uint64_t (&from)[kLanes], const uint32_t (&sizes)[kLanes]);

void count_global(Warp& warp, const uint64_t (&address)[kLanes], int size);
void count_shared(Warp& warp, const uint64_t (&address)[kLanes], int size);

// All lanes of the warp are ordered after what each did before.
void order_warp(Warp& warp);

// Something happened that a wait may have waited for.
void make_progress(Block& block);

}  // namespace emulator
