// wgmma.cpp: products of 8-bit matrices by four warps together, which run beside the threads that ask for them.
// PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions".
#include <limits>

#include "machine.h"

namespace emulator {

namespace {

constexpr int kInner = 32;     // codes that an operation sums over
constexpr int kRows = 16;      // of a warp, of the warpgroup's 64
constexpr int kColumns = 256;  // at most
constexpr int kChunk = 16;     // bytes that a swizzle keeps together
constexpr char kNotWaited[] = "wgmma not waited for";

// A matrix in shared memory, its rows of 32 codes in groups of 8. PTX ISA, "Matrix Descriptor Format", "Strides",
// for operands whose inner dimension is contiguous, as it must be for 8-bit integers.
struct Matrix {
  uint64_t start = 0;
  uint64_t leading = 0;  // bytes between the two chunks of a row, without swizzle
  uint64_t stride = 0;   // bytes between groups of 8 rows
  int swizzle = 0;       // bytes

  uint64_t place(int row, int chunk) const {
    const uint64_t group = start + row / 8 * stride;
    if (swizzle == 0) return group + row % 8 * kChunk + chunk * leading;
    return swizzled(group + row % 8 * swizzle + chunk * kChunk, swizzle);
  }
};

bool read_descriptor(Warp& warp, uint64_t bits, Matrix& matrix) {
  constexpr int kSwizzles[] = {0, 128, 64, 32};
  const auto field = [bits](int first) { return (bits >> first & 0x3FFF) << 4; };
  matrix = {field(0), field(16), field(32), kSwizzles[bits >> 62]};
  if ((bits >> 49 & 7) == 0) return true;
  warp.machine->report("bad matrix descriptor", warp, 0, matrix.start, "a base offset other than 0 is not emulated");
  return false;
}

template <class T>
void widen(const uint8_t* from, int16_t* to) {
  for (int i = 0; i < kInner; ++i) to[i] = static_cast<T>(from[i]);
}

void widen(const uint8_t* from, int16_t* to, bool is_signed) {
  is_signed ? widen<int8_t>(from, to) : widen<uint8_t>(from, to);
}

bool read_row(Warp& warp, const Matrix& matrix, int row, uint32_t time, uint8_t* bytes) {
  const int actor = static_cast<int>(warp.block->warps.size()) + warp.index / kWarpgroup;
  for (int chunk = 0; chunk < kInner / kChunk; ++chunk)
    if (!read_shared_asynchronously(warp, kLanes, matrix.place(row, chunk), kChunk, bytes + chunk * kChunk, actor,
                                    time))
      return false;
  return true;
}

// Lane l has of its registers r: row l / 4 + r % 2 * 8, four codes from l % 4 * 4 + r / 2 * 16.
void read_fragment(Warp& warp, const int32_t* registers, uint8_t (&bytes)[kRows][kInner]) {
  for (int r = 0; r < 4; ++r)
    for (int lane = 0; lane < kLanes; ++lane)
      std::memcpy(&bytes[lane / 4 + r % 2 * 8][lane % 4 * 4 + r / 2 * 16], warp.at32(registers[r] / 2) + lane, 4);
}

bool report_unless(bool right, Warp& warp, const char* kind, const char* words) {
  if (!right) warp.machine->report(kind, warp, 0, 0, words);
  return right;
}

// The four warps must ask for the same, in the same order.
uint32_t join_warpgroup(Warp& warp, const Warpgroup::Operation& operation) {
  Warpgroup& group = warp.block->warpgroups[warp.index / kWarpgroup];
  const uint32_t time = ++group.issued[warp.index % kWarpgroup];
  const size_t place = time - 1 - group.forgotten;
  if (place == group.operations.size()) {
    group.operations.push_back(operation);
  } else {
    const auto& first = group.operations[place];
    report_unless(first.code == operation.code && first.a == operation.a && first.b == operation.b &&
                      first.adds == operation.adds,
                  warp, "divergent warpgroup", "the warpgroup's warps multiply different things");
  }
  const uint32_t begun = *std::min_element(group.issued.begin(), group.issued.end());
  for (; group.forgotten < begun; ++group.forgotten) group.operations.pop_front();
  make_progress(*warp.block);
  return time;
}

uint32_t accumulate(uint32_t sum, int32_t product, bool saturates) {
  if (!saturates) return sum + static_cast<uint32_t>(product);
  using Limits = std::numeric_limits<int32_t>;
  const int64_t exact = static_cast<int64_t>(static_cast<int32_t>(sum)) + product;
  return static_cast<uint32_t>(std::clamp<int64_t>(exact, Limits::min(), Limits::max()));
}

// Registers must be fenced after other instructions changed them, and no earlier operation may use them otherwise.
void check_fragment(Warp& warp, const Code& code, int sums) {
  Multiplications& m = warp.multiplications;
  for (size_t i = 0; i < code.fragment.size(); ++i) {
    const int32_t number = code.fragment[i] / 2;
    report_unless(m.changed[number] <= m.fence, warp, "missing wgmma.fence",
                  "a register that was written since the last one is used");
    const bool is_sum = static_cast<int>(i) < sums;
    report_unless(is_sum ? m.reading[number] <= m.complete : m.writing[number] <= m.complete, warp, kNotWaited,
                  "a register is a sum of one operation and codes of another");
  }
}

}  // namespace

void Multiplications::track(int registers) {
  writing.assign(registers, 0);
  reading.assign(registers, 0);
  changed.assign(registers, 0);
  sums.assign(static_cast<size_t>(registers) * kLanes, 0);
}

// Codes are read and summed now. The sums reach their registers when they are waited for; until then shared memory that
// was read counts as being read.
void multiply_by_warpgroup(Warp& warp, const Code& code, WarpgroupShape shape, const uint64_t* a, const uint64_t* b,
                           uint32_t adds) {
  const size_t group = warp.index / kWarpgroup;
  if (!report_unless(warp.mask == kAllLanes, warp, "divergent warp instruction",
                     "only some of the warp's lanes execute it") ||
      !report_unless(group < warp.block->warpgroups.size(), warp, "divergent warpgroup",
                     "it takes four whole warps, of which the first's number is a multiple of 4"))
    return;
  bool uniform = adds == 0 || adds == kAllLanes;
  for (int lane = 1; lane < kLanes; ++lane) uniform &= b[lane] == b[0] && (shape.a_in_registers || a[lane] == a[0]);
  if (!report_unless(uniform, warp, "divergent warpgroup", "lanes have different descriptors or predicates")) return;
  Matrix a_matrix, b_matrix;
  if (!read_descriptor(warp, b[0], b_matrix)) return;
  if (!shape.a_in_registers && !read_descriptor(warp, a[0], a_matrix)) return;
  const int sums = shape.columns / 2;
  check_fragment(warp, code, sums);
  const uint32_t time = join_warpgroup(warp, {&code, shape.a_in_registers ? 0 : a[0], b[0], adds != 0});

  uint8_t bytes[kRows][kInner] = {};
  int16_t rows[kRows][kInner], columns[kColumns][kInner];
  if (shape.a_in_registers) read_fragment(warp, code.fragment.data() + sums, bytes);
  for (int m = 0; m < kRows; ++m) {
    if (!shape.a_in_registers && !read_row(warp, a_matrix, warp.index % kWarpgroup * kRows + m, time, bytes[m])) return;
    widen(bytes[m], rows[m], shape.a_signed);
  }
  for (int n = 0; n < shape.columns; ++n) {
    if (!read_row(warp, b_matrix, n, time, bytes[0])) return;
    widen(bytes[0], columns[n], shape.b_signed);
  }

  // Register r holds row lane / 4 + r / 2 % 2 * 8 of the warp's, column r / 4 * 8 + lane % 4 * 2 + r % 2.
  Multiplications& state = warp.multiplications;
  for (int r = 0; r < sums; ++r) {
    const int32_t number = code.fragment[r] / 2;
    uint32_t* sum = state.sums.data() + static_cast<size_t>(number) * kLanes;
    if (state.writing[number] <= state.complete) std::copy_n(warp.at32(number), kLanes, sum);
    for (int lane = 0; lane < kLanes; ++lane) {
      const int16_t* row = rows[lane / 4 + r / 2 % 2 * 8];
      const int16_t* column = columns[r / 4 * 8 + lane % 4 * 2 + r % 2];
      int32_t product = 0;  // at most 32 * 255 * 255
      for (int k = 0; k < kInner; ++k) product += static_cast<int32_t>(row[k]) * static_cast<int32_t>(column[k]);
      sum[lane] = accumulate(adds != 0 ? sum[lane] : 0, product, shape.saturates);
    }
    state.writing[number] = time;
  }
  for (size_t i = sums; i < code.fragment.size(); ++i) state.reading[code.fragment[i] / 2] = time;
}

void fence_registers(Warp& warp) { warp.multiplications.fence = warp.multiplications.now; }

void commit_multiplications(Warp& warp) {
  const size_t group = warp.index / kWarpgroup;
  if (group >= warp.block->warpgroups.size()) return;
  warp.multiplications.groups.push_back(warp.block->warpgroups[group].issued[warp.index % kWarpgroup]);
}

// All groups but the last `pending` are complete: their sums are in registers, and they read shared memory no more. An
// operation is complete only when all four warps have asked for it.
void wait_for_multiplications(Warp& warp, size_t pending) {
  const size_t number = warp.index / kWarpgroup;
  Multiplications& state = warp.multiplications;
  if (number >= warp.block->warpgroups.size() || state.groups.size() <= pending) return;
  const size_t done = state.groups.size() - pending;
  const uint32_t time = state.groups[done - 1];
  const Warpgroup& group = warp.block->warpgroups[number];
  if (*std::min_element(group.issued.begin(), group.issued.end()) < time) {
    warp.idle = warp.yields = warp.again = true;
    warp.in_vain = warp.mask;
    warp.waits_at = warp.code;
    warp.awaited = "wgmma waits for warps of its warpgroup that never come";
    return;
  }
  state.groups.erase(state.groups.begin(), state.groups.begin() + done);
  for (size_t r = 0; r < state.writing.size(); ++r)
    if (state.complete < state.writing[r] && state.writing[r] <= time)
      std::copy_n(state.sums.data() + r * kLanes, kLanes, warp.at32(r));
  state.complete = std::max(state.complete, time);
  const size_t actor = warp.block->warps.size() + number;
  warp.known.actors[actor] = std::max(warp.known.actors[actor], time + 1);
}

// No instruction may touch what an operation still writes, or write what it still reads.
void check_registers(Warp& warp, const Code& code) {
  Multiplications& state = warp.multiplications;
  ++state.now;
  for (const int32_t each : code.registers) {
    const int32_t number = each / 2;
    const bool writes = each % 2 != 0;
    if (writes) state.changed[number] = state.now;
    if (state.writing[number] > state.complete)
      warp.machine->report(kNotWaited, warp, __builtin_ctz(warp.mask), 0, "use of a register that it writes");
    if (writes && state.reading[number] > state.complete)
      warp.machine->report(kNotWaited, warp, __builtin_ctz(warp.mask), 0, "write to a register that it reads");
  }
}

// What these threads know to be written, the asynchronous proxy sees too.
void fence_proxy(Warp& warp) {
  learn(warp.fenced, warp.known);
  for (int lane = 0; lane < kLanes; ++lane)
    if (warp.mask >> lane & 1) learn(warp.fenced, warp.known_to_lane[lane]);
  warp.fenced.actors[warp.index] = ++warp.clock;
}

uint32_t map_to_block(Warp& warp, int lane, uint32_t rank) {
  if (rank != 0) warp.machine->report("out of bounds", warp, lane, rank, "a block of the cluster, which has one alone");
  return 0;
}

}  // namespace emulator
