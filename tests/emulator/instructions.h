// instructions.h: what generated instruction functions are made of: access to memory by all lanes of a warp, and the
// arithmetic that C++ has no operator for. The generated code is isa.py's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "machine.h"

namespace emulator {

template <class To, class From>
inline To bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}

enum class Space { kGlobal, kShared, kLocal, kParam, kGeneric };

template <Space kSpace>
inline bool load_bytes(Warp& warp, int lane, uint64_t address, int size, void* value) {
  if constexpr (kSpace == Space::kGlobal) return load_global(warp, lane, address, size, value);
  if constexpr (kSpace == Space::kShared) return load_shared(warp, lane, address, size, value);
  if constexpr (kSpace == Space::kLocal) return load_local(warp, lane, address, size, value);
  if constexpr (kSpace == Space::kParam) return load_param(warp, lane, address, size, value);
  return load_generic(warp, lane, address, size, value);
}

template <Space kSpace>
inline bool store_bytes(Warp& warp, int lane, uint64_t address, int size, const void* value) {
  static_assert(kSpace != Space::kParam);
  if constexpr (kSpace == Space::kGlobal) return store_global(warp, lane, address, size, value);
  if constexpr (kSpace == Space::kShared) return store_shared(warp, lane, address, size, value);
  if constexpr (kSpace == Space::kLocal) return store_local(warp, lane, address, size, value);
  return store_generic(warp, lane, address, size, value);
}

template <Space kSpace>
inline void count_access(Warp& warp, const uint64_t (&address)[kLanes], int size) {
  if constexpr (kSpace == Space::kGlobal) count_global(warp, address, size);
  if constexpr (kSpace == Space::kShared) count_shared(warp, address, size);
}

// Integer min and max, and shifts that are defined past the width.
template <class T>
inline T shift_left(T a, uint32_t n) {
  return n >= 8 * sizeof(T) ? T{0} : static_cast<T>(a << n);
}
template <class T>
inline T shift_right(T a, uint32_t n) {
  if (n >= 8 * sizeof(T)) return std::is_signed_v<T> && a < 0 ? static_cast<T>(-1) : T{0};
  return static_cast<T>(a >> n);
}

// Division by zero gives all ones, as on hardware; the smallest integer over -1 wraps.
template <class T>
inline T divide_integers(T a, T b) {
  if (b == 0) return static_cast<T>(~T{0});
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(a));
  return static_cast<T>(a / b);
}
template <class T>
inline T remainder_of_integers(T a, T b) {
  if (b == 0) return a;
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return 0;
  return static_cast<T>(a % b);
}

// min and max of floats: a number beats NaN, and -0 is smaller than +0. Two NaNs give the canonical one.
template <class T>
inline T canonical_nan();
template <>
inline float canonical_nan<float>() {
  return bits<float>(0x7FFFFFFFu);
}
template <>
inline double canonical_nan<double>() {
  return bits<double>(0x7FFFFFFFFFFFFFFFull);
}

template <class T>
inline T smaller_float(T a, T b) {
  if (std::isnan(a)) return std::isnan(b) ? canonical_nan<T>() : b;
  if (std::isnan(b)) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
template <class T>
inline T larger_float(T a, T b) {
  if (std::isnan(a)) return std::isnan(b) ? canonical_nan<T>() : b;
  if (std::isnan(b)) return a;
  if (a == b) return std::signbit(a) ? b : a;
  return a > b ? a : b;
}

// PTX leaves a NaN's bits open for f32; hardware gives this one. Those of f64 are passed on.
inline float canonical(float value) { return std::isnan(value) ? canonical_nan<float>() : value; }
inline double canonical(double value) { return value; }

// .sat of a float: between +0 and 1, NaN gives +0.
template <class T>
inline T within_unit(T value) {
  return value > 0 ? (value < 1 ? value : T{1}) : T{0};
}

// Float to integer, with the rounding done before: saturates.
template <class To, class From>
inline To to_integer(From rounded, To nan) {
  if (std::isnan(rounded)) return nan;
  const From lowest = static_cast<From>(std::numeric_limits<To>::min());
  const From beyond = std::ldexp(From{1}, std::numeric_limits<To>::digits);
  if (rounded < lowest) return std::numeric_limits<To>::min();
  if (rounded >= beyond) return std::numeric_limits<To>::max();
  return static_cast<To>(rounded);
}

// Integer to a narrower one with .sat.
template <class To, class From>
inline To saturate(From value) {
  if (static_cast<__int128>(value) < static_cast<__int128>(std::numeric_limits<To>::min()))
    return std::numeric_limits<To>::min();
  if (static_cast<__int128>(value) > static_cast<__int128>(std::numeric_limits<To>::max()))
    return std::numeric_limits<To>::max();
  return static_cast<To>(value);
}

enum class Round { kN, kZ, kM, kP };  // to nearest even, toward zero, -infinity, +infinity

// The bits of `value` in a format of `kExponent` and `kMantissa` bits. A long double holds every float and 64-bit
// integer.
template <int kExponent, int kMantissa>
inline uint32_t round_to_format(long double value, Round round) {
  constexpr int kBias = (1 << (kExponent - 1)) - 1;
  constexpr uint32_t kInfinity = ((1u << kExponent) - 1) << kMantissa;
  constexpr uint32_t kSign = 1u << (kExponent + kMantissa);
  if (std::isnan(value)) return kSign - 1;
  const bool negative = std::signbit(value);
  const uint32_t sign = negative ? kSign : 0;
  const long double size = std::fabs(value);
  if (size == 0) return sign;
  if (std::isinf(size)) return sign | kInfinity;
  const bool away = round == (negative ? Round::kM : Round::kP);
  int exponent = 0;
  std::frexp(size, &exponent);
  const int unit = std::max(exponent - 1, 1 - kBias) - kMantissa;  // the last place's power of two
  const long double exact = std::ldexp(size, -unit);
  const long double steps = round == Round::kN ? std::nearbyint(exact) : away ? std::ceil(exact) : std::floor(exact);
  // The leading one carries into the exponent's field, which is therefore counted from one less.
  const int field = unit + kMantissa + kBias - 1;
  if (field >= (1 << kExponent)) return sign | (round == Round::kN || away ? kInfinity : kInfinity - 1);
  const uint32_t bits = (static_cast<uint32_t>(field) << kMantissa) + static_cast<uint32_t>(steps);
  if (bits < kInfinity) return sign | bits;
  return sign | (round == Round::kN || away ? kInfinity : kInfinity - 1);
}

struct Half {
  static float widen(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const int exponent = half >> 10 & 31;
    const uint32_t mantissa = half & 0x3FF;
    if (exponent == 31) return bits<float>(sign | 0x7F800000u | mantissa << 13);
    const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                     : std::ldexp(static_cast<float>(mantissa | 0x400), exponent - 25);
    return sign ? -size : size;
  }
  static uint16_t narrow(double value) { return static_cast<uint16_t>(round_to_format<5, 10>(value, Round::kN)); }
};

struct Bfloat16 {
  static float widen(uint16_t a) { return bits<float>(static_cast<uint32_t>(a) << 16); }
  static uint16_t narrow(double value) { return static_cast<uint16_t>(round_to_format<8, 7>(value, Round::kN)); }
};

// The sum with its last bit set where it is not exact, so that rounding it once more, to fewer bits, is right.
inline double add_to_odd(double a, double b) {
  const double sum = a + b;
  if (!std::isfinite(sum)) return sum;
  const double part = sum - a;
  const double error = (a - (sum - part)) + (b - part);
  if (error == 0 || (bits<uint64_t>(sum) & 1)) return sum;
  return std::nextafter(sum, error > 0 ? HUGE_VAL : -HUGE_VAL);
}

// Arithmetic of short floats: exact in double but for sums, which are rounded to odd; then rounded once.
template <class F>
inline uint16_t short_fma(uint16_t a, uint16_t b, uint16_t c) {
  return F::narrow(add_to_odd(static_cast<double>(F::widen(a)) * F::widen(b), F::widen(c)));
}
template <class F>
inline uint16_t short_add(uint16_t a, uint16_t b) {
  return F::narrow(add_to_odd(F::widen(a), F::widen(b)));
}
template <class F>
inline uint16_t short_sub(uint16_t a, uint16_t b) {
  return F::narrow(add_to_odd(F::widen(a), -static_cast<double>(F::widen(b))));
}
template <class F>
inline uint16_t short_mul(uint16_t a, uint16_t b) {
  return F::narrow(static_cast<double>(F::widen(a)) * F::widen(b));
}
template <class F>
inline uint16_t short_min(uint16_t a, uint16_t b) {
  return F::narrow(smaller_float(F::widen(a), F::widen(b)));
}
template <class F>
inline uint16_t short_max(uint16_t a, uint16_t b) {
  return F::narrow(larger_float(F::widen(a), F::widen(b)));
}

// An operation on both halves of registers.
template <class Operation, class... T>
inline uint32_t pairwise(Operation operation, T... values) {
  const uint32_t lower = operation(static_cast<uint16_t>(values)...);
  return lower | static_cast<uint32_t>(operation(static_cast<uint16_t>(values >> 16)...)) << 16;
}

// dp4a: four products of bytes, signed or not.
template <class A, class B>
inline uint32_t dot_bytes(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 4; ++i)
    c += static_cast<uint32_t>(static_cast<int32_t>(static_cast<A>(a >> 8 * i)) *
                               static_cast<int32_t>(static_cast<B>(b >> 8 * i)));
  return c;
}

inline uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t choice = selector >> 4 * i & 0xF;
    uint32_t byte = both >> 8 * (choice & 7) & 0xFF;
    if (choice & 8) byte = byte & 0x80 ? 0xFF : 0;
    result |= byte << 8 * i;
  }
  return result;
}

inline uint32_t logic3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
  uint32_t result = 0;
  if (table & 0x01) result |= ~a & ~b & ~c;
  if (table & 0x02) result |= ~a & ~b & c;
  if (table & 0x04) result |= ~a & b & ~c;
  if (table & 0x08) result |= ~a & b & c;
  if (table & 0x10) result |= a & ~b & ~c;
  if (table & 0x20) result |= a & ~b & c;
  if (table & 0x40) result |= a & b & ~c;
  if (table & 0x80) result |= a & b & c;
  return result;
}

template <class T>
inline T extract_bits(T a, uint32_t position, uint32_t length) {
  using U = std::make_unsigned_t<T>;
  constexpr uint32_t kWidth = 8 * sizeof(T);
  position &= 0xFF;
  length &= 0xFF;
  if (length == 0) return 0;
  const uint32_t last = std::min(position + length - 1, kWidth - 1);
  const bool sign = std::is_signed_v<T> && (static_cast<U>(a) >> last & 1);
  U result = 0;
  for (uint32_t i = 0; i < kWidth; ++i) {
    const bool bit = i < length && position + i < kWidth ? static_cast<U>(a) >> (position + i) & 1 : sign;
    result |= static_cast<U>(bit) << i;
  }
  return static_cast<T>(result);
}

template <class T>
inline T insert_bits(T a, T b, uint32_t position, uint32_t length) {
  constexpr uint32_t kWidth = 8 * sizeof(T);
  position &= 0xFF;
  length &= 0xFF;
  for (uint32_t i = 0; i < length && position + i < kWidth; ++i) {
    const T at = T{1} << (position + i);
    b = (b & ~at) | ((a >> i & 1) ? at : T{0});
  }
  return b;
}

// The highest bit that is not a copy of the sign, from below or (`kShift`) as a shift to the top; none: all ones.
template <bool kShift, class T>
inline uint32_t find_bit(T a) {
  using U = std::make_unsigned_t<T>;
  const U value = std::is_signed_v<T> && a < 0 ? static_cast<U>(~a) : static_cast<U>(a);
  for (int i = 8 * sizeof(T) - 1; i >= 0; --i)
    if (value >> i & 1) return kShift ? 8 * sizeof(T) - 1 - i : i;
  return kAllLanes;
}

template <class T>
inline T reverse_bits(T a) {
  T result = 0;
  for (size_t i = 0; i < 8 * sizeof(T); ++i) result = result << 1 | (a >> i & 1);
  return result;
}

// atom.add.f32 on global memory flushes denormals, on shared memory it does not. PTX ISA, atom.
inline float flushed(float value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value;
}
inline float add_in_memory(float a, float b, bool global) {
  return global ? canonical(flushed(flushed(a) + flushed(b))) : canonical(a + b);
}
inline double add_in_memory(double a, double b, bool) { return a + b; }

// Reads, changes and writes one value in one step; gives what it read.
template <Space kSpace, class T, class Change>
inline T update(Warp& warp, int lane, uint64_t address, Change change) {
  const bool shared = kSpace == Space::kShared || (kSpace == Space::kGeneric && address >= kSharedWindow);
  if (kSpace == Space::kGeneric && shared) address -= kSharedWindow;
  void* const at =
      shared ? atomic_shared(warp, lane, address, sizeof(T)) : atomic_global(warp, lane, address, sizeof(T));
  T before{};
  if (at == nullptr) return before;
  std::memcpy(&before, at, sizeof before);
  const T after = change(before, !shared);
  std::memcpy(at, &after, sizeof after);
  return before;
}

// Lanes that work together: each must be in its own mask, and nobody in the mask may be missing.
inline void check_members(Warp& warp, const uint32_t (&members)[kLanes]) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    if (!(members[lane] >> lane & 1)) {
      warp.machine->report("divergent warp", warp, lane, 0, "the lane is not in its own mask of members");
    } else if ((members[lane] & warp.alive & ~warp.mask) != 0) {
      warp.machine->report("divergent warp", warp, lane, 0, "a lane of the mask takes no part");
    }
  }
}

enum class Shuffle { kUp, kDown, kBfly, kIdx };

// PTX ISA, shfl.sync: `limits` has the clamp in bits 0 to 4 and the mask of segments in bits 8 to 12.
template <Shuffle kMode>
inline uint32_t shuffle(Warp& warp, const uint32_t (&value)[kLanes], const uint32_t (&by)[kLanes],
                        const uint32_t (&limits)[kLanes], const uint32_t (&members)[kLanes],
                        uint32_t (&result)[kLanes]) {
  check_members(warp, members);
  uint32_t in_range = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    const int step = by[lane] & 31;
    const int clamp = limits[lane] & 31;
    const int segment = limits[lane] >> 8 & 31;
    const int lowest = lane & segment;
    const int limit = lowest | (clamp & ~segment);
    int from = lane;
    if (kMode == Shuffle::kUp) from = lane - step;
    if (kMode == Shuffle::kDown) from = lane + step;
    if (kMode == Shuffle::kBfly) from = lane ^ step;
    if (kMode == Shuffle::kIdx) from = lowest | (step & ~segment);
    const bool inside = kMode == Shuffle::kUp ? from >= limit : from <= limit;
    if (!inside) from = lane;
    if (!(warp.mask & members[lane] & 1u << from))
      warp.machine->report("divergent warp", warp, lane, 0,
                           "reads lane " + std::to_string(from) + ", which takes no part");
    result[lane] = value[from];
    in_range |= static_cast<uint32_t>(inside) << lane;
  }
  return in_range;
}

// One value of all lanes in the mask, for each lane.
template <class T, class Combine>
inline void reduce(Warp& warp, const T (&value)[kLanes], const uint32_t (&members)[kLanes], T (&result)[kLanes],
                   Combine combine) {
  check_members(warp, members);
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    bool first = true;
    for (int other = 0; other < kLanes; ++other) {
      if (!(warp.mask & members[lane] & 1u << other)) continue;
      result[lane] = first ? value[other] : static_cast<T>(combine(result[lane], value[other]));
      first = false;
    }
  }
}

}  // namespace emulator
