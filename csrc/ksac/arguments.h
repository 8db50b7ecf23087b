// Tensors -> the parameters of ksac.h, for the glue files: checks, matrices, maps as pixels, weights as taps.
#pragma once
#include <cstring>
#include <optional>
#include <vector>

#include "../conv/arguments.h"
#include "plan.h"

namespace fastseg {

using Rates = std::vector<int64_t>;

inline void check_rates(const char* op, const Rates& rates) {
  FASTSEG_CHECK(!rates.empty(), op, "rates", "be at least one, got none");
  for (const int64_t r : rates)
    FASTSEG_CHECK(r >= 1 && r < int64_t(1) << 30, op, "rates", "be from 1 to 2^30 - 1, got ", r);
}

inline void check_maps(const char* op, const char* argument, const Tensor& x) {
  FASTSEG_CHECK(x.dim() == 4, op, argument, "be [N, C, H, W], got ", x.dim(), " dimensions");
  FASTSEG_CHECK(x.size(1) > 0 && x.size(2) > 0 && x.size(3) > 0, op, argument, "have channels and pixels, got none");
}

inline void check_weight(const char* op, const Tensor& weight) {
  FASTSEG_CHECK(weight.dim() == 4, op, "weight", "be [Cout, Cin, 3, 3], got ", weight.dim(), " dimensions");
  FASTSEG_CHECK(weight.size(0) > 0 && weight.size(1) > 0 && weight.size(2) == 3 && weight.size(3) == 3, op, "weight",
                "be [Cout, Cin, 3, 3], got [", weight.size(0), ", ", weight.size(1), ", ", weight.size(2), ", ",
                weight.size(3), "]");
}

inline void check_vectors(const char* op, const char* argument, const std::optional<Tensor>& v, int64_t rates,
                          int64_t channels) {
  if (!v) return;
  float_type(op, argument, *v);
  FASTSEG_CHECK(v->dim() == 2 && v->size(0) == rates && v->size(1) == channels, op, argument, "be [", rates, ", ",
                channels, "], got ", v->dim(), " dimensions or other extents");
}

// A contiguous tensor of T, where there is one.
template <class T>
std::optional<Tensor> plain(const std::optional<Tensor>& x) {
  if (!x) return std::nullopt;
  return torch::stable::contiguous(torch::stable::to(*x, kScalar<T>));
}

// A matrix in memory that outlives it; one of the steps is 1.
template <class T>
Tensor matrix(T* data, int64_t rows, int64_t columns, int64_t row_step, int64_t column_step) {
  const int64_t sizes[] = {rows, columns}, strides[] = {row_step, column_step};
  AtenTensorHandle handle;
  const int32_t type = sizeof(T) == 4 ? aoti_torch_dtype_float32() : aoti_torch_dtype_float64();
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_create_tensor_from_blob((void*)data, 2, sizes, strides, 0, type,
                                                                   aoti_torch_device_type_cpu(), -1, &handle));
  return Tensor(handle);
}

// Dense maps of T.
template <class T>
struct Dense {
  Tensor tensor;
  bool last;
  int64_t n, c, h, w;

  explicit Dense(const Tensor& x, bool as_it_is = false)
      : tensor(as_it_is ? x : dense(x)),
        last(is_channels_last(tensor)),
        n(x.size(0)),
        c(x.size(1)),
        h(x.size(2)),
        w(x.size(3)) {}

  T* image(int64_t i) const { return (T*)tensor.data_ptr() + i * c * h * w; }

  // Channels from `channel` on of an image, and how they are regrouped to and from `pixels`.
  Regroup<T> regroup(int64_t image_, int64_t channel, int64_t channels, Range rows, T* pixels,
                     const Strips& strips) const {
    const int64_t pixel = last ? c : 1, plane = last ? 1 : h * w;
    return {image(image_) + channel * plane + rows.first * w * pixel,
            pixel,
            plane,
            pixels,
            rows.last - rows.first,
            w,
            channels,
            strips};
  }

 private:
  static Tensor dense(const Tensor& x) {
    const Tensor wide = torch::stable::to(x, kScalar<T>);
    return is_channels_last(wide) || wide.is_contiguous() ? wide : torch::stable::contiguous(wide);
  }
};

template <class T>
void run(const Regroup<T>& r, void (*move)(const Regroup<T>&, int64_t, int64_t)) {
  Ranges((r.h * r.w + kBlock - 1) / kBlock, kBlock * r.channels).run([&](int64_t, int64_t b, int64_t e) {
    move(r, b, e);
  });
}

// The pixels of one image after the other as matrices [pixels, channels]: copied strip by strip where the plan has
// strips or the maps are planes, in place otherwise.
template <class T>
class Images {
 public:
  Images(const Dense<T>& maps, const Plan& plan, bool copied)
      : maps_(maps),
        plan_(plan),
        copied_(copied),
        memory_(empty(maps.tensor, {bytes() / int64_t(sizeof(T))}, kScalar<T>)) {}

  // What a copy takes.
  int64_t bytes() const { return copied_ ? maps_.c * maps_.h * maps_.w * int64_t(sizeof(T)) : 0; }

  void read(int64_t image) {
    if (copied_ && image != image_) run(of(image), FASTSEG_PICK_FOR(T, regroup).to_strips);
    image_ = image;
  }

  void begin(int64_t image) { image_ = image; }

  void write() {
    if (copied_) run(of(image_), FASTSEG_PICK_FOR(T, regroup).from_strips);
  }

  // Rows [first, first + rows) of the strip of a group.
  Tensor pixels(const Group& g, int64_t first, int64_t rows) const {
    const int64_t c = maps_.c, width = g.width(plan_.strips);
    const int64_t at = plan_.strips.of[g.strip].begin * maps_.h + first * width;
    if (copied_) return matrix((T*)memory_.data_ptr() + at * c, rows * width, c, c, 1);
    if (maps_.last) return matrix(maps_.image(image_) + at * c, rows * width, c, c, 1);
    return matrix(maps_.image(image_) + at, rows * width, c, 1, maps_.h * maps_.w);
  }

 private:
  const Dense<T>& maps_;
  const Plan& plan_;
  bool copied_;
  Tensor memory_;
  int64_t image_ = -1;

  Regroup<T> of(int64_t image) const {
    return maps_.regroup(image, 0, maps_.c, {0, maps_.h}, (T*)memory_.data_ptr(), plan_.strips);
  }
};

// Whether maps may be copied, and whether they are.
template <class T>
bool may_copy(const Dense<T>& maps) {
  return maps.c * maps.h * maps.w * int64_t(sizeof(T)) <= kCopy;
}

// The weights of a slice of channels, tap by tap: [9, channels, inputs].
template <class T>
class Slice {
 public:
  Slice(const Tensor& weight, int64_t most)
      : weight_(torch::stable::to(weight, kScalar<T>)),
        memory_(empty(weight, {kTaps * most * weight.size(1)}, kScalar<T>)) {}

  void read(int64_t first, int64_t channels) {
    if (first == first_) return;
    first_ = first;
    move(first, channels, FASTSEG_PICK_FOR(T, regroup).to_taps);
  }

  void clear(int64_t channels) { memset(memory_.data_ptr(), 0, kTaps * channels * weight_.size(1) * sizeof(T)); }

  // Adds to the weights.
  void add(int64_t first, int64_t channels) { move(first, channels, FASTSEG_PICK_FOR(T, regroup).add_taps); }

  // [inputs, taps and channels] or the other way round.
  Tensor of(const Group& g, int64_t channels, bool inputs_first) const {
    const int64_t inputs = weight_.size(1), n = g.taps * channels;
    T* data = (T*)memory_.data_ptr() + g.tap * channels * inputs;
    return inputs_first ? matrix(data, inputs, n, 1, inputs) : matrix(data, n, inputs, inputs, 1);
  }

 private:
  Tensor weight_, memory_;
  int64_t first_ = -1;

  void move(int64_t first, int64_t channels, void (*kernel)(const Weights<T>&, int64_t, int64_t)) {
    const Weights<T> p{(T*)weight_.data_ptr() + first * weight_.stride(0),
                       weight_.stride(0),
                       weight_.stride(1),
                       weight_.stride(2),
                       weight_.stride(3),
                       (T*)memory_.data_ptr(),
                       channels,
                       weight_.size(1)};
    Ranges(channels, kTaps * p.inputs).run([&](int64_t, int64_t b, int64_t e) { kernel(p, b, e); });
  }
};

// Rows [first, first + rows) of the responses of a group, which lie together, as a matrix [pixels, taps and channels].
template <class T>
Tensor matrix_of(const Responses<T>& r, const Group& g, int64_t first, int64_t rows) {
  const int64_t n = g.taps * r.channels, width = g.width(r.strips);
  return matrix(r.of[g.strip][g.tap].data + (first - g.first) % g.ring * width * n, rows * width, n, n, 1);
}

// Calls use(first, count) for portions of [0, all).
template <class Use>
void each_portion(int64_t all, int64_t most, const Use& use) {
  for (int64_t first = 0; first < all; first += most) use(first, std::min(most, all - first));
}

}  // namespace fastseg
