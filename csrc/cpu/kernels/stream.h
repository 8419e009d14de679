// stream.h: large tensors' way between memory and a core: what is read is asked for early, and results that are too
// many to be in a cache still when somebody reads them go past it, by stores that need not first read what they
// overwrite. No torch header.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "layout.h"

namespace quaver {

inline constexpr int64_t kLine = 64;

// More bytes than the caches that are a core's own hold.
inline constexpr int64_t kFarBytes = int64_t{4} << 20;

// More bytes than a core's share of any last cache. Streaming 64 MB halves the time of dequantize; streaming 16 MB
// costs quantize a tenth, where the last cache is large (Xeon with 300 MB).
inline constexpr int64_t kStreamedBytes = int64_t{48} << 20;

// Asks for what stands a page behind n elements that are read now.
template <class T>
inline __attribute__((always_inline)) void fetch_ahead(const T* place, int64_t n) {
  constexpr uintptr_t kAhead = 4096;
  const uintptr_t first = reinterpret_cast<uintptr_t>(place) + kAhead;
  for (uintptr_t at = first; at < first + n * sizeof(T); at += kLine)
    __builtin_prefetch(reinterpret_cast<const void*>(at));
}

// How many elements of its line stand before one.
template <class T>
int64_t past_line(const T* place) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(place) % kLine / sizeof(T));
}

#if defined(__x86_64__)
inline constexpr bool kCanStream = true;

// Copies what was made in a room to where it belongs.
inline void stream(const void* from, int64_t bytes, void* to) {
  const char* source = static_cast<const char*>(from);
  char* target = static_cast<char*>(to);
  const int64_t head = std::min((kLine - past_line(target)) % kLine, bytes);
  std::memcpy(target, source, head);
  int64_t at = head;
  for (; at + kLine <= bytes; at += kLine)
    for (int64_t part = at; part < at + kLine; part += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(target + part),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + part)));
  std::memcpy(target + at, source + at, bytes - at);
}

// Before another thread may read what was streamed.
inline void finish_streams() { _mm_sfence(); }
#else
inline constexpr bool kCanStream = false;
inline void stream(const void* from, int64_t bytes, void* to) { std::memcpy(to, from, bytes); }
inline void finish_streams() {}
#endif

// Whether an operand's elements are to be streamed: many, in runs of many lines.
template <int kOperands>
bool worth_streaming(const LoopNest<kOperands>& nest, int operand, int64_t element_size) {
  if (!kCanStream || nest.loops == 0 || nest.stride[nest.loops - 1][operand] != 1) return false;
  return nest.size[nest.loops - 1] * element_size >= 4 * kLine && nest.numel() * element_size >= kStreamedBytes;
}

}  // namespace quaver
