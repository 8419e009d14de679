// philox.h: the random numbers of ARITHMETIC.md (2), mode "stochastic", for host and device: a function of seed and
// element, with no state. No torch header.
#pragma once

#include "arith.h"

namespace quaver {

struct PhiloxWords {
  uint32_t word[4];
};

struct PhiloxKey {
  uint32_t low;
  uint32_t high;
};

inline constexpr int kPhiloxRounds = 10;

QUAVER_FUNCTION PhiloxWords philox_round(PhiloxWords counter, PhiloxKey key) {
  const uint64_t first = uint64_t{0xD2511F53u} * counter.word[0];
  const uint64_t second = uint64_t{0xCD9E8D57u} * counter.word[2];
  return {{static_cast<uint32_t>(second >> 32) ^ counter.word[1] ^ key.low, static_cast<uint32_t>(second),
           static_cast<uint32_t>(first >> 32) ^ counter.word[3] ^ key.high, static_cast<uint32_t>(first)}};
}

// Steps of the golden ratio and of the square root of 3.
QUAVER_FUNCTION PhiloxKey next_key(PhiloxKey key) { return {key.low + 0x9E3779B9u, key.high + 0xBB67AE85u}; }

// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
QUAVER_FUNCTION PhiloxWords philox(PhiloxWords counter, PhiloxKey key) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    counter = philox_round(counter, key);
    key = next_key(key);
  }
  return counter;
}

QUAVER_FUNCTION PhiloxKey key_of(int64_t seed) {
  const uint64_t bits = static_cast<uint64_t>(seed);
  return {static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32)};
}

QUAVER_FUNCTION PhiloxWords counter_of_four(uint64_t number) {
  return {{static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32), 0, 0}};
}

// The words of elements 4 * number to 4 * number + 3.
QUAVER_FUNCTION PhiloxWords words_of_four(uint64_t number, int64_t seed) {
  return philox(counter_of_four(number), key_of(seed));
}

// A multiple of 2^-24 in [0, 1).
QUAVER_FUNCTION float uniform_of(uint32_t word) {
  constexpr float kStep = 5.96046448e-08f;  // 2^-24
  return multiply(static_cast<float>(static_cast<int32_t>(word >> 8)), kStep);
}

}  // namespace quaver
