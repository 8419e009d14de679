// multiply_amx.h: a block of rows by a panel with AMX's tiles, while the results of the block before are stored. No
// torch header.
//
// A tile of 16 rows and 64 codes of a times a half of a panel's step (panels.h) is one instruction of 16 cycles, in
// which the rest of a core is free: so the epilogue of the block before is done row by row in between.
//   tiles   0 to 3 sums of 32 rows and 32 columns, 4 and 5 codes of a, 6 and 7 codes of b
//   reads   a and b at 64 bytes for each cycle of the four products of a step: b from the first cache while it fits
#pragma once

#if defined(__x86_64__)

#include "cpu/kernels/epilogue.h"
#include "cpu/kernels/stream.h"

namespace quaver {

#define QUAVER_AMX \
  QUAVER_TARGET("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512,amx-tile,amx-int8")

// Tiles of 16 rows of 64 bytes, as long as it lives.
class AmxTiles {
 public:
  QUAVER_AMX AmxTiles() {
    Config config;
    for (int tile = 0; tile < 8; ++tile) {
      config.row_bytes[tile] = 64;
      config.rows[tile] = 16;
    }
    asm volatile("" ::"m"(config));  // the intrinsic tells of its first 8 bytes only
    _tile_loadconfig(&config);
  }
  QUAVER_AMX ~AmxTiles() { _tile_release(); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

 private:
  struct alignas(64) Config {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
};

#define QUAVER_TILE_PRODUCT(sum, a, b)                                    \
  if constexpr (std::is_same_v<A, int8_t> && std::is_same_v<B, int8_t>) { \
    _tile_dpbssd(sum, a, b);                                              \
  } else if constexpr (std::is_same_v<A, int8_t>) {                       \
    _tile_dpbsud(sum, a, b);                                              \
  } else if constexpr (std::is_same_v<B, int8_t>) {                       \
    _tile_dpbusd(sum, a, b);                                              \
  } else {                                                                \
    _tile_dpbuud(sum, a, b);                                              \
  }

// acc = a x panel; all of a's 16 kRowTiles rows are read. Stored, made of `pending`, has a function row(i) that stores
// one.
template <class A, class B, int kRowTiles, class Stored>
QUAVER_AMX void multiply_tiles(const BlockOfRows& a, const uint8_t* panel, int64_t steps, const StoredBlock& pending,
                               BlockSums& acc) {
  Stored stored(pending);
  const int each = steps == 0 ? stored.rows : static_cast<int>((stored.rows + steps - 1) / steps);
  const uint8_t* from = a.codes;
  int row = 0;
  asm volatile("" ::: "memory");  // the intrinsics do not tell what memory they read and write
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kRowTiles == 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t step = 0; step < steps; ++step, from += Panel::kStepCodes, panel += Panel::kStepBytes) {
    _tile_loadd(4, from, a.stride);
    _tile_loadd(6, panel, Panel::kStepCodes);
    QUAVER_TILE_PRODUCT(0, 4, 6);
    _tile_loadd(7, panel + Panel::kHalfBytes, Panel::kStepCodes);
    QUAVER_TILE_PRODUCT(1, 4, 7);
    if constexpr (kRowTiles == 1) fetch_ahead(panel, Panel::kStepBytes);  // few rows wait for b's memory
    if constexpr (kRowTiles == 2) {
      _tile_loadd(5, from + 16 * a.stride, a.stride);
      QUAVER_TILE_PRODUCT(2, 5, 6);
      QUAVER_TILE_PRODUCT(3, 5, 7);
    }
    for (const int end = std::min(row + each, stored.rows); row < end; ++row) stored.row(row);
  }
  for (; row < stored.rows; ++row) stored.row(row);
  _tile_stored(0, acc[0], sizeof acc[0]);
  _tile_stored(1, acc[0] + Panel::kHalf, sizeof acc[0]);
  if constexpr (kRowTiles == 2) {
    _tile_stored(2, acc[16], sizeof acc[0]);
    _tile_stored(3, acc[16] + Panel::kHalf, sizeof acc[0]);
  }
  asm volatile("" ::: "memory");
}

#undef QUAVER_TILE_PRODUCT

}  // namespace quaver

#endif
