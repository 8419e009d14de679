// philox.h: the random numbers of ARITHMETIC.md (2), mode "stochastic", for host and device: a function of seed and
// element, with no state. No torch header.
#pragma once

#include "arith.h"

namespace quaver {

struct PhiloxWords {
  uint32_t word[4];
};

// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
QUAVER_FUNCTION PhiloxWords philox(PhiloxWords counter, uint32_t key_low, uint32_t key_high) {
  constexpr int kRounds = 10;
  constexpr uint64_t kFirstFactor = 0xD2511F53u;
  constexpr uint64_t kSecondFactor = 0xCD9E8D57u;
  constexpr uint32_t kKeyLowStep = 0x9E3779B9u;   // the golden ratio
  constexpr uint32_t kKeyHighStep = 0xBB67AE85u;  // the square root of 3
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t first = kFirstFactor * counter.word[0];
    const uint64_t second = kSecondFactor * counter.word[2];
    counter = {{static_cast<uint32_t>(second >> 32) ^ counter.word[1] ^ key_low, static_cast<uint32_t>(second),
                static_cast<uint32_t>(first >> 32) ^ counter.word[3] ^ key_high, static_cast<uint32_t>(first)}};
    key_low += kKeyLowStep;
    key_high += kKeyHighStep;
  }
  return counter;
}

// The words of elements 4 * number to 4 * number + 3.
QUAVER_FUNCTION PhiloxWords words_of_four(uint64_t number, int64_t seed) {
  const uint64_t key = static_cast<uint64_t>(seed);
  return philox({{static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32), 0, 0}},
                static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32));
}

// A multiple of 2^-24 in [0, 1).
QUAVER_FUNCTION float uniform_of(uint32_t word) {
  constexpr float kStep = 5.96046448e-08f;  // 2^-24
  return multiply(static_cast<float>(static_cast<int32_t>(word >> 8)), kStep);
}

}  // namespace quaver
