// Tensors -> the parameters of conv.h, for the glue files of the convolution family.
#pragma once
#include <string>

#include "../common/aten.h"
#include "../common/dispatch.h"
#include "../common/tensors.h"
#include "conv.h"

namespace fastseg {

inline Activation activation_of(const char* op, const std::string& name) {
  constexpr const char* kNames[] = {"none", "relu", "relu6", "silu"};
  for (int i = 0; i < 4; ++i)
    if (name == kNames[i]) return Activation(i);
  fail(op, "activation", "be one of none, relu, relu6, silu, got ", name);
}

inline Tensor narrowed(Tensor x, int64_t dim, int64_t start, int64_t length) {
  return torch::stable::narrow(x, dim, start, length);
}

inline Tensor zeroed(Tensor x) { return torch::stable::zero_(x); }

// [n, c, h, w] as its dense storage: [n, h, w, c] or [n, c, h, w].
inline Tensor storage_of(const Tensor& x, bool channels_last) {
  return channels_last ? torch::stable::transpose(torch::stable::transpose(x, 1, 3), 1, 2) : x;
}

// Matrices [rows, columns], of which one starts `step` after the other -> the same transposed, densely.
template <class T>
void transpose_all(const T* x, int64_t step, T* out, int64_t count, int64_t rows, int64_t columns) {
  // Ranges of whole squares: two threads never share a line of the result.
  const int64_t squares = (rows + 15) / 16;
  Ranges(count * squares, 16 * columns).run([&](int64_t, int64_t b, int64_t e) {
    while (b < e) {
      const int64_t i = b / squares, first = b % squares, last = std::min(squares, first + e - b);
      FASTSEG_PICK_FOR(T, conv).transpose(x + i * step, out + i * rows * columns, rows, columns, 16 * first,
                                          std::min(rows, 16 * last));
      b += last - first;
    }
  });
}

// Dense maps of T -> the same in the other memory format.
template <class T>
Tensor reformatted(const Tensor& x, bool to_channels_last) {
  const int64_t n = x.size(0), c = x.size(1), pixels = x.size(2) * x.size(3);
  const Tensor out = empty_images(x, n, c, x.size(2), x.size(3), kScalar<T>, to_channels_last);
  transpose_all<T>((const T*)x.data_ptr(), c * pixels, (T*)out.data_ptr(), n, to_channels_last ? c : pixels,
                   to_channels_last ? pixels : c);
  return out;
}

// Any maps as dense ones of T in a memory format.
template <class T>
Tensor dense_maps(const Tensor& x, bool channels_last) {
  const Tensor wide = torch::stable::to(x, kScalar<T>);
  const bool last = is_channels_last(wide);
  if (!last && !wide.is_contiguous()) return dense_maps<T>(torch::stable::contiguous(wide), channels_last);
  const bool both = wide.size(1) == 1 || wide.size(2) * wide.size(3) == 1;
  return last == channels_last || both || wide.numel() == 0 ? wide : reformatted<T>(wide, channels_last);
}

// Dense maps of T as a result: in the memory format and the dtype of `like`.
template <class T>
Tensor result_like(const Tensor& y, const Tensor& like) {
  return torch::stable::to(dense_maps<T>(y, is_channels_last(like)), like.scalar_type());
}

// The epilogue of the tensors that make it, kept alive: scale * (y + bias) + shift + residual.
template <class T>
struct EpilogueTensors {
  std::optional<Tensor> scale, shift, residual;
  Epilogue<T> epilogue;

  EpilogueTensors(const Tensor& like, int64_t channels, const std::optional<Tensor>& bias,
                  const std::optional<Tensor>& scale_, const std::optional<Tensor>& shift_,
                  const std::optional<Tensor>& residual_, Activation activation, bool channels_last) {
    const auto plain = [](const std::optional<Tensor>& x) -> std::optional<Tensor> {
      if (!x) return std::nullopt;
      return torch::stable::contiguous(torch::stable::to(*x, kScalar<T>));
    };
    scale = plain(scale_);
    shift = plain(shift_);
    if (const auto b = plain(bias); b && (scale || shift)) {
      const Tensor sum = empty(like, {channels}, kScalar<T>);
      const T* s = scale ? (const T*)scale->data_ptr() : nullptr;
      const T* t = shift ? (const T*)shift->data_ptr() : nullptr;
      for (int64_t c = 0; c < channels; ++c)
        ((T*)sum.data_ptr())[c] = (s ? s[c] : T(1)) * ((const T*)b->data_ptr())[c] + (t ? t[c] : T(0));
      shift = sum;
    } else if (b) {
      shift = b;
    }
    if (residual_) residual = dense_maps<T>(*residual_, channels_last);
    const auto pointer = [](const std::optional<Tensor>& x) { return x ? (const T*)x->data_ptr() : nullptr; };
    epilogue = {pointer(scale), pointer(shift), pointer(residual), activation};
  }
};

// Applies an epilogue to dense maps in place.
template <class T>
void finish_maps(const Tensor& y, bool channels_last, const Epilogue<T>& epilogue) {
  if (epilogue.empty() || y.numel() == 0) return;
  const int64_t n = y.size(0), c = y.size(1), pixels = y.size(2) * y.size(3);
  const Rows<T> rows{(T*)y.data_ptr(), channels_last ? c : pixels, c, channels_last, epilogue};
  Ranges(channels_last ? n * pixels : n * c, 4 * rows.inner).run([&](int64_t, int64_t b, int64_t e) {
    FASTSEG_PICK_FOR(T, conv).finish(rows, b, e);
  });
}

}  // namespace fastseg
