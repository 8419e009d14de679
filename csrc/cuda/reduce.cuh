// reduce.cuh: what choose_qparams and sum_codes share: many elements of a tensor to one state each, a range or a sum.
// Both are exact in any order, so that no split of the work changes a bit.
//
// A result's elements are neighbours in memory ("along": the rows of a matrix), or neighbours belong to different
// results ("across": its columns). Where results are few, several blocks make parts of each, and a second launch joins
// them.
//
// Bytes in flight: an H100 needs 18 KB for each multiprocessor (elementwise.cuh). A thread asks for kUnroll vectors of
// 16 bytes at once, 768 threads for 48 KB.
#pragma once

#include "grid.cuh"
#include "runs.cuh"
#include "state.cuh"
#include "vec.cuh"

namespace quaver {

inline constexpr int kWarps = kThreads / kLanes;
inline constexpr int kUnroll = 4;
inline constexpr int64_t kEnoughBlocks = 1024;  // for any GPU

// Part p of a result takes [p * share, (p + 1) * share) of the `total` steps that it is made in.
struct Parts {
  int64_t total;
  int64_t share;
  Divisor count;

  // Not in parts.
  explicit Parts(int64_t total) : total(total), share(total) {}

  // `blocks` without parts; a part is worth at least `least` steps.
  Parts(int64_t total, int64_t blocks, int64_t least) : total(total), share(total) {
    const int64_t wanted = std::min(kEnoughBlocks / std::max<int64_t>(blocks, 1), total / least);
    if (wanted < 2) return;
    share = (total + wanted - 1) / wanted;
    count = Divisor((total + share - 1) / share);
  }
};

// `threads` that stand side by side make a part of a result: a power of 2 up to a block's.
struct AlongPlan {
  Walk<kReductionOperands> kept;
  Runs<1> folded;
  int64_t results;
  Parts parts;
  int32_t threads;

  int64_t blocks() const { return (results * parts.count.divisor * threads + kThreads - 1) / kThreads; }
};

// `lanes` threads that stand side by side have kVector neighbouring results each; the block's other threads share the
// same results' elements with them. A power of 2 up to a warp.
struct AcrossPlan {
  Walk<kReductionOperands> kept;
  Walk<1> folded;
  int64_t results;
  Parts parts;
  int32_t lanes;
  Divisor tiles;  // of lanes * kVector results

  QUAVER_LAYOUT_FUNCTION int64_t blocks() const { return tiles.divisor * parts.count.divisor; }
};

// A state goes to its result or, if it is of a part, to [part, result] of the parts' states.
template <class Plan, class Operation>
__device__ __forceinline__ void finish(const Plan& plan, const Operation& operation, int64_t result, int64_t part,
                                       const typename Operation::State& state) {
  if (plan.parts.count.divisor > 1) {
    operation.parts[part * plan.results + result] = state;
    return;
  }
  int64_t offset[kReductionOperands] = {};
  plan.kept.add_offsets(result, offset);
  operation.result.write(offset[kResult], state);
}

// What stands for an element that is not there, zero, changes no range and no sum.
template <class Operation, int kVector>
__device__ __forceinline__ void take_all(const Operation& operation,
                                         const Vector<typename Operation::Element, kVector> (&vectors)[kUnroll],
                                         typename Operation::State& state) {
#pragma unroll
  for (int u = 0; u < kUnroll; ++u)
#pragma unroll
    for (int i = 0; i < kVector; ++i) operation.take(state, vectors[u].get(i));
}

// Of one run, `steps` whole vectors from `first_step` on, as far as they go; with the first ones its two ends.
template <int kVector, class Operation>
__device__ __forceinline__ void take_run(const Operation& operation, const typename Operation::Element* data,
                                         int64_t length, int64_t first_step, int64_t steps, int lane, int threads,
                                         typename Operation::State& state) {
  using Element = typename Operation::Element;
  const int64_t head = min(int64_t{(kVector - misalignment<kVector>(data)) % kVector}, length);
  const int64_t whole = (length - head) / kVector;
  const Element* body = data + head;
  if (first_step == 0) {
    for (int i = lane; i < head; i += threads) operation.take(state, data[i]);
    for (int64_t i = whole * kVector + lane; i < length - head; i += threads) operation.take(state, body[i]);
  }
  const int64_t end = min(first_step + steps, whole);
  const Element* from = body + (first_step + lane) * kVector;
  for (int64_t step = first_step + lane; step < end; step += kUnroll * threads) {
    Vector<Element, kVector> vectors[kUnroll] = {};
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (u == 0 || step + u * threads < end) vectors[u] = load_vector<kVector>(from);
      from += threads * kVector;
    }
    take_all(operation, vectors, state);
  }
}

// Of several runs.
template <int kVector, class Operation>
__device__ __forceinline__ void take_runs(const Operation& operation, const Runs<1>& runs,
                                          const typename Operation::Element* data, int64_t first_step, int steps,
                                          int lane, int threads, typename Operation::State& state) {
  using Element = typename Operation::Element;
  const BlockOfVectors<1, kVector, Element> block(runs, data, 0, first_step);
  for (int step = lane; step < steps; step += kUnroll * threads) {
    Vector<Element, kVector> vectors[kUnroll] = {};
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (u > 0 && step + u * threads >= steps) continue;
      const Span<1> span = block.span_of_many_runs(step + u * threads);
      vectors[u] = load_span<kVector>(data + span.offset[0], span.count);
    }
    take_all(operation, vectors, state);
  }
}

// An operation has
//   Element, State         state.cuh
//   kOneRun                whether a result's elements are always one run, where they are neighbours
//   data                   device: the elements, read once
//   parts                  device [parts, results]: states of parts, if there are any
//   take(state, element)
//   result                 with write(offset, state)
template <int kVector, class Operation>
__global__ void __launch_bounds__(kThreads) reduce_along_kernel(const AlongPlan plan, const Operation operation) {
  using State = typename Operation::State;
  const int lane = threadIdx.x % plan.threads;
  const int64_t pieces = plan.results * plan.parts.count.divisor;
  const int at_once = kThreads / plan.threads;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * at_once; first < pieces;
       first += static_cast<int64_t>(gridDim.x) * at_once) {
    const int64_t piece = first + threadIdx.x / plan.threads;
    const int64_t result = plan.parts.count.quotient(piece);
    const int64_t part = piece - result * plan.parts.count.divisor;
    State state;
    if (piece < pieces) {
      int64_t offset[kReductionOperands] = {};
      plan.kept.add_offsets(result, offset);
      const auto* data = operation.data + offset[kReduced];
      const int64_t first_step = part * plan.parts.share;
      const int64_t steps = min(plan.parts.share, plan.parts.total - first_step);
      if (Operation::kOneRun || plan.folded.runs == 1) {
        take_run<kVector>(operation, data, plan.folded.length, first_step, steps, lane, plan.threads, state);
      } else {
        take_runs<kVector>(operation, plan.folded, data, first_step, static_cast<int>(steps), lane, plan.threads,
                           state);
      }
    }
    join_threads(state, plan.threads);
    if (lane == 0 && piece < pieces) finish(plan, operation, result, part, state);
  }
}

// kVector neighbouring elements belong to as many results; 1 for any strides.
//   shared memory   smem_state: [kWarps][kVector][kPitch]. Warps write lane by lane; threads read result by result,
//                   whose kVector rows kPitch sets apart so that a warp's reads meet no bank twice.
template <int kVector, class Operation>
__global__ void __launch_bounds__(kThreads) reduce_across_kernel(const AcrossPlan plan, const Operation operation) {
  using Element = typename Operation::Element;
  using State = typename Operation::State;
  constexpr int kPitch = kLanes + 128 / sizeof(State) / kVector;
  __shared__ State smem_state[kWarps][kVector][kPitch];
  const int warp = threadIdx.x / kLanes;
  const int lane = threadIdx.x % plan.lanes;
  const int rows = kThreads / plan.lanes;  // of elements that are read together
  const int64_t pieces = plan.blocks();
  for (int64_t piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
    const int64_t part = plan.tiles.quotient(piece);
    const int64_t first_result = (piece - part * plan.tiles.divisor) * plan.lanes * kVector;
    const int64_t end = min((part + 1) * plan.parts.share, plan.parts.total);
    State states[kVector];
    if (first_result + lane * kVector < plan.results) {
      int64_t offset[kReductionOperands] = {};
      plan.kept.add_offsets(first_result + lane * kVector, offset);
      const Element* data = operation.data + offset[kReduced];
      for (int64_t row = part * plan.parts.share + threadIdx.x / plan.lanes; row < end; row += kUnroll * rows) {
        Vector<Element, kVector> vectors[kUnroll] = {};
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          if (u > 0 && row + u * rows >= end) continue;
          int64_t away[1] = {};
          plan.folded.add_offsets(row + u * rows, away);
          vectors[u] = load_vector<kVector>(data + away[0]);
        }
#pragma unroll
        for (int u = 0; u < kUnroll; ++u)
#pragma unroll
          for (int i = 0; i < kVector; ++i) operation.take(states[i], vectors[u].get(i));
      }
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      join_lanes(states[i], plan.lanes, kLanes);
      if (threadIdx.x % kLanes == lane) smem_state[warp][i][lane] = states[i];
    }
    __syncthreads();
    const int columns = static_cast<int>(min(int64_t{plan.lanes * kVector}, plan.results - first_result));
    for (int column = threadIdx.x; column < columns; column += kThreads) {
      State state;
      for (int w = 0; w < kWarps; ++w) state.join(smem_state[w][column % kVector][column / kVector]);
      finish(plan, operation, first_result + column, part, state);
    }
    __syncthreads();  // before the next piece's states overwrite these
  }
}

// The smallest power of 2 that is not less, up to `most`, which is one.
inline int32_t power_of_2(int64_t least, int32_t most) {
  int32_t power = 1;
  while (power < most && power < least) power *= 2;
  return power;
}

inline AlongPlan plan_along(const SplitReduction& loops, int vector) {
  const Runs<1> folded(loops.folded.of({kReduced}), vector);
  const int64_t results = loops.kept.numel();
  // A vector for each thread of a warp, and only then more for each thread.
  const int64_t vectors = loops.folded.numel() / vector;
  const int32_t threads = vectors <= kLanes ? power_of_2(vectors, kLanes) : power_of_2(vectors / kUnroll, kThreads);
  const int64_t blocks = threads == kThreads ? results : kEnoughBlocks;
  return {Walk<kReductionOperands>(loops.kept), folded, results, Parts(folded.vectors(), blocks, kUnroll * kThreads),
          threads};
}

inline int64_t tiles_of(int64_t results, int64_t width) { return (results + width - 1) / width; }

inline AcrossPlan plan_across(const SplitReduction& loops, int vector, int32_t lanes, const Parts& parts) {
  const int64_t results = loops.kept.numel();
  return {Walk<kReductionOperands>(loops.kept),      Walk<1>(loops.folded.of({kReduced})), results, parts, lanes,
          Divisor(tiles_of(results, lanes * vector))};
}

inline AcrossPlan plan_across(const SplitReduction& loops, int vector, int32_t lanes) {
  const int64_t rows = kThreads / lanes;
  const int64_t tiles = tiles_of(loops.kept.numel(), lanes * vector);
  return plan_across(loops, vector, lanes, Parts(loops.folded.numel(), tiles, 2 * kUnroll * rows));
}

// Whether vectors of neighbouring results can be read: the innermost loop is theirs, and every vector is aligned.
template <class T>
bool has_vectors_across(const ReductionNest& nest, const T* data, int vector) {
  if (nest.loops == 0) return false;
  const int inner = nest.loops - 1;
  if (nest.stride[inner][kResult] == 0 || nest.stride[inner][kReduced] != 1 || nest.size[inner] % vector != 0)
    return false;
  for (int loop = 0; loop < inner; ++loop)
    if (nest.stride[loop][kReduced] % vector != 0) return false;
  return reinterpret_cast<uint64_t>(data) % (vector * sizeof(T)) == 0;
}

// How a reduction runs: vectors along a result, vectors across results, or elements.
template <class T>
struct ReductionChoice {
  static constexpr int kVector = kWidest<T>;
  SplitReduction loops;
  bool along;
  bool across;

  ReductionChoice(const ReductionNest& nest, const T* data)
      : loops(split(nest)),
        along(nest.loops > 0 && nest.stride[nest.loops - 1][kResult] == 0 &&
              has_runs(loops.folded.of({kReduced}), kVector)),
        across(!along && has_vectors_across(nest, data, kVector)) {}

  AlongPlan along_plan() const { return plan_along(loops, kVector); }

  AcrossPlan across_plan() const {
    if (across) return plan_across(loops, kVector, power_of_2(inner_size(loops.kept) / kVector, kLanes));
    // Threads that many elements do not need are better side by side.
    const int32_t threads = power_of_2(loops.folded.numel(), kThreads);
    const bool neighbours =
        loops.kept.loops > 0 &&
        (loops.folded.loops == 0 || inner_stride(loops.kept, kReduced) < inner_stride(loops.folded, kReduced));
    const int32_t lanes = neighbours ? kLanes : std::min<int32_t>(kThreads / threads, kLanes);
    return plan_across(loops, 1, std::min(lanes, power_of_2(loops.kept.numel(), kLanes)));
  }

  // The states of parts that a launch writes, 0 for none.
  int64_t partial_states() const {
    const Parts parts = along ? along_plan().parts : across_plan().parts;
    const int64_t count = parts.count.divisor;
    return count > 1 ? count * loops.kept.numel() : 0;
  }
};

// An operation on the states of parts.
template <class PartState, class PartResult>
struct JoinParts {
  using Element = PartState;
  using State = PartState;
  const PartState* __restrict__ data;
  PartState* parts;  // none
  PartResult result;

  __device__ __forceinline__ void take(State& state, const Element& part) const { state.join(part); }
};

template <class Operation>
cudaError_t join_parts(const SplitReduction& loops, int64_t parts, const Operation& operation, cudaStream_t stream) {
  SplitReduction states;
  const int64_t results = loops.kept.numel();
  int64_t step = results;
  for (int loop = 0; loop < loops.kept.loops; ++loop) {
    step /= loops.kept.size[loop];
    states.kept.push(loops.kept.size[loop], {step, loops.kept.stride[loop][kResult]});
  }
  states.folded.push(parts, {results, 0});
  const AcrossPlan plan = plan_across(states, 1, power_of_2(results, kLanes), Parts(parts));
  const JoinParts<typename Operation::State, decltype(operation.result)> join{operation.parts, nullptr,
                                                                              operation.result};
  reduce_across_kernel<1><<<grid_for(plan.blocks()), kThreads, 0, stream>>>(plan, join);
  return cudaGetLastError();
}

template <class Operation>
cudaError_t launch_reduction(const ReductionNest& nest, const Operation& operation, cudaStream_t stream) {
  using Choice = ReductionChoice<typename Operation::Element>;
  const Choice choice(nest, operation.data);
  int64_t parts = 1;
  if (choice.along) {
    const AlongPlan plan = choice.along_plan();
    parts = plan.parts.count.divisor;
    reduce_along_kernel<Choice::kVector><<<grid_for(plan.blocks()), kThreads, 0, stream>>>(plan, operation);
  } else {
    const AcrossPlan plan = choice.across_plan();
    parts = plan.parts.count.divisor;
    if (choice.across) {
      reduce_across_kernel<Choice::kVector><<<grid_for(plan.blocks()), kThreads, 0, stream>>>(plan, operation);
    } else {
      reduce_across_kernel<1><<<grid_for(plan.blocks()), kThreads, 0, stream>>>(plan, operation);
    }
  }
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess || parts == 1) return error;
  return join_parts(choice.loops, parts, operation, stream);
}

}  // namespace quaver
