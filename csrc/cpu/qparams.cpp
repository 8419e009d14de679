// qparams.cpp: choose_qparams on the CPU, the first stage: float tensor to scale and zero point of each block.
#include "cpu/kernels/qparams.h"

#include <vector>

#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "prepare.h"

namespace quaver {
namespace {

// The loop to share among threads: the longest, and of equal ones the outermost that is not folded.
int loop_to_share(const ReductionNest& nest) {
  int best = 0;
  for (int loop = 1; loop < nest.loops; ++loop) {
    const bool longer = nest.size[loop] > nest.size[best];
    const bool kept_instead = nest.size[loop] == nest.size[best] && nest.stride[best][kResult] == 0;
    if (longer || kept_instead) best = loop;
  }
  return best;
}

// The part of a reduction whose shared loop runs over [begin, end).
QparamsArguments part_of(const QparamsArguments& whole, int loop, int64_t begin, int64_t end, int64_t element_size) {
  QparamsArguments part = whole;
  part.nest.size[loop] = end - begin;
  part.x = static_cast<const char*>(whole.x) + begin * whole.nest.stride[loop][kReduced] * element_size;
  return part;
}

// Ranges of all blocks, [lo, hi] with lo <= 0 <= hi.
void find_ranges(const QparamsArguments& arguments, int64_t element_size, std::vector<float>& lo,
                 std::vector<float>& hi) {
  const ReductionNest& nest = arguments.nest;
  if (nest.loops == 0) return widen_ranges(arguments, lo.data(), hi.data());
  const int loop = loop_to_share(nest);
  const int64_t rounds = nest.size[loop];
  const int64_t per_round = nest.numel() / rounds;
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t grain = std::max((rounds + threads - 1) / threads, kElementsPerThread / per_round + 1);
  const int64_t parts = (rounds + grain - 1) / grain;
  const int64_t block_step = nest.stride[loop][kResult];

  if (block_step != 0) {  // each part has blocks of its own
    torch::stable::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
      const int64_t begin = first * grain;
      const int64_t end = std::min(last * grain, rounds);
      widen_ranges(part_of(arguments, loop, begin, end, element_size), lo.data() + begin * block_step,
                   hi.data() + begin * block_step);
    });
    return;
  }
  const size_t blocks = lo.size();
  std::vector<float> lows(parts * blocks), highs(parts * blocks);
  torch::stable::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part)
      widen_ranges(part_of(arguments, loop, part * grain, std::min((part + 1) * grain, rounds), element_size),
                   lows.data() + part * blocks, highs.data() + part * blocks);
  });
  for (int64_t part = 0; part < parts; ++part) {
    for (size_t block = 0; block < blocks; ++block) {
      lo[block] = smaller(lows[part * blocks + block], lo[block]);
      hi[block] = larger(highs[part * blocks + block], hi[block]);
    }
  }
}

}  // namespace

void choose_qparams_cpu(const QparamsArguments& arguments) {
  std::vector<float> lo(arguments.blocks), hi(arguments.blocks);
  const int64_t element_size = arguments.x_type == FloatType::kFloat32 ? 4 : 2;
  if (arguments.nest.numel() > 0) find_ranges(arguments, element_size, lo, hi);
  for (int64_t block = 0; block < arguments.blocks; ++block) {
    const ScaleAndZeroPoint chosen =
        choose_qparams(lo[block], hi[block], arguments.symmetric, arguments.range, arguments.eps);
    arguments.scale[block] = chosen.scale;
    arguments.zero_point[block] = chosen.zero_point;
  }
}

namespace {

std::tuple<Tensor, Tensor> choose_qparams_op(const Tensor& x, Shape scale_shape, bool symmetric, ScalarType dtype,
                                             std::optional<int64_t> q_min, std::optional<int64_t> q_max,
                                             std::optional<double> eps) {
  Tensor scale, zero_point;
  choose_qparams_cpu(
      prepare_choose_qparams(x, scale_shape, symmetric, dtype, q_min, q_max, eps, nullptr, scale, zero_point));
  return {scale, zero_point};
}

}  // namespace
}  // namespace quaver

STABLE_TORCH_LIBRARY_IMPL(quaver, CPU, m) { m.impl("choose_qparams", TORCH_BOX(&quaver::choose_qparams_op)); }
