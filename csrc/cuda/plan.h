// plan.h: which kernel computes a matmul, in which tiles, in how many parts of K: a pure function of the device and of
// the problem's shape and layout. No torch header.
//
// Of every tile and number of parts that can serve, the cheapest by a simple model: so many rounds of tiles over the
// multiprocessors, each as long as K and what begins and ends a block. Its numbers are bounds from published rates, not
// measurements; a neighbouring shape gets a neighbouring cost, so that no size is an edge to fall off.
#pragma once

#include <cstdint>

#include "matmul_problem.h"

namespace quaver {

// How an operand's lines (rows of a, columns of b) lie in memory.
enum class OperandLayout : int32_t {
  kChunks,      // contiguous along K, aligned to 16 bytes
  kWords,       // contiguous along K, aligned to 4 bytes
  kTransposed,  // four neighbouring lines are an aligned word
  kAny,
};

struct Device {
  int32_t architecture;  // 80 is sm_80
  int32_t multiprocessors;
};

struct MatmulShape {
  int64_t m;
  int64_t n;
  int64_t k;
  int64_t batches;
  OperandLayout a_layout;
  OperandLayout b_layout;
};

enum class MatmulKernel : int32_t { kLarge, kMedium, kSmall, kSkinny, kAnyMedium, kAnySmall, kGemv };

struct MatmulTile {
  MatmulKernel kernel;
  bool any_layout;  // or chunks alone
  int32_t m;
  int32_t n;
  int32_t stages;  // of shared memory; 0 for codes that go straight to registers
  int32_t warps;
  int32_t blocks;      // that a multiprocessor's registers hold at once, at least
  double code_cycles;  // of an A100's multiprocessor, for each code along K
  double once_cycles;  // for what begins and ends a block
};

inline constexpr MatmulTile kMatmulTiles[] = {
    {MatmulKernel::kLarge, false, 128, 256, 3, 8, 1, 16.5, 4000},
    {MatmulKernel::kMedium, false, 128, 128, 3, 4, 2, 9.0, 2500},
    {MatmulKernel::kSmall, false, 64, 64, 4, 4, 4, 3.0, 1500},
    {MatmulKernel::kSkinny, false, 32, 128, 4, 4, 4, 3.0, 1500},
    {MatmulKernel::kAnyMedium, true, 128, 128, 3, 8, 1, 16.0, 2500},
    {MatmulKernel::kAnySmall, true, 64, 64, 3, 4, 3, 5.0, 1500},
    {MatmulKernel::kGemv, false, 16, 16, 0, 8, 4, 0.7, 200},
};

constexpr const MatmulTile& tile_of(MatmulKernel kernel) { return kMatmulTiles[static_cast<int>(kernel)]; }

struct MatmulPlan {
  MatmulKernel kernel = MatmulKernel::kAnySmall;
  OperandLayout a_layout = OperandLayout::kAny;
  OperandLayout b_layout = OperandLayout::kAny;
  int32_t splits = 1;  // parts of K
  double cycles = 0;   // what the model makes of it
};

// K goes through shared memory in stages of so many codes.
inline constexpr int32_t kStageCodes = 64;

inline constexpr int32_t kMostSplits = 32;
inline constexpr int64_t kLeastCodesOfSplit = 256;
// Partial sums of parts of K are exact integers. They are written to scratch memory and added up by another kernel,
// which needs neither atomic instructions nor memory that was cleared before.
inline constexpr double kJoinBytesPerCycle = 512;  // of the whole device
inline constexpr double kJoinCycles = 4000;        // for another launch

constexpr int64_t tiles_along(int64_t size, int64_t tile) { return (size + tile - 1) / tile; }

// The codes of each part of K but the last, which has what is left.
constexpr int64_t split_codes(int64_t k, int32_t splits) {
  return tiles_along(tiles_along(k, kStageCodes), splits) * kStageCodes;
}

// How many parts of that size there are: none is empty.
constexpr int32_t splits_of(int64_t k, int32_t wanted) {
  return wanted == 1 || k == 0 ? 1 : static_cast<int32_t>(tiles_along(k, split_codes(k, wanted)));
}

constexpr int64_t blocks_of(const MatmulShape& shape, const MatmulTile& tile, int32_t splits) {
  return tiles_along(shape.m, tile.m) * tiles_along(shape.n, tile.n) * shape.batches * splits;
}

constexpr int64_t scratch_bytes(const MatmulShape& shape, int32_t splits) {
  return splits == 1 ? 0 : splits * shape.batches * shape.m * shape.n * int64_t{4};
}

// Data centers' chips (A100, H100, B200) and the others: how long a product takes against an A100's, and the bytes that
// memory brings to a multiprocessor in a cycle.
constexpr bool has_full_rates(const Device& device) {
  return device.architecture == 80 || device.architecture == 90 || device.architecture == 100;
}
constexpr double product_cycles(const Device& device) { return has_full_rates(device) ? 1.0 : 2.0; }
constexpr double bytes_per_cycle(const Device& device) { return has_full_rates(device) ? 13.0 : 3.0; }

// What memory needs at least: each operand once, however often tiles read it from the L2 cache.
constexpr double memory_cycles(const Device& device, const MatmulShape& shape) {
  const double codes = static_cast<double>(shape.batches * (shape.m + shape.n)) * static_cast<double>(shape.k);
  return codes / (bytes_per_cycle(device) * device.multiprocessors);
}

// A multiprocessor's shared memory.
constexpr int64_t shared_bytes(const Device& device) {
  if (device.architecture == 75) return 64 * 1024;
  if (device.architecture == 80 || device.architecture == 87) return 164 * 1024;
  return device.architecture >= 90 && device.architecture < 120 ? 228 * 1024 : 100 * 1024;
}

// What a block takes of it, with what the system reserves.
constexpr int64_t shared_bytes(const MatmulTile& tile) {
  constexpr int64_t kReserved = 1024;
  const int64_t sums = tile.stages == 0 ? int64_t{4} * tile.warps * tile.m * (tile.n + 8) : 0;
  return int64_t{tile.stages} * (tile.m + tile.n) * kStageCodes + sums + kReserved;
}

// The blocks that a multiprocessor holds at once, at least.
constexpr int32_t blocks_at_once(const Device& device, const MatmulTile& tile) {
  const int64_t fit = shared_bytes(device) / shared_bytes(tile);
  return fit < tile.blocks ? static_cast<int32_t>(fit) : tile.blocks;
}

constexpr double larger_of(double a, double b) { return a > b ? a : b; }

// How often a multiprocessor takes `at_once` blocks.
constexpr double rounds_of(const Device& device, const MatmulShape& shape, const MatmulTile& tile, int32_t splits,
                           int32_t at_once) {
  return static_cast<double>(tiles_along(blocks_of(shape, tile, splits), device.multiprocessors * at_once));
}

// What the tensor cores need for every round of tiles.
constexpr double issue_cycles(const Device& device, const MatmulShape& shape, const MatmulTile& tile, int32_t splits) {
  const double codes = static_cast<double>(splits == 1 ? shape.k : split_codes(shape.k, splits));
  return rounds_of(device, shape, tile, splits, 1) * codes * tile.code_cycles * product_cycles(device);
}

inline constexpr double kStartCycles = 1000;  // of any launch

constexpr double cycles_of(const Device& device, const MatmulShape& shape, const MatmulTile& tile, int32_t splits) {
  const double partial = static_cast<double>(scratch_bytes(shape, splits));
  const double join = splits == 1 ? 0.0 : kJoinCycles + 2 * partial / kJoinBytesPerCycle;
  return kStartCycles + larger_of(issue_cycles(device, shape, tile, splits), memory_cycles(device, shape)) +
         rounds_of(device, shape, tile, splits, blocks_at_once(device, tile)) * tile.once_cycles + join;
}

constexpr bool serves(const MatmulTile& tile, const Device& device, const MatmulShape& shape) {
  const bool chunks = shape.a_layout == OperandLayout::kChunks && shape.b_layout == OperandLayout::kChunks;
  if (tile.kernel == MatmulKernel::kGemv) return chunks && shape.m <= tile.m && shape.k % 16 == 0;
  return tile.any_layout != (chunks && device.architecture >= 80);  // sm_75 has no cp.async
}

// Calls visit(plan) with everything that can serve.
template <class Visit>
constexpr void for_each_plan(const Device& device, const MatmulShape& shape, const Visit& visit) {
  for (const MatmulTile& tile : kMatmulTiles) {
    if (!serves(tile, device, shape)) continue;
    int32_t before = 0;
    for (int32_t wanted = 1; wanted <= kMostSplits; ++wanted) {
      if (wanted > 1 && shape.k < wanted * kLeastCodesOfSplit) break;
      const int32_t splits = splits_of(shape.k, wanted);
      if (splits == before) continue;
      before = splits;
      visit(MatmulPlan{tile.kernel, shape.a_layout, shape.b_layout, splits, cycles_of(device, shape, tile, splits)});
    }
  }
}

constexpr MatmulPlan plan_matmul(const Device& device, const MatmulShape& shape) {
  MatmulPlan cheapest{};
  bool found = false;
  for_each_plan(device, shape, [&](const MatmulPlan& plan) {
    if (!found || plan.cycles < cheapest.cycles) cheapest = plan;
    found = true;
  });
  return cheapest;
}

// A convolution's product: a tile for any layout, whose rows are gathered, and all of K at once.
constexpr MatmulPlan plan_conv2d(const Device& device, const MatmulShape& shape) {
  const auto cycles = [&](MatmulKernel kernel) { return cycles_of(device, shape, tile_of(kernel), 1); };
  const bool medium = cycles(MatmulKernel::kAnyMedium) < cycles(MatmulKernel::kAnySmall);
  MatmulPlan plan{};
  plan.kernel = medium ? MatmulKernel::kAnyMedium : MatmulKernel::kAnySmall;
  plan.b_layout = shape.b_layout;
  plan.cycles = cycles(plan.kernel);
  return plan;
}

// int8_linear of few rows: every block of the product makes their codes for itself, in one launch, unless that takes
// longer than a launch of its own.
inline constexpr int64_t kMostLinearCodes = 35 * 1024;  // bytes of shared memory
inline constexpr double kQuantizeCycles = 0.1;          // of each element, in each block of a multiprocessor
inline constexpr double kLaunchCycles = 6000;           // of the launch, and of reading x with few blocks

// The bytes of a row's codes in shared memory.
constexpr int64_t linear_pitch(int64_t k) { return tiles_along(k, 128) * 128 + 64; }

// How many blocks are to run, or 0 where the rows are quantized first.
constexpr int32_t plan_linear(const Device& device, const MatmulShape& shape) {
  if (shape.m > kMostLinearRows || shape.m * linear_pitch(shape.k) > kMostLinearCodes) return 0;
  const MatmulPlan plan = plan_matmul(device, shape);
  if (plan.kernel != MatmulKernel::kGemv || plan.splits != 1) return 0;
  const MatmulTile& tile = tile_of(plan.kernel);
  const int64_t tiles = blocks_of(shape, tile, 1);
  const int64_t together = tiles_along(tiles, device.multiprocessors);
  const int64_t fit = shared_bytes(device) / (shared_bytes(tile) + shape.m * linear_pitch(shape.k));
  const int64_t held = fit < tile.blocks ? fit : tile.blocks;
  const int64_t resident = together < held ? together : held;
  if (static_cast<double>(resident * shape.m * shape.k) * kQuantizeCycles > kLaunchCycles) return 0;
  const int64_t most = resident * device.multiprocessors;
  return static_cast<int32_t>(tiles < most ? tiles : most);
}

// The layout of an operand whose lines are `line_stride` apart.
inline OperandLayout layout_of(const MatrixView& view, const MatmulProblem& problem, int64_t line_stride,
                               int64_t k_stride, int64_t lines) {
  const auto aligned = [&](int64_t stride, int64_t bytes) {
    bool every = reinterpret_cast<uint64_t>(view.data) % bytes == 0 && stride % bytes == 0;
    for (int dim = 0; dim < problem.batch_dims; ++dim)
      every = every && (problem.batch_size[dim] == 1 || view.batch_stride[dim] % bytes == 0);
    return every;
  };
  if (k_stride == 1 && aligned(line_stride, 16)) return OperandLayout::kChunks;
  if (k_stride == 1 && aligned(line_stride, 4)) return OperandLayout::kWords;
  if (line_stride == 1 && lines % 4 == 0 && aligned(k_stride, 4)) return OperandLayout::kTransposed;
  return OperandLayout::kAny;
}

inline MatmulShape shape_of(const MatmulProblem& problem) {
  return {problem.m,
          problem.n,
          problem.k,
          problem.batches(),
          layout_of(problem.a, problem, problem.a.row_stride, problem.a.column_stride, problem.m),
          layout_of(problem.b, problem, problem.b.column_stride, problem.b.row_stride, problem.n)};
}

}  // namespace quaver
