// state.cuh: what threads keep of the elements that they have seen, and join with that of others: a range, a sum. A
// state that is made anew is that of no elements; joining is exact, so its order changes no bit.
#pragma once

#include "arith.h"
#include "grid.cuh"

namespace quaver {

// Holds 0, so that of no elements, and of zeros, it is [0, 0]. ARITHMETIC.md (4).
struct alignas(8) Range {
  float lo = 0.0f;
  float hi = 0.0f;

  __device__ __forceinline__ void take(float value) {
    const float finite = finite_or_zero(value);
    join({finite, finite});
  }
  __device__ __forceinline__ void join(const Range& other) {
    lo = smaller(other.lo, lo);
    hi = larger(other.hi, hi);
  }
  // That of the lane whose number differs in the bit `apart`.
  __device__ __forceinline__ Range of_lane(int apart) const {
    return {__shfl_xor_sync(kAllLanes, lo, apart), __shfl_xor_sync(kAllLanes, hi, apart)};
  }
};

// Wraps. ARITHMETIC.md (5).
struct Sum {
  int32_t value = 0;

  __device__ __forceinline__ void take(int32_t code) { join({code}); }
  __device__ __forceinline__ void join(const Sum& other) { value = wrapping_add(value, other.value); }
  __device__ __forceinline__ Sum of_lane(int apart) const { return {__shfl_xor_sync(kAllLanes, value, apart)}; }
};

// Joins the states of lanes that are `nearest`, 2 * `nearest`, ... and less than `farthest` apart; all of them get it.
template <class State>
__device__ __forceinline__ void join_lanes(State& state, int nearest, int farthest) {
  for (int apart = farthest / 2; apart >= nearest; apart /= 2) state.join(state.of_lane(apart));
}

// Joins the states of `threads` neighbouring threads, a power of 2 and the same for all of the block, which come here
// together; all of them get it.
//   shared memory   smem_state: one for each warp of the largest block
template <class State>
__device__ __forceinline__ void join_threads(State& state, int threads) {
  __shared__ State smem_state[kMaxThreads / kLanes];
  join_lanes(state, 1, min(threads, kLanes));
  if (threads <= kLanes) return;
  const int warps = threads / kLanes;
  const int warp = threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  if (lane == 0) smem_state[warp] = state;
  __syncthreads();
  state = smem_state[warp / warps * warps + lane % warps];
  join_lanes(state, 1, warps);
  __syncthreads();  // before the next states overwrite these
}

}  // namespace quaver
