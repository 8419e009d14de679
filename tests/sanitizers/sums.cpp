// sums.cpp: a few kernels over numbers that bring them to their ends. Compiled as they are it succeeds; with a line of
// theirs made wrong, a sanitizer ends it.
#include <cstdint>
#include <vector>

#include "cpu/kernels/panels.h"
#include "cpu/kernels/sum_codes.h"

namespace quaver {
CpuCapability cpu_capability() { return CpuCapability::kPortable; }
}  // namespace quaver

int main() {
  const std::vector<int8_t> codes(37, 1);
  if (quaver::sum_run(codes.data(), 1, 37) != 37) return 1;

  // K is longer than any product's here, and int8_prepack takes it: sums wrap.
  const std::vector<uint8_t> half(quaver::Panel::kHalfBytes, 255);
  std::vector<int32_t> sum(quaver::Panel::kHalf, INT32_MAX);
  quaver::add_sums<uint8_t>(half.data(), sum.data());
  return sum[0] == INT32_MIN + (64 * 255 - 1) ? 0 : 2;
}
