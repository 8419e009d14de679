// depthwise.h: a convolution whose groups have one channel of x each, in blocks of up to 32 pixels and 32 channels of
// the result, with the matmul's epilogue. No torch header.
//
// Along K there is a code for each tap and no more: nothing for products of fours to share. Pixels have their channels
// side by side, so that the loops over channels are vectors; padded taps are left out, which is what zeros would add.
#pragma once

#include "cpu/kernels/matmul.h"

namespace quaver {

// The weight as 16-bit numbers: [panel of 32 channels of the result][tap][channel], zeros beyond the last channel.
struct DepthwiseWeight {
  int64_t taps;
  std::unique_ptr<int16_t[]> codes;

  explicit DepthwiseWeight(const Conv2dProblem& conv)
      : taps(conv.kernel[0] * conv.kernel[1]),
        codes(new int16_t[Panel::count(channels_of(conv)) * taps * Panel::kColumns]()) {
    const int8_t* const from = static_cast<const int8_t*>(conv.weight.data);
    for (int64_t channel = 0; channel < channels_of(conv); ++channel)
      for (int64_t tap = 0; tap < taps; ++tap)
        codes[(channel / Panel::kColumns * taps + tap) * Panel::kColumns + channel % Panel::kColumns] =
            from[channel * conv.weight.image_stride + tap / conv.kernel[1] * conv.weight.stride[0] +
                 tap % conv.kernel[1] * conv.weight.stride[1]];
  }

  static int64_t channels_of(const Conv2dProblem& conv) { return conv.groups * conv.product.n; }
  const int16_t* panel(int64_t number) const { return codes.get() + number * taps * Panel::kColumns; }
};

// The same results as one product whose columns are all channels, and whose sums have taken off the zero point already.
inline MatmulProblem depthwise_product(const Conv2dProblem& conv) {
  MatmulProblem product = conv.product;
  product.n = DepthwiseWeight::channels_of(conv);
  product.batch_dims = 0;
  product.a_zero_point = {};
  return product;
}

// A task is a panel of channels of a line of the result; panels are fastest.
class DepthwiseThread {
 public:
  DepthwiseThread(const Conv2dProblem& conv, const DepthwiseWeight& weight, const MatmulProblem& product, int32_t zero)
      : conv_(conv), weight_(weight), product_(product), zero_(zero), loops_(product), scatter_(product, conv.places) {
    const BatchIndex none = {};
    gather(product.a_scale, none, 0, kBlockRows, 1.0f, rows_.scale);
  }

  static int64_t tasks(const Conv2dProblem& conv) {
    return conv.images * conv.out_size[0] * Panel::count(DepthwiseWeight::channels_of(conv));
  }
  static int64_t grain(const Conv2dProblem& conv) {
    constexpr int64_t kProductsPerThread = 1 << 18;
    const int64_t products = conv.out_size[1] * conv.kernel[0] * conv.kernel[1] * Panel::kColumns;
    return std::max<int64_t>(kProductsPerThread / std::max<int64_t>(products, 1), 1);
  }

  void run(int64_t begin, int64_t end) {
    const int64_t panels = Panel::count(product_.n);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t panel = task % panels;
      const int64_t line = task / panels;
      const BatchIndex none = {};
      gather_columns(product_, none, panel * Panel::kColumns, nullptr, columns_);
      for (int64_t first = 0; first < conv_.out_size[1]; first += kBlockRows) {
        const int pixels = static_cast<int>(std::min<int64_t>(conv_.out_size[1] - first, kBlockRows));
        with_type(product_.a_type,
                  [&](auto tag) { multiply<typename decltype(tag)::type>(panel, line, first, pixels); });
        const BlockPlace place{0, line * conv_.out_size[1] + first, columns_.first};
        const auto [out, pitch] = scatter_.target(place, 0);
        const StoredBlock block{&product_, &columns_, &rows_, &sums_, out, pitch, pixels};
        loops_.store(block);
        scatter_.finish(block, place);
      }
    }
  }

 private:
  const Conv2dProblem& conv_;
  const DepthwiseWeight& weight_;
  const MatmulProblem& product_;
  const int32_t zero_;
  const MatmulLoops loops_;
  const Scatter scatter_;
  ColumnValues columns_;
  RowValues rows_ = {};
  alignas(64) BlockSums sums_;

  struct Taps {
    int64_t begin;
    int64_t end;
  };

  // The taps that lie inside of a line of `size` pixels where the first lies at `first`. Most have all of them.
  static Taps taps_inside(int64_t first, int64_t dilation, int64_t kernel, int64_t size) {
    if (first >= 0 && first + (kernel - 1) * dilation < size) return {0, kernel};
    const int64_t begin = first >= 0 ? 0 : (-first + dilation - 1) / dilation;
    const int64_t end = first >= size ? 0 : (size - first + dilation - 1) / dilation;
    return {begin, std::min(kernel, end)};
  }

  // Sums of pixels [first, first + pixels) of a line of the result, and a panel of its channels.
  template <class Code>
  void multiply(int64_t panel, int64_t line, int64_t first, int pixels) {
    const int64_t each = conv_.product.n;  // channels of the result for one of x
    const bool neighbours = each == 1 && columns_.count == Panel::kColumns;
    const int16_t* const weight = weight_.panel(panel);
    const Code* const image = static_cast<const Code*>(conv_.x.data) + line / conv_.out_size[0] * conv_.x.image_stride;
    const int64_t top = line % conv_.out_size[0] * conv_.step[0] - conv_.padding[0];
    const Taps rows = taps_inside(top, conv_.dilation[0], conv_.kernel[0], conv_.size[0]);
    const int16_t zero = static_cast<int16_t>(zero_);
    vectorized([&]() QUAVER_INLINE {
      for (int pixel = 0; pixel < pixels; ++pixel) {
        const int64_t left = (first + pixel) * conv_.step[1] - conv_.padding[1];
        const Taps columns = taps_inside(left, conv_.dilation[1], conv_.kernel[1], conv_.size[1]);
        int32_t sum[Panel::kColumns] = {};
        for (int64_t ky = rows.begin; ky < rows.end; ++ky) {
          const Code* const from = image + (top + ky * conv_.dilation[0]) * conv_.x.stride[0];
          for (int64_t kx = columns.begin; kx < columns.end; ++kx) {
            const Code* const codes = from + (left + kx * conv_.dilation[1]) * conv_.x.stride[1];
            const int16_t* const __restrict by = weight + (ky * conv_.kernel[1] + kx) * Panel::kColumns;
            if (neighbours) {
              add(codes + columns_.first, zero, by, sum);
            } else {
              Code held[Panel::kColumns] = {};
              for (int i = 0; i < columns_.count; ++i) held[i] = codes[(columns_.first + i) / each];
              add(held, zero, by, sum);
            }
          }
        }
        std::memcpy(sums_[pixel], sum, sizeof sum);
      }
    });
  }

  // A code less its zero point, at most 255, times one of a weight, at most 128, fits 16 bits. Sums wrap.
  template <class Code>
  inline __attribute__((always_inline)) static void add(const Code* __restrict codes, int16_t zero,
                                                        const int16_t* __restrict by, int32_t* __restrict sum) {
    for (int i = 0; i < Panel::kColumns; ++i)
      sum[i] = wrapping_add(sum[i], static_cast<int16_t>(static_cast<int16_t>(codes[i] - zero) * by[i]));
  }
};

}  // namespace quaver
