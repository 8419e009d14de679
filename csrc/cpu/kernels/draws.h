// draws.h: a random number for each element, ARITHMETIC.md (2), mode "stochastic"; the modes' choice. No torch header.
#pragma once

#include "cpu/kernels/elementwise.h"
#include "philox.h"

namespace quaver {

// Numbers of neighbours in the order of the nest, made by fours as they come: round by round for all of them, so that
// a round is a loop that vectorizes.
class Draws {
 public:
  static constexpr int64_t kMost = 256;

  QUAVER_FUNCTION explicit Draws(int64_t seed) : seed_(seed) {}

  // For elements [first, first + n).
  QUAVER_FUNCTION void draw(int64_t first, int64_t n) {
    const int64_t four = first / 4;
    before_ = first - 4 * four;
    const int64_t fours = (before_ + n + 3) / 4;
    uint32_t word[4][kMostFours];
    for (int64_t i = 0; i < fours; ++i) put(counter_of_four(four + i), word, i);
    PhiloxKey key = key_of(seed_);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      for (int64_t i = 0; i < fours; ++i)
        put(philox_round({{word[0][i], word[1][i], word[2][i], word[3][i]}}, key), word, i);
      key = next_key(key);
    }
    for (int64_t i = 0; i < fours; ++i)
      for (int j = 0; j < 4; ++j) uniform_[4 * i + j] = uniform_of(word[j][i]);
  }

  QUAVER_FUNCTION float operator[](int64_t i) const { return uniform_[before_ + i]; }

 private:
  static constexpr int64_t kMostFours = kMost / 4 + 2;

  static QUAVER_FUNCTION void put(PhiloxWords words, uint32_t (&word)[4][kMostFours], int64_t i) {
    for (int j = 0; j < 4; ++j) word[j][i] = words.word[j];
  }

  int64_t seed_;
  int64_t before_ = 0;             // the first element's place in its four
  float uniform_[4 * kMostFours];  // of whole fours
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
