// depthwise.h: a convolution whose groups have one channel of x each, in blocks of up to 32 pixels and 32 channels of
// the result, with the matmul's epilogue. No torch header.
//
// Along K there is a code for each tap and no more: nothing for products of fours to share. Pixels have their channels
// side by side, so that the loops over channels are vectors. A padded tap is one of codes that stand for 0.
#pragma once

#include <vector>

#include "cpu/kernels/depthwise_taps.h"
#include "cpu/kernels/matmul.h"

namespace quaver {

// The weight as sum_taps reads it, for each 16 channels of the result, zeros beyond the last; and its sums.
struct DepthwiseWeight {
  int64_t pairs;  // of taps
  std::vector<int16_t> codes;
  std::vector<int32_t> sum;

  explicit DepthwiseWeight(const Conv2dProblem& conv)
      : pairs((conv.kernel[0] * conv.kernel[1] + 1) / 2),
        codes(Panel::count(channels_of(conv)) * Panel::kColumns * 2 * pairs),
        sum(Panel::count(channels_of(conv)) * Panel::kColumns) {
    for (int64_t channel = 0; channel < channels_of(conv); ++channel) {
      const int8_t* const from = static_cast<const int8_t*>(conv.weight.data) + channel * conv.weight.image_stride;
      int16_t* const to = codes.data() + (channel - channel % kTapChannels) * 2 * pairs + channel % kTapChannels * 2;
      int64_t tap = 0;
      for (int64_t y = 0; y < conv.kernel[0]; ++y)
        for (int64_t x = 0; x < conv.kernel[1]; ++x, ++tap) {
          const int8_t code = from[y * conv.weight.stride[0] + x * conv.weight.stride[1]];
          to[tap / 2 * 2 * kTapChannels + tap % 2] = code;
          sum[channel] += code;
        }
    }
  }

  static int64_t channels_of(const Conv2dProblem& conv) { return conv.groups * conv.product.n; }
  // Of 16 channels, from `channel` on.
  const int16_t* of(int64_t channel) const { return codes.data() + channel * 2 * pairs; }
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
      : conv_(conv),
        weight_(weight),
        product_(product),
        zero_(zero),
        loops_(product),
        scatter_(product, conv.places),
        columns_(Panel::count(product.n)),
        has_columns_(Panel::count(product.n)),
        offsets_(2 * weight.pairs),
        padded_(2 * weight.pairs),
        held_places_(2 * weight.pairs),
        zeros_(conv.groups, static_cast<uint8_t>(zero)),
        held_(2 * weight.pairs * kTapChannels) {
    const BatchIndex none = {};
    gather(product.a_scale, none, 0, kBlockRows, 1.0f, rows_.scale);
    with_type(product.a_type,
              [&](auto tag) { sum_taps_ = choose_sum_taps<typename decltype(tag)::type>(cpu_capability()); });
    for (int64_t tap = 0; tap < conv.kernel[0] * conv.kernel[1]; ++tap)
      offsets_[tap] = tap / conv.kernel[1] * conv.dilation[0] * conv.x.stride[0] +
                      tap % conv.kernel[1] * conv.dilation[1] * conv.x.stride[1];
    padded_.back() = address_of(zeros_.data());  // beside the last of an odd number of taps; its weights are 0
    for (size_t tap = 0; tap < held_places_.size(); ++tap)
      held_places_[tap] = address_of(held_.data() + tap * kTapChannels);
  }

  static int64_t tasks(const Conv2dProblem& conv) {
    return conv.images * conv.out_size[0] * Panel::count(DepthwiseWeight::channels_of(conv));
  }
  static int64_t grain(const Conv2dProblem& conv) {
    constexpr int64_t kProductsPerThread = 1 << 19;
    const int64_t products = conv.out_size[1] * conv.kernel[0] * conv.kernel[1] * Panel::kColumns;
    return std::max<int64_t>(kProductsPerThread / std::max<int64_t>(products, 1), 1);
  }

  void run(int64_t begin, int64_t end) {
    const int64_t panels = Panel::count(product_.n);
    for (int64_t task = begin; task < end; ++task) {
      const ColumnValues& columns = columns_of(task % panels);
      const int64_t line = task / panels;
      for (int64_t first = 0; first < conv_.out_size[1]; first += kBlockRows) {
        const int pixels = static_cast<int>(std::min<int64_t>(conv_.out_size[1] - first, kBlockRows));
        for (int pixel = 0; pixel < pixels; ++pixel) multiply(columns, line, first + pixel, sums_[pixel]);
        const BlockPlace place{0, line * conv_.out_size[1] + first, columns.first};
        const auto [out, pitch] = scatter_.target(place, 0);
        const StoredBlock block{&product_, &columns, &rows_, &sums_, out, pitch, pixels};
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
  std::vector<ColumnValues> columns_;  // of each panel, once it is needed
  std::vector<bool> has_columns_;
  // Where taps are (depthwise_taps.h): of a pixel whose taps are all inside, from the first on; else their addresses.
  std::vector<intptr_t> offsets_;
  std::vector<intptr_t> padded_;
  std::vector<intptr_t> held_places_;
  const std::vector<uint8_t> zeros_;  // a pixel of padding
  std::vector<uint8_t> held_;         // 16 channels of each tap, where they do not lie side by side
  SumTaps sum_taps_;
  RowValues rows_ = {};
  alignas(64) BlockSums sums_ = {};

  const ColumnValues& columns_of(int64_t panel) {
    ColumnValues& columns = columns_[panel];
    if (!has_columns_[panel]) {
      const BatchIndex none = {};
      gather_columns(product_, none, panel * Panel::kColumns, nullptr, columns);
      // In the place of b's sums, which no epilogue here reads: what taps add to.
      for (int i = 0; i < columns.count; ++i)
        columns.sum[i] = wrapping_subtract(0, wrapping_multiply(zero_, weight_.sum[columns.first + i]));
      has_columns_[panel] = true;
    }
    return columns;
  }

  static intptr_t address_of(const uint8_t* place) { return reinterpret_cast<intptr_t>(place); }

  // The sums of a pixel of a line of the result, for a panel of its channels.
  void multiply(const ColumnValues& columns, int64_t line, int64_t column, int32_t* sums) {
    const TapPlaces taps = find_taps(line, column);
    const int64_t each = conv_.product.n;  // channels of the result for one of x
    for (int64_t half = 0; half < columns.count; half += kTapChannels) {
      const int64_t channel = columns.first + half;
      const int16_t* const weight = weight_.of(channel);
      if (each == 1 && columns.count - half >= kTapChannels) {
        sum_taps_(taps, weight_.pairs, channel, weight, columns.sum + half, sums + half);
      } else {
        hold(taps, channel, each, std::min<int64_t>(columns.count - half, kTapChannels));
        sum_taps_({0, held_places_.data()}, weight_.pairs, 0, weight, columns.sum + half, sums + half);
      }
    }
  }

  TapPlaces find_taps(int64_t line, int64_t column) {
    const int64_t top = line % conv_.out_size[0] * conv_.step[0] - conv_.padding[0];
    const int64_t left = column * conv_.step[1] - conv_.padding[1];
    const intptr_t first = address_of(static_cast<const uint8_t*>(conv_.x.data)) +
                           line / conv_.out_size[0] * conv_.x.image_stride + top * conv_.x.stride[0] +
                           left * conv_.x.stride[1];
    if (inside(top, 0) && inside(left, 1)) return {static_cast<uintptr_t>(first), offsets_.data()};
    for (int64_t ky = 0, tap = 0; ky < conv_.kernel[0]; ++ky) {
      const int64_t y = top + ky * conv_.dilation[0];
      for (int64_t kx = 0; kx < conv_.kernel[1]; ++kx, ++tap) {
        const int64_t x = left + kx * conv_.dilation[1];
        const bool padded = y < 0 || y >= conv_.size[0] || x < 0 || x >= conv_.size[1];
        padded_[tap] = padded ? address_of(zeros_.data()) : first + offsets_[tap];
      }
    }
    return {0, padded_.data()};
  }

  // Whether all taps along a dimension are, whose first lies at `first`.
  bool inside(int64_t first, int dim) const {
    return first >= 0 && first + (conv_.kernel[dim] - 1) * conv_.dilation[dim] < conv_.size[dim];
  }

  void hold(TapPlaces taps, int64_t channel, int64_t each, int64_t count) {
    for (size_t tap = 0; tap < held_places_.size(); ++tap)
      for (int64_t i = 0; i < count; ++i) held_[tap * kTapChannels + i] = taps[tap][(channel + i) / each];
  }
};

}  // namespace quaver
