// emulated.h: AVX-512, VNNI and AMX for machines that have none of them, included before every other header.
//
// What the CPU kernels use of them stands here in plain C++, an instruction in a line or two after Intel's own
// pseudo-code, and takes the intrinsics' names. The rest is compiled for AVX2, which the machine must have. Aligned
// loads look whether they are, tiles whether they are configured, and lanes that a mask leaves out are not touched.
#pragma once

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulated {

inline void need(bool what, const char* words) {
  if (what) return;
  std::fprintf(stderr, "emulated instructions: %s\n", words);
  std::abort();
}

// A vector as its lanes.
template <class T, class V>
struct Lanes {
  static constexpr int kCount = sizeof(V) / sizeof(T);
  T lane[kCount];
};

template <class T, class V>
inline Lanes<T, V> lanes(V vector) {
  return std::bit_cast<Lanes<T, V>>(vector);
}

// The vector whose lane i of type T is lane(i).
template <class V, class T, class F>
inline V make(const F& lane) {
  Lanes<T, V> result;
  for (int i = 0; i < result.kCount; ++i) result.lane[i] = static_cast<T>(lane(i));
  return std::bit_cast<V>(result);
}

// The vector of f of the lanes of vectors like it.
template <class T, class F, class V, class... Vs>
inline V each(const F& f, V first, Vs... others) {
  const auto a = lanes<T>(first);
  return make<V, T>([&](int i) { return f(a.lane[i], lanes<T>(others).lane[i]...); });
}

inline bool has(uint32_t mask, int lane) { return mask >> lane & 1; }

template <class T, class V>
inline V select(uint32_t mask, V chosen, V other) {
  const auto a = lanes<T>(chosen), b = lanes<T>(other);
  return make<V, T>([&](int i) { return has(mask, i) ? a.lane[i] : b.lane[i]; });
}

template <class V, class T>
inline V masked_load(uint32_t mask, const void* from) {
  return make<V, T>([&](int i) {
    T value{};
    if (has(mask, i)) std::memcpy(&value, static_cast<const T*>(from) + i, sizeof value);
    return value;
  });
}

template <class T, class V>
inline void masked_store(void* to, uint32_t mask, V vector) {
  const auto a = lanes<T>(vector);
  for (int i = 0; i < a.kCount; ++i)
    if (has(mask, i)) std::memcpy(static_cast<T*>(to) + i, &a.lane[i], sizeof(T));
}

template <class V>
inline V load(const void* from) {
  V vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class V>
inline V aligned_load(const void* from) {
  need(reinterpret_cast<uintptr_t>(from) % sizeof(V) == 0, "an aligned load of what is not aligned");
  return load<V>(from);
}

inline void store(void* to, __m512i vector) { std::memcpy(to, &vector, sizeof vector); }

template <class T, class V, class S>
inline V same(S value) {
  return make<V, T>([&](int) { return value; });
}

// Integers

inline __m512i setr_epi32(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j, int k, int l, int m,
                          int n, int o, int p) {
  const int32_t all[16] = {a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p};
  return load<__m512i>(all);
}
inline __m512i add_epi32(__m512i a, __m512i b) {
  return each<uint32_t>([](uint32_t x, uint32_t y) { return x + y; }, a, b);
}
inline __m512i sub_epi32(__m512i a, __m512i b) {
  return each<uint32_t>([](uint32_t x, uint32_t y) { return x - y; }, a, b);
}
inline __m512i mullo_epi32(__m512i a, __m512i b) {
  return each<uint32_t>([](uint32_t x, uint32_t y) { return x * y; }, a, b);
}
inline __m512i srli_epi32(__m512i a, unsigned count) {
  return each<uint32_t>([&](uint32_t x) { return count < 32 ? x >> count : 0; }, a);
}
inline __m512i and_si512(__m512i a, __m512i b) {
  return each<uint64_t>([](uint64_t x, uint64_t y) { return x & y; }, a, b);
}
inline __m512i xor_si512(__m512i a, __m512i b) {
  return each<uint64_t>([](uint64_t x, uint64_t y) { return x ^ y; }, a, b);
}

template <class From>
inline __m512i widen_to_16(__m256i codes) {
  const auto a = lanes<From>(codes);
  return make<__m512i, int16_t>([&](int i) { return a.lane[i]; });
}
template <class T, class V>
inline V low_parts_of_32(__m512i vector) {
  const auto a = lanes<uint32_t>(vector);
  return make<V, T>([&](int i) { return a.lane[i]; });
}

inline __m512i madd_epi16(__m512i a, __m512i b) {
  const auto x = lanes<int16_t>(a), y = lanes<int16_t>(b);
  return make<__m512i, uint32_t>([&](int i) {
    const auto product = [&](int j) { return static_cast<uint32_t>(int32_t{x.lane[j]} * int32_t{y.lane[j]}); };
    return product(2 * i) + product(2 * i + 1);
  });
}
inline __m512i maddubs_epi16(__m512i a, __m512i b) {
  const auto x = lanes<uint8_t>(a);
  const auto y = lanes<int8_t>(b);
  return make<__m512i, int16_t>([&](int i) {
    const int sum = x.lane[2 * i] * y.lane[2 * i] + x.lane[2 * i + 1] * y.lane[2 * i + 1];
    return sum < INT16_MIN ? INT16_MIN : sum > INT16_MAX ? INT16_MAX : sum;
  });
}
template <class A, class B>
inline uint32_t product_of_fours(const A* a, const B* b) {
  int32_t sum = 0;
  for (int i = 0; i < 4; ++i) sum += int32_t{a[i]} * int32_t{b[i]};
  return static_cast<uint32_t>(sum);
}
template <class V>
inline V dpbusd(V sum, V a, V b) {
  const auto start = lanes<uint32_t>(sum);
  const auto x = lanes<uint8_t>(a);
  const auto y = lanes<int8_t>(b);
  return make<V, uint32_t>([&](int i) { return start.lane[i] + product_of_fours(x.lane + 4 * i, y.lane + 4 * i); });
}

// Orders of lanes

inline __m512i permutex2var_epi32(__m512i a, __m512i index, __m512i b) {
  const auto x = lanes<int32_t>(a), y = lanes<int32_t>(b);
  return each<int32_t>([&](int32_t i) { return (i & 16 ? y : x).lane[i & 15]; }, index);
}
inline __m512i shuffle_i32x4(__m512i a, __m512i b, int quarters) {
  const auto x = lanes<int32_t>(a), y = lanes<int32_t>(b);
  return make<__m512i, int32_t>([&](int i) {
    const int from = (quarters >> i / 4 * 2 & 3) * 4 + i % 4;
    return (i < 8 ? x : y).lane[from];
  });
}
// Within quarters: the first or second half of a's lanes and b's, by turns.
template <class T>
inline __m512i unpack(__m512i a, __m512i b, bool second) {
  constexpr int kQuarter = 16 / sizeof(T);
  const auto x = lanes<T>(a), y = lanes<T>(b);
  return make<__m512i, T>([&](int i) {
    const int from = i / kQuarter * kQuarter + i % kQuarter / 2 + (second ? kQuarter / 2 : 0);
    return (i % 2 ? y : x).lane[from];
  });
}

// Floats

inline __m512 add_ps(__m512 a, __m512 b) {
  return each<float>([](float x, float y) { return x + y; }, a, b);
}
inline __m512 mul_ps(__m512 a, __m512 b) {
  return each<float>([](float x, float y) { return x * y; }, a, b);
}
inline __m512 div_ps(__m512 a, __m512 b) {
  return each<float>([](float x, float y) { return x / y; }, a, b);
}
inline __m512 max_ps(__m512 a, __m512 b) {
  return each<float>([](float x, float y) { return x > y ? x : y; }, a, b);
}
inline __m512 min_ps(__m512 a, __m512 b) {
  return each<float>([](float x, float y) { return x < y ? x : y; }, a, b);
}
inline __m512 fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return each<float>([](float x, float y, float z) { return std::fma(x, y, z); }, a, b, c);
}
inline __m512 fnmadd_ps(__m512 a, __m512 b, __m512 c) {
  return each<float>([](float x, float y, float z) { return std::fma(-x, y, z); }, a, b, c);
}
inline __mmask16 cmp_ps_mask(__m512 a, __m512 b, int predicate) {
  const auto x = lanes<float>(a), y = lanes<float>(b);
  uint32_t mask = 0;
  for (int i = 0; i < x.kCount; ++i) {
    const bool unordered = std::isnan(x.lane[i]) || std::isnan(y.lane[i]);
    bool holds = false;
    switch (predicate) {
      case _CMP_LT_OQ:
        holds = x.lane[i] < y.lane[i];
        break;
      case _CMP_LE_OQ:
        holds = x.lane[i] <= y.lane[i];
        break;
      case _CMP_GT_OQ:
        holds = x.lane[i] > y.lane[i];
        break;
      case _CMP_ORD_Q:
        holds = !unordered;
        break;
      case _CMP_UNORD_Q:
        holds = unordered;
        break;
      default:
        need(false, "a comparison that is not emulated");
    }
    mask |= uint32_t{holds} << i;
  }
  return static_cast<__mmask16>(mask);
}
inline __m512 cvtepi32_ps(__m512i vector) {
  const auto a = lanes<int32_t>(vector);
  return make<__m512, float>([&](int i) { return a.lane[i]; });
}
inline void need_nearest(int rounding) {
  need((rounding & ~_MM_FROUND_NO_EXC) == _MM_FROUND_TO_NEAREST_INT, "a rounding that is not emulated");
}
inline __m512i cvt_roundps_epi32(__m512 vector, int rounding) {
  need_nearest(rounding);
  const auto a = lanes<float>(vector);
  return make<__m512i, int32_t>([&](int i) {
    const float whole = std::nearbyint(a.lane[i]);
    return -0x1p31f <= whole && whole < 0x1p31f ? static_cast<int32_t>(whole) : INT32_MIN;
  });
}
inline __m256i maskz_cvtps_ph(__mmask16 mask, __m512 vector, int rounding) {
  need_nearest(rounding);
  const auto a = lanes<float>(vector);
  return make<__m256i, uint16_t>(
      [&](int i) { return has(mask, i) ? _cvtss_sh(a.lane[i], _MM_FROUND_TO_NEAREST_INT) : 0; });
}
inline __m512 maskz_cvtph_ps(__mmask16 mask, __m256i vector) {
  const auto a = lanes<uint16_t>(vector);
  return make<__m512, float>([&](int i) { return has(mask, i) ? _cvtsh_ss(a.lane[i]) : 0.0f; });
}

// Tiles: 16 rows of 64 bytes.

using Tile = uint8_t[16][64];
inline thread_local Tile tiles[8];
inline thread_local bool configured = false;

inline Tile& tile(int number) {
  need(configured, "a tile that is not configured");
  return tiles[number];
}
inline void tile_loadconfig(const void* config) {
  const auto* bytes = static_cast<const uint8_t*>(config);
  need(bytes[0] == 1, "a palette that is not emulated");
  for (int i = 0; i < 8; ++i) {
    uint16_t row_bytes;
    std::memcpy(&row_bytes, bytes + 16 + 2 * i, sizeof row_bytes);
    need(row_bytes == 64 && bytes[48 + i] == 16, "tiles that are not emulated");
  }
  configured = true;
}
inline void tile_release() { configured = false; }
inline void tile_zero(int to) { std::memset(tile(to), 0, sizeof(Tile)); }
inline void tile_load(int to, const void* from, int64_t stride) {
  for (int row = 0; row < 16; ++row) std::memcpy(tile(to)[row], static_cast<const char*>(from) + row * stride, 64);
}
inline void tile_store(int from, void* to, int64_t stride) {
  for (int row = 0; row < 16; ++row) std::memcpy(static_cast<char*>(to) + row * stride, tile(from)[row], 64);
}
// A row of b has fours of codes of each column.
template <class A, class B>
inline void tile_product(int sum, int a, int b) {
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 16; ++column) {
      uint32_t value;
      std::memcpy(&value, tile(sum)[row] + 4 * column, sizeof value);
      for (int four = 0; four < 16; ++four)
        value += product_of_fours(reinterpret_cast<const A*>(tile(a)[row]) + 4 * four,
                                  reinterpret_cast<const B*>(tile(b)[four]) + 4 * column);
      std::memcpy(tile(sum)[row] + 4 * column, &value, sizeof value);
    }
  }
}

}  // namespace emulated

// In the compiler's names. Some of them are macros.

#define QUAVER_TARGET(names)
#define __builtin_cpu_supports(name) true
#define syscall(...) 0  // asks Linux for tiles

#undef _mm512_cmp_ps_mask
#undef _mm512_cvt_roundps_epi32
#undef _mm512_cvtps_ph
#undef _mm512_maskz_cvtps_ph
#undef _mm512_setr_epi32
#undef _mm512_shuffle_i32x4
#undef _mm512_srli_epi32
#undef _tile_dpbssd
#undef _tile_dpbsud
#undef _tile_dpbusd
#undef _tile_dpbuud
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero

#define _mm512_add_epi32 emulated::add_epi32
#define _mm512_add_ps emulated::add_ps
#define _mm512_and_si512 emulated::and_si512
#define _mm512_castps_si512(v) std::bit_cast<__m512i>(v)
#define _mm512_cmp_ps_mask emulated::cmp_ps_mask
#define _mm512_cvt_roundps_epi32 emulated::cvt_roundps_epi32
#define _mm512_cvtepi32_epi16 emulated::low_parts_of_32<uint16_t, __m256i>
#define _mm512_cvtepi32_epi8 emulated::low_parts_of_32<uint8_t, __m128i>
#define _mm512_cvtepi32_ps emulated::cvtepi32_ps
#define _mm512_cvtepi8_epi16 emulated::widen_to_16<int8_t>
#define _mm512_cvtepu8_epi16 emulated::widen_to_16<uint8_t>
#define _mm512_cvtps_ph(v, rounding) emulated::maskz_cvtps_ph(0xFFFF, v, rounding)
#define _mm512_div_ps emulated::div_ps
#define _mm512_dpbusd_epi32 emulated::dpbusd<__m512i>
#define _mm512_fmadd_ps emulated::fmadd_ps
#define _mm512_fnmadd_ps emulated::fnmadd_ps
#define _mm512_load_ps emulated::aligned_load<__m512>
#define _mm512_load_si512 emulated::aligned_load<__m512i>
#define _mm512_loadu_si512 emulated::load<__m512i>
#define _mm512_madd_epi16 emulated::madd_epi16
#define _mm512_maddubs_epi16 emulated::maddubs_epi16
#define _mm512_mask_mov_epi32(other, mask, v) emulated::select<uint32_t>(mask, v, other)
#define _mm512_mask_mov_ps(other, mask, v) emulated::select<float>(mask, v, other)
#define _mm512_mask_storeu_epi32 emulated::masked_store<uint32_t, __m512i>
#define _mm512_mask_storeu_ps emulated::masked_store<float, __m512>
#define _mm512_maskz_cvtph_ps emulated::maskz_cvtph_ps
#define _mm512_maskz_cvtps_ph emulated::maskz_cvtps_ph
#define _mm512_maskz_loadu_ps emulated::masked_load<__m512, float>
#define _mm512_maskz_mov_ps(mask, v) emulated::select<float>(mask, v, _mm512_setzero_ps())
#define _mm512_max_ps emulated::max_ps
#define _mm512_min_ps emulated::min_ps
#define _mm512_mul_ps emulated::mul_ps
#define _mm512_mullo_epi32 emulated::mullo_epi32
#define _mm512_permutex2var_epi32 emulated::permutex2var_epi32
#define _mm512_set1_epi16 emulated::same<int16_t, __m512i>
#define _mm512_set1_epi32 emulated::same<int32_t, __m512i>
#define _mm512_set1_epi8 emulated::same<int8_t, __m512i>
#define _mm512_set1_ps emulated::same<float, __m512>
#define _mm512_setr_epi32 emulated::setr_epi32
#define _mm512_setzero_ps() emulated::same<float, __m512>(0.0f)
#define _mm512_shuffle_i32x4 emulated::shuffle_i32x4
#define _mm512_srli_epi32 emulated::srli_epi32
#define _mm512_storeu_si512 emulated::store
#define _mm512_sub_epi32 emulated::sub_epi32
#define _mm512_unpackhi_epi32(a, b) emulated::unpack<uint32_t>(a, b, true)
#define _mm512_unpackhi_epi64(a, b) emulated::unpack<uint64_t>(a, b, true)
#define _mm512_unpacklo_epi32(a, b) emulated::unpack<uint32_t>(a, b, false)
#define _mm512_unpacklo_epi64(a, b) emulated::unpack<uint64_t>(a, b, false)
#define _mm512_xor_si512 emulated::xor_si512

#define _mm256_dpbusd_avx_epi32 emulated::dpbusd<__m256i>
#define _mm256_mask_mov_epi16(other, mask, v) emulated::select<uint16_t>(mask, v, other)
#define _mm256_mask_storeu_epi16 emulated::masked_store<uint16_t, __m256i>
#define _mm256_maskz_loadu_epi16 emulated::masked_load<__m256i, uint16_t>
#define _mm_mask_storeu_epi8 emulated::masked_store<uint8_t, __m128i>

#define _tile_dpbssd emulated::tile_product<int8_t, int8_t>
#define _tile_dpbsud emulated::tile_product<int8_t, uint8_t>
#define _tile_dpbusd emulated::tile_product<uint8_t, int8_t>
#define _tile_dpbuud emulated::tile_product<uint8_t, uint8_t>
#define _tile_loadconfig emulated::tile_loadconfig
#define _tile_loadd emulated::tile_load
#define _tile_release emulated::tile_release
#define _tile_stored emulated::tile_store
#define _tile_zero emulated::tile_zero
