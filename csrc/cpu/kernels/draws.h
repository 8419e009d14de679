// draws.h: a random number for each element, ARITHMETIC.md (2), mode "stochastic"; the modes' choice. No torch header.
#pragma once

#include "cpu/kernels/elementwise.h"
#include "philox.h"

namespace quaver {

// Numbers of neighbours in the order of the nest, made by fours as they come.
class Draws {
 public:
  static constexpr int64_t kMost = 256;

  QUAVER_FUNCTION explicit Draws(int64_t seed) : seed_(seed) {}

  // For elements [first, first + n).
  QUAVER_FUNCTION void draw(int64_t first, int64_t n) {
    const int64_t four = first / 4;
    before_ = first - 4 * four;
    const int64_t fours = (before_ + n + 3) / 4;
    for (int64_t i = 0; i < fours; ++i) {
      const PhiloxWords words = words_of_four(four + i, seed_);
      for (int j = 0; j < 4; ++j) uniform_[4 * i + j] = uniform_of(words.word[j]);
    }
  }

  QUAVER_FUNCTION float operator[](int64_t i) const { return uniform_[before_ + i]; }

 private:
  int64_t seed_;
  int64_t before_ = 0;        // the first element's place in its four
  float uniform_[kMost + 8];  // of whole fours
};

template <QuantizeMode kMode>
using DrawsOf = std::conditional_t<kMode == QuantizeMode::kStochastic, Draws, NoDraws>;

template <QuantizeMode kConstant>
struct ModeTag {
  static constexpr QuantizeMode kMode = kConstant;
};

template <class Body>
void with_mode(QuantizeMode mode, const Body& body) {
  switch (mode) {
    case QuantizeMode::kOnnx:
      return body(ModeTag<QuantizeMode::kOnnx>{});
    case QuantizeMode::kAffine:
      return body(ModeTag<QuantizeMode::kAffine>{});
    case QuantizeMode::kReciprocal:
      return body(ModeTag<QuantizeMode::kReciprocal>{});
    case QuantizeMode::kStochastic:
      return body(ModeTag<QuantizeMode::kStochastic>{});
  }
}

}  // namespace quaver
