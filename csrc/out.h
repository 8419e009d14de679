// out.h: ops that write tensors they are given, `quantize.out` beside `quantize`: both forms of an op from one
// function, and what is asked of such a tensor.
#pragma once

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "checks.h"

namespace quaver {

// What a call brings to be written. An op's function takes a pointer to it, null in the form that makes its results.
template <size_t kCount>
using Outs = std::array<Tensor, kCount>;

template <size_t kCount>
const Tensor* out_at(const Outs<kCount>* given, size_t index) {
  return given == nullptr ? nullptr : &(*given)[index];
}

template <class Function>
struct FormsOf;

template <class Result, size_t kCount, class... Arguments>
struct FormsOf<Result (*)(const Outs<kCount>*, Arguments...)> {
  using Function = Result (*)(const Outs<kCount>*, Arguments...);
  using Indices = std::make_index_sequence<kCount>;

  template <size_t>
  using Out = const Tensor&;

  template <Function function>
  static Result plain(Arguments... arguments) {
    return function(nullptr, arguments...);
  }

  template <Function function, size_t... kIndex>
  static Result out(Arguments... arguments, Out<kIndex>... outs) {
    const Outs<kCount> given{outs...};
    return function(&given, arguments...);
  }

  template <Function function, class Library, size_t... kIndex>
  static void implement(Library& library, const std::string& name, std::index_sequence<kIndex...>) {
    library.impl(name.c_str(), TORCH_BOX((&plain<function>)));
    library.impl((name + ".out").c_str(), TORCH_BOX((&out<function, kIndex...>)));
  }
};

// Registers both forms of an op.
template <auto function, class Library>
void implement(Library& library, const char* name) {
  using Forms = FormsOf<decltype(function)>;
  Forms::template implement<function>(library, name, typename Forms::Indices{});
}

// A tensor of a call by its name; none where an optional one was not given.
struct Named {
  const char* name;
  const Tensor* tensor;

  Named(const char* name, const Tensor& tensor) : name(name), tensor(&tensor) {}
  Named(const char* name, const OptionalTensor& tensor) : name(name), tensor(tensor ? &*tensor : nullptr) {}
};

// What an op reads. The first leads it: results are on its device.
using Reads = std::initializer_list<Named>;

// Whether each element surely has a place of its own: no dimension steps into what smaller strides reach.
inline bool has_places(const Tensor& tensor) {
  if (tensor.numel() == 0) return true;
  std::vector<std::pair<int64_t, int64_t>> steps;  // (stride, size)
  for (int64_t dim = 0; dim < tensor.dim(); ++dim)
    if (tensor.size(dim) > 1) steps.emplace_back(tensor.stride(dim), tensor.size(dim));
  std::sort(steps.begin(), steps.end());
  int64_t extent = 1;
  for (const auto& [stride, size] : steps) {
    if (stride < extent) return false;
    extent += (size - 1) * stride;
  }
  return true;
}

// The bytes from a tensor's first element to its last: [begin, end). For comparisons: nothing is read there.
inline std::pair<const char*, const char*> span_of(const Tensor& tensor) {
  int64_t last = 0;
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) last += (tensor.size(dim) - 1) * tensor.stride(dim);
  const char* begin = static_cast<const char*>(tensor.data_ptr());
  return {begin, begin + (last + 1) * static_cast<int64_t>(tensor.element_size())};
}

// Views that lie between each other's elements count, too: nobody needs an op from one to the other.
inline bool share_memory(const Tensor& one, const Tensor& other) {
  if (one.numel() == 0 || other.numel() == 0) return false;
  const auto [begin, end] = span_of(one);
  const auto [other_begin, other_end] = span_of(other);
  return begin < other_end && other_begin < end;
}

inline Shape strides_of(const Tensor& tensor) {
  const auto strides = tensor.strides();
  return Shape(strides.begin(), strides.end());
}

// Whether images [N, C, H, W] lie pixel by pixel, each with its channels side by side.
inline bool is_channels_last(const Tensor& images) {
  if (images.numel() == 0) return true;
  int64_t extent = 1;
  for (const int64_t dim : {1, 3, 2, 0}) {
    if (images.size(dim) > 1 && images.stride(dim) != extent) return false;
    extent *= images.size(dim);
  }
  return true;
}

enum class Layout { kAnyStrides, kContiguous, kImages };

// A tensor to be written must be what the op would have made; where its elements are is, within `layout`, its own
// affair.
inline void check_out(const char* op, const char* name, const Tensor& out, const Shape& shape, ScalarType type,
                      Layout layout, const Reads& reads) {
  check_companion(op, name, out, type, reads.begin()->name, *reads.begin()->tensor);
  QUAVER_CHECK(shape_of(out) == shape, op, name, " must have the shape ", to_words(shape), ", got ",
               to_words(shape_of(out)));
  if (layout == Layout::kContiguous) {
    QUAVER_CHECK(out.is_contiguous(), op, name, " must be contiguous, got the strides ", to_words(strides_of(out)));
  } else if (layout == Layout::kImages) {
    QUAVER_CHECK(out.is_contiguous() || is_channels_last(out), op, name,
                 " must be contiguous or channels_last, got the strides ", to_words(strides_of(out)));
  } else {
    QUAVER_CHECK(has_places(out), op, name, " must have a place for each of its elements, got the strides ",
                 to_words(strides_of(out)), " for the shape ", to_words(shape));
  }
  for (const Named& read : reads)
    QUAVER_CHECK(read.tensor == nullptr || !share_memory(out, *read.tensor), op, name, " must not share memory with ",
                 read.name);
}

}  // namespace quaver
