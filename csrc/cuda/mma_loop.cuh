// mma_loop.cuh: the main loop of the tensor-core products: stages of codes through shared memory to a tile's
// accumulators, whatever brings the codes.
//
// Codes come in stages of 64 along K, in a ring of shared memory: while the warps multiply one stage, the next has
// landed and further ones are under way. Within a stage a warp multiplies one step of 32 while ldmatrix brings the
// next, so that the tensor cores wait for neither memory.
//   shared memory   a ring of kStages stages, as mma_tile.cuh has them
//   overlap         copies of kStages - 1 stages ahead (cp.async), fragments of one step ahead (ldmatrix), mma.sync
#pragma once

#include "mma_tile.cuh"
#include "tiling.cuh"

namespace quaver {

// How many blocks of a multiprocessor share its registers, at least. On sm_75 shared memory has no room for a third.
template <class Tile>
inline constexpr int kBlocksTogether =
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    Tile::kBlocks < 2 ? Tile::kBlocks : 2;
#else
    Tile::kBlocks;
#endif

// The products of [k, end) along K. `operands` brings one stage after the other: load_next(address). When it is done,
// the block is too, and nothing is under way.
template <class Tile, CodeType kA, CodeType kB, class Operands>
__device__ __forceinline__ void multiply_stages(Operands& operands, const WarpPart<Tile>& part, uint32_t ring, int k,
                                                int end, Accumulators<Tile>& acc) {
  const auto load_stage = [&](uint32_t stage) {
    operands.load_next(ring + stage);
    commit_copies();
  };
#pragma unroll 1
  for (int stage = 0; stage < Tile::kStages - 1; ++stage) load_stage(stage * Tile::kStageBytes);
  Fragments<Tile> fragments[2];
  uint32_t read = 0;
  uint32_t write = (Tile::kStages - 1) * Tile::kStageBytes;
  wait_for_copies<Tile::kStages - 2>();
  __syncthreads();
  part.load(fragments[0], ring, 0);
#pragma unroll 1
  for (int at = k; at < end; at += Tile::kK) {
    part.load(fragments[1], ring + read, 1);
    load_stage(write);  // all have read what was there, before the last barrier
    write = write == Tile::kRing - Tile::kStageBytes ? 0 : write + Tile::kStageBytes;
    multiply<Tile, kA, kB>(acc, fragments[0]);
    wait_for_copies<Tile::kStages - 2>();
    __syncthreads();
    read = read == Tile::kRing - Tile::kStageBytes ? 0 : read + Tile::kStageBytes;
    part.load(fragments[0], ring + read, 0);
    multiply<Tile, kA, kB>(acc, fragments[1]);
  }
  wait_for_copies<0>();
  __syncthreads();
}

}  // namespace quaver
