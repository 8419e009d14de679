// machine.cpp: the order in which warps and their lanes run: divergence, barriers, blocks.
#include "machine.h"

#include <algorithm>
#include <stdexcept>

namespace emulator {

namespace {
uint32_t launches = 0;
constexpr size_t kMaxReports = 64;
constexpr int kLongestTurn = 200;  // instructions of a warp before another may run
constexpr int kPatience = 300;     // rounds in which every warp waits in vain
constexpr int kPassingOver = 100;  // of them, before lanes that wait are passed over for others of their warp

// Lanes that have come to an instruction wait there until all `members` have.
void wait_for_lanes(Warp& warp, uint32_t group, int32_t at, uint32_t members) {
  for (int lane = 0; lane < kLanes; ++lane)
    if (group >> lane & 1) warp.pc[lane] = at;
  warp.waiting |= group;
  uint32_t arrived = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    if ((warp.waiting >> lane & 1) && warp.pc[lane] == at) arrived |= 1u << lane;
  if ((members & ~arrived) == 0) warp.waiting &= ~arrived;
}

}  // namespace

Machine::Machine(const Program& program, Launch launch)
    : program(program), launch(std::move(launch)), launch_number(++launches), random(this->launch.seed) {
  counters.resize(program.codes.size());
}

void Machine::report(const char* kind, const Warp& warp, int lane, uint64_t address, std::string words) {
  if (reports.size() >= kMaxReports) return;
  for (const Report& known : reports)
    if (known.kind == kind && known.code == warp.code) return;  // one of a kind for each instruction
  reports.push_back({kind, warp.code, warp.block->index, warp.thread(lane), address, std::move(words)});
}

void Machine::run() {
  const uint64_t blocks = static_cast<uint64_t>(launch.grid[0]) * launch.grid[1] * launch.grid[2];
  std::vector<uint32_t> order;
  for (uint64_t i = launch.first_block; i < blocks; ++i) order.push_back(static_cast<uint32_t>(i));
  if (launch.seed != 0) std::shuffle(order.begin(), order.end(), random);
  for (const uint32_t index : order)
    if (!given_up()) run_block(index);
}

void Machine::start_warps(Block& block, uint32_t index) {
  const auto& [nx, ny, nz] = launch.block;
  const uint32_t threads = nx * ny * nz;
  const int warps = static_cast<int>((threads + kLanes - 1) / kLanes);
  const std::array<uint32_t, 3> ctaid = {index % launch.grid[0], index / launch.grid[0] % launch.grid[1],
                                         index / launch.grid[0] / launch.grid[1]};
  block.warps.resize(warps);
  if (program.has_wgmma) block.warpgroups.resize(warps / kWarpgroup);
  block.actors = warps + static_cast<int>(block.warpgroups.size());
  for (int w = 0; w < warps; ++w) {
    Warp& warp = block.warps[w];
    warp.block = &block;
    warp.machine = this;
    warp.index = w;
    warp.known.actors.assign(block.actors, 1);
    warp.fenced.actors.assign(block.actors, 1);
    if (program.has_wgmma) warp.multiplications.track(program.registers32);
    warp.r32.assign(static_cast<size_t>(program.registers32) * kLanes, 0);
    warp.r64.assign(static_cast<size_t>(program.registers64) * kLanes, 0);
    warp.predicate.assign(program.predicates, 0);
    warp.local.assign(static_cast<size_t>(program.local_bytes) * kLanes, 0);
    for (int lane = 0; lane < kLanes; ++lane) {
      const uint32_t thread = w * kLanes + lane;
      if (thread >= threads) continue;
      warp.alive |= 1u << lane;
      warp.lanes |= 1u << lane;
      const uint32_t eq = 1u << lane;
      const uint32_t values[] = {thread % nx,
                                 thread / nx % ny,
                                 thread / nx / ny,
                                 nx,
                                 ny,
                                 nz,
                                 ctaid[0],
                                 ctaid[1],
                                 ctaid[2],
                                 launch.grid[0],
                                 launch.grid[1],
                                 launch.grid[2],
                                 static_cast<uint32_t>(lane),
                                 static_cast<uint32_t>(w),
                                 eq,
                                 eq - 1,
                                 eq | (eq - 1),
                                 ~(eq | (eq - 1)),
                                 ~(eq - 1),
                                 static_cast<uint32_t>(warps),
                                 ctaid[0],
                                 ctaid[1],
                                 ctaid[2],
                                 launch.grid[0],
                                 launch.grid[1],
                                 launch.grid[2],
                                 0,
                                 0,
                                 0,
                                 1,
                                 1,
                                 1,
                                 0,
                                 1};
      for (size_t s = 0; s < program.special.size(); ++s)
        if (program.special[s] >= 0) warp.at32(program.special[s])[lane] = values[s];
    }
  }
}

void Machine::run_block(uint32_t index) {
  Block block;
  block.machine = this;
  block.index = index;
  const size_t shared = program.static_shared + launch.dynamic_shared;
  block.shared.assign(shared, 0xCD);
  block.bytes.resize(shared);
  start_warps(block, index);
  block.reads.resize(shared * block.actors);
  std::vector<int> ready;
  while (true) {
    ready.clear();
    bool waiting = false;
    for (Warp& warp : block.warps) {
      if (warp.state != State::kReady) continue;
      if (!warp.idle) ready.push_back(warp.index);
      waiting |= warp.idle;
    }
    if (ready.empty()) {  // those whose wait was in vain look again, until it is clear that nothing will come
      if (!waiting || ++block.fruitless > kPatience) break;
      for (Warp& warp : block.warps) warp.idle = false;
      continue;
    }
    const size_t pick = launch.seed == 0 ? 0 : random() % ready.size();
    step(block, block.warps[ready[pick]], launch.seed == 0 ? kLongestTurn : 1 + random() % kLongestTurn);
    if (given_up()) {
      report("too many steps", block.warps[ready[pick]], 0, 0,
             "not done after " + std::to_string(launch.most_steps) + " instructions of warps");
      return;
    }
  }
  if (!explain_deadlock(block)) explain_unfinished(block);
}

bool Machine::explain_deadlock(Block& block) {
  bool stuck = false;
  for (Warp& warp : block.warps) {
    if (warp.state == State::kDone) continue;
    stuck = true;
    if (warp.state == State::kReady) {
      warp.code = warp.waits_at;
      report("deadlock", warp, __builtin_ctz((warp.in_vain & warp.alive) | 1u << 31), 0, warp.awaited);
      continue;
    }
    report("deadlock", warp, __builtin_ctz(warp.alive | 1u << 31), 0,
           "barrier " + std::to_string(warp.at_barrier) + " waits for threads that never come");
  }
  return stuck;
}

// Whether every way from one instruction leads to a barrier.
bool Machine::comes_to(int32_t from, int32_t at) {
  std::vector<bool>& passes = passed_by[at];
  const int32_t size = static_cast<int32_t>(program.codes.size());
  if (passes.empty()) {
    std::vector<std::vector<int32_t>> before(size);
    std::vector<int32_t> found;
    passes.resize(size);
    for (int32_t i = 0; i < size; ++i) {
      const Code& code = program.codes[i];
      if (i == at) continue;
      if (code.flow == Flow::kExit) passes[i] = true, found.push_back(i);
      if (code.flow == Flow::kBranch) before[code.target].push_back(i);
      const bool goes_on = code.guard >= 0 || (code.flow != Flow::kBranch && code.flow != Flow::kExit);
      if (goes_on && i + 1 < size) before[i + 1].push_back(i);
    }
    while (!found.empty()) {
      const int32_t next = found.back();
      found.pop_back();
      for (const int32_t i : before[next])
        if (!passes[i]) passes[i] = true, found.push_back(i);
    }
  }
  return !passes[from];
}

// Whether these lanes are on ways that lead to a barrier, with no way past it. Which of two ways has the smaller
// program counter is the compiler's choice; hardware brings lanes together again where their ways meet.
bool Machine::all_come_to(const Warp& warp, uint32_t lanes, int32_t at) {
  for (int lane = 0; lane < kLanes; ++lane)
    if ((lanes >> lane & 1) && !comes_to(warp.pc[lane], at)) return false;
  return true;
}

// Runs a warp for a while: the lanes at the smallest program counter together, until they branch, wait or meet others.
void Machine::step(Block& block, Warp& warp, int quantum) {
  while (quantum > 0) {
    if (warp.alive == 0) {
      warp.state = State::kDone;
      for (Block::Barrier& each : block.barriers) release(block, each);
      make_progress(block);
      return;
    }
    uint32_t able = warp.alive & ~warp.waiting;
    if (block.fruitless > kPassingOver && (able & ~warp.in_vain) != 0) able &= ~warp.in_vain;
    if (able == 0) {
      report("divergent warp", warp, __builtin_ctz(warp.alive), 0, "lanes wait for lanes that never come");
      warp.alive = 0;
      continue;
    }
    int32_t at = INT32_MAX;
    for (int lane = 0; lane < kLanes; ++lane)
      if (able >> lane & 1) at = std::min(at, warp.pc[lane]);
    uint32_t group = 0;
    int32_t next = INT32_MAX;  // where other lanes stand
    for (int lane = 0; lane < kLanes; ++lane) {
      if (!(able >> lane & 1)) continue;
      if (warp.pc[lane] == at) {
        group |= 1u << lane;
      } else {
        next = std::min(next, warp.pc[lane]);
      }
    }
    bool together = true;  // until the group's lanes part or move on
    while (together && quantum > 0) {
      if (at >= static_cast<int32_t>(program.codes.size())) throw std::runtime_error("a kernel ran past its end");
      const Code& code = program.codes[at];
      uint32_t mask = group;
      if (code.guard >= 0) mask &= code.guard_negated ? ~warp.predicate[code.guard] : warp.predicate[code.guard];
      warp.mask = mask;
      warp.code = at;
      warp.yields = warp.again = false;
      if (program.has_wgmma && mask != 0) check_registers(warp, code);
      --quantum;
      ++executed;
      if (mask != 0) {
        ++counters[at].warps;
        counters[at].lanes += __builtin_popcount(mask);
      }
      switch (code.flow) {
        case Flow::kNext:
          if (mask != 0) code.run(warp, code);
          ++at;
          if (warp.yields) quantum = 0;
          break;
        case Flow::kBranch:
          for (int lane = 0; lane < kLanes; ++lane)
            if (group >> lane & 1) warp.pc[lane] = mask >> lane & 1 ? code.target : at + 1;
          if (mask == group || mask == 0) {
            at = mask != 0 ? code.target : at + 1;
            together = at < next && (mask == 0 || next == INT32_MAX);
          } else {
            together = false;
          }
          if (!together) continue;
          break;
        case Flow::kExit:
          warp.alive &= ~mask;
          warp.waiting = 0;  // those who waited for these lanes look again
          for (int lane = 0; lane < kLanes; ++lane)
            if (group >> lane & 1) warp.pc[lane] = at + 1;
          together = false;
          continue;
        case Flow::kWarpSync: {
          const uint32_t members = static_cast<uint32_t>(
              code.operand[kMaxOperands - 1] < 0 ? code.operand[kMaxOperands - 2]
                                                 : warp.at32(code.operand[kMaxOperands - 1])[__builtin_ctz(group)]);
          if ((members & warp.alive & ~group) != 0 && mask != 0) {  // others are still to come
            wait_for_lanes(warp, group, at, members & warp.alive);
            together = false;
            continue;
          }
          if (mask != 0) code.run(warp, code);
          if (!warp.again) ++at;
          if (warp.yields) quantum = 0;
          break;
        }
        case Flow::kBarrier: {
          if (group != warp.alive &&
              all_come_to(warp, warp.alive & ~group, at)) {  // those that are on another way to it run first
            wait_for_lanes(warp, group, at, warp.alive);
            together = false;
            continue;
          }
          for (int lane = 0; lane < kLanes; ++lane)
            if (group >> lane & 1) warp.pc[lane] = at + 1;
          if (mask != 0 && barrier(block, warp, code, mask)) return;
          together = false;
          continue;
        }
      }
      if (at >= next) together = false;  // others join here, or are behind
      for (int lane = 0; !together && lane < kLanes; ++lane)
        if (group >> lane & 1) warp.pc[lane] = at;
      if (together && quantum == 0)
        for (int lane = 0; lane < kLanes; ++lane)
          if (group >> lane & 1) warp.pc[lane] = at;
    }
  }
}

// operand[0]: the barrier; operand[1]: the threads it waits for, 0 for all; operand[2]: 1 to arrive without waiting.
// True where the warp stops here.
bool Machine::barrier(Block& block, Warp& warp, const Code& code, uint32_t group) {
  if (group != warp.alive) {
    report("divergent barrier", warp, __builtin_ctz(group), 0,
           "only some of the warp's lanes reach it: mask " + std::to_string(group));
  }
  const int64_t number = code.operand[0];
  Block::Barrier& at = block.barriers[number % kBarriers];
  at.expected = static_cast<uint32_t>(code.operand[1]);
  at.arrived += code.operand[1] == 0 ? __builtin_popcount(group) : kLanes;
  at.warps.push_back(warp.index);
  const bool waits = code.operand[2] == 0;
  if (waits) {
    make_progress(block);
    at.waiting.push_back(warp.index);
    warp.state = State::kAtBarrier;
    warp.at_barrier = static_cast<int32_t>(number);
  }
  release(block, at);
  return waits;
}

void Machine::release(Block& block, Block::Barrier& at) {
  if (at.arrived == 0) return;
  uint32_t expected = at.expected;
  if (expected == 0)
    for (const Warp& warp : block.warps) expected += __builtin_popcount(warp.alive);
  if (at.arrived < expected) return;
  Clocks joined, fenced;
  for (const int w : at.warps) {
    Warp& warp = block.warps[w];
    order_warp(warp);
    learn(joined, warp.known);
    learn(fenced, warp.fenced);
  }
  for (const int w : at.warps) joined.actors[w] = std::max(joined.actors[w], block.warps[w].clock);
  for (const int w : at.waiting) {
    Warp& warp = block.warps[w];
    warp.known = joined;
    warp.fenced = fenced;
    warp.state = State::kReady;
    warp.at_barrier = -1;
  }
  at = {};
  make_progress(block);
}

}  // namespace emulator
