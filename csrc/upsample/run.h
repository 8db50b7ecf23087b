// Ranges of cells and of their adjoints over threads, for the glue files of every stem that upsamples.
#pragma once
#include "arguments.h"

namespace fastseg {

constexpr int64_t kBlockScratch = (2 + 8) * kPadding;  // of a class; no ISA has more than 8 kRows

// Calls use(parameters, begin, end) for ranges of cell rows; `cost` is that of a class and pixel, `per_range` the size
// of the scratch of a range.
template <class T, class Use>
void run_cells(const Tensor& logits, Float type, int64_t height, int64_t width, bool align_corners, int64_t cost,
               int64_t per_range, const Use& use) {
  const Source<T> source(logits, type);
  const Axes<T> axes(logits, logits.size(2), logits.size(3), height, width, align_corners);
  const Ranges ranges(logits.size(0) * logits.size(2), cost * logits.size(1) * (height / logits.size(2) + 1) * width);
  Tensor scratch = empty(logits, {ranges.slots, per_range}, kScalar<T>);
  ranges.run([&](int64_t slot, int64_t b, int64_t e) {
    Softmax<T> p{};
    p.source = source.maps;
    p.y = axes.y.axis;
    p.x = axes.x.axis;
    p.scratch = (T*)scratch.data_ptr() + slot * per_range;
    use(p, b, e);
  });
}

// Calls use(parameters, begin, end) for fixed chunks of source rows, adds the edges, and returns the gradient
// [n, c, h, w] in the dtype of `like` and the wanted memory format.
template <class T, class Use>
Tensor run_adjoint(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w, int64_t height, int64_t width,
                   bool align_corners, bool pixels, int64_t per_range, bool channels_last, Float type, const Use& use) {
  const Axes<T> axes(like, h, w, height, width, align_corners);
  Adjoint<T> base{};
  base.y = axes.y.axis;
  base.x = axes.x.axis;
  base.n = n;
  base.c = c;
  base.chunk = std::max<int64_t>(2, (h + 15) / 16);
  base.chunks = (h + base.chunk - 1) / base.chunk;
  Tensor grad = zeros(like, pixels ? std::vector<int64_t>{n, h, w, c} : std::vector<int64_t>{n, c, h, w}, kScalar<T>);
  Tensor edge = zeros(like, {n * base.chunks, c * w}, kScalar<T>);
  base.grad = (T*)grad.data_ptr();
  base.edge = (T*)edge.data_ptr();
  const Ranges ranges(n * base.chunks, 10 * c * (height / base.chunks + 1) * width);
  Tensor scratch = empty(like, {ranges.slots, per_range}, kScalar<T>);
  ranges.run([&](int64_t slot, int64_t b, int64_t e) {
    Adjoint<T> p = base;
    p.scratch = (T*)scratch.data_ptr() + slot * per_range;
    use(p, b, e);
  });
  for (int64_t i = 0; i < n * base.chunks; ++i) {
    const int64_t image = i / base.chunks, row = (i % base.chunks + 1) * base.chunk;
    if (row >= h) continue;
    const T* from = base.edge + i * c * w;
    for (int64_t k = 0; k < c * w; ++k)
      base.grad[pixels ? (image * h + row) * w * c + k : ((image * c + k / w) * h + row) * w + k % w] += from[k];
  }
  if (pixels) grad = torch::stable::transpose(torch::stable::transpose(grad, 1, 3), 2, 3);
  const bool same = type == kNative<T>;
  if (same && (pixels || !channels_last)) return grad;
  Tensor out = empty_images(like, n, c, h, w, like.scalar_type(), channels_last);
  if (pixels) return torch::stable::copy_(out, grad), out;
  const Pack<T> p{strided(out, type), base.grad, w};
  Ranges(n * h, c * w).run([&](int64_t, int64_t b, int64_t e) { FASTSEG_PICK_FOR(T, upsample).unpack(p, b, e); });
  return out;
}

}  // namespace fastseg
