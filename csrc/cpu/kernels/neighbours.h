// neighbours.h: elements anywhere in memory as neighbours in a small room and back, in a type that loops compute on: so
// that one loop serves all strides and vectorizes. No torch header.
#pragma once

#include <type_traits>

#include "cpu/kernels/half.h"
#include "cpu/kernels/stream.h"

namespace quaver {

// So many elements are brought together at once: few enough that the next ones are read while these are written.
inline constexpr int64_t kChunk = 256;

// What a loop computes on in T's place: float, in place of float16, whose conversion would take most of the time.
template <class T>
using Lane = std::conditional_t<std::is_same_v<T, Float16>, float, T>;

template <class T>
inline constexpr bool kIsLane = std::is_same_v<T, Lane<T>>;

// n <= kChunk elements as neighbours: where they are, if their stride is 1, or in `room`.
template <class T>
inline __attribute__((always_inline)) const T* bring(const T* __restrict from, int64_t stride, int64_t n,
                                                     T* __restrict room) {
  if (stride == 1) return from;
  if (stride == 0) {
    for (int64_t i = 0; i < n; ++i) room[i] = *from;
  } else {
    for (int64_t i = 0; i < n; ++i) room[i] = from[i * stride];
  }
  return room;
}

// The same as lanes.
template <class T, int kWidth>
inline __attribute__((always_inline)) const Lane<T>* bring_lanes(const T* from, int64_t stride, int64_t n,
                                                                 Lane<T>* room, Fused<kWidth> fused) {
  if constexpr (kIsLane<T>) {
    return bring(from, stride, n, room);
  } else {
    T narrow[kChunk];
    widen_half(bring(from, stride, n, narrow), n, room, fused);
    return room;
  }
}

// n <= kChunk neighbours to where they belong.
template <class T>
inline __attribute__((always_inline)) void take(const T* __restrict room, int64_t n, T* __restrict to, int64_t stride,
                                                bool streams) {
  if (streams) return stream(room, n * static_cast<int64_t>(sizeof(T)), to);
  for (int64_t i = 0; i < n; ++i) to[i * stride] = room[i];
}

// The same of lanes.
template <class T, int kWidth>
inline __attribute__((always_inline)) void take_lanes(const Lane<T>* room, int64_t n, T* to, int64_t stride,
                                                      bool streams, Fused<kWidth> fused) {
  if constexpr (kIsLane<T>) {
    take(room, n, to, stride, streams);
  } else {
    if (stride == 1 && !streams) return narrow_half(room, n, to, fused);
    T narrow[kChunk];
    narrow_half(room, n, narrow, fused);
    take(narrow, n, to, stride, streams);
  }
}

}  // namespace quaver
