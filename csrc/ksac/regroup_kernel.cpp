// Maps in either memory format <-> pixels strip by strip, and weights [channels, inputs, 3, 3] <-> one matrix for each
// tap. Both move each value once from memory and back; what has to change from planes to pixels goes through squares of
// 16 x 16 values, whose lines stay in the first-level cache.
#include "../common/simd.h"
#include "ksac.h"

namespace fastseg {
namespace {

// Where the pixels [first, first + n) are kept, n <= kBlock.
template <class T>
inline void places_of(const Regroup<T>& r, int64_t first, int64_t n, T** places) {
  for (int64_t p = first; p < first + n; ++p) {
    const int64_t y = p / r.w, x = p % r.w;
    int s = 0;
    while (x >= r.strips.of[s].end) ++s;
    const Strip& strip = r.strips.of[s];
    places[p - first] = r.pixels + (strip.begin * r.h + y * (strip.end - strip.begin) + x - strip.begin) * r.channels;
  }
}

// Calls whole(first, places, c) for each square of pixels and channels, and part(first, places, n, c) for each channel
// that no square holds.
template <class T, class Whole, class Part>
void each_square(const Regroup<T>& r, int64_t begin, int64_t end, const Whole& whole, const Part& part) {
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * kBlock, left = r.h * r.w - first, n = left < kBlock ? left : kBlock;
    T* places[kBlock];
    places_of(r, first, n, places);
    int64_t c = 0;
    if (n == kBlock)
      for (; c + kBlock <= r.channels; c += kBlock) whole(first, places, c);
    for (; c < r.channels; ++c) part(first, places, n, c);
  }
}

template <class T>
void to_strips(const Regroup<T>& r, int64_t begin, int64_t end) {
  if (r.plane == 1) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock, left = r.h * r.w - first, n = left < kBlock ? left : kBlock;
      T* places[kBlock];
      places_of(r, first, n, places);
      for (int64_t p = 0; p < n; ++p) memcpy(places[p], r.maps + (first + p) * r.pixel, r.channels * sizeof(T));
    }
    return;
  }
  each_square(
      r, begin, end,
      [&](int64_t first, T** places, int64_t c) {
        T square[kBlock][kBlock];
        for (int64_t i = 0; i < kBlock; ++i)
          for (int64_t j = 0; j < kBlock; ++j) square[j][i] = r.maps[(c + i) * r.plane + first + j];
        for (int64_t j = 0; j < kBlock; ++j) memcpy(places[j] + c, square[j], sizeof square[j]);
      },
      [&](int64_t first, T** places, int64_t n, int64_t c) {
        for (int64_t p = 0; p < n; ++p) places[p][c] = r.maps[c * r.plane + first + p];
      });
}

template <class T>
void from_strips(const Regroup<T>& r, int64_t begin, int64_t end) {
  if (r.plane == 1) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock, left = r.h * r.w - first, n = left < kBlock ? left : kBlock;
      T* places[kBlock];
      places_of(r, first, n, places);
      for (int64_t p = 0; p < n; ++p) memcpy(r.maps + (first + p) * r.pixel, places[p], r.channels * sizeof(T));
    }
    return;
  }
  each_square(
      r, begin, end,
      [&](int64_t first, T** places, int64_t c) {
        T square[kBlock][kBlock];
        for (int64_t j = 0; j < kBlock; ++j)
          for (int64_t i = 0; i < kBlock; ++i) square[i][j] = places[j][c + i];
        for (int64_t i = 0; i < kBlock; ++i) memcpy(r.maps + (c + i) * r.plane + first, square[i], sizeof square[i]);
      },
      [&](int64_t first, T** places, int64_t n, int64_t c) {
        for (int64_t p = 0; p < n; ++p) r.maps[c * r.plane + first + p] = places[p][c];
      });
}

// Calls move(weights, taps, inputs) for runs of inputs of one tap and channel, few enough at a time that all nine taps
// of them stay in the first-level cache.
template <class T, class Move>
void each_run(const Weights<T>& p, int64_t begin, int64_t end, const Move& move) {
  constexpr int64_t kInputs = 256;
  for (int64_t c = begin; c < end; ++c)
    for (int64_t k = 0; k < p.inputs; k += kInputs)
      for (int t = 0; t < kTaps; ++t)
        move(p.weight + c * p.stride_c + k * p.stride_k + t / 3 * p.stride_i + t % 3 * p.stride_j,
             p.taps + (t * p.channels + c) * p.inputs + k, p.inputs - k < kInputs ? p.inputs - k : kInputs);
}

template <class T>
void to_taps(const Weights<T>& p, int64_t begin, int64_t end) {
  each_run(p, begin, end, [&](const T* weight, T* taps, int64_t n) {
    for (int64_t k = 0; k < n; ++k) taps[k] = weight[k * p.stride_k];
  });
}

template <class T>
void add_taps(const Weights<T>& p, int64_t begin, int64_t end) {
  each_run(p, begin, end, [&](T* weight, const T* taps, int64_t n) {
    for (int64_t k = 0; k < n; ++k) weight[k * p.stride_k] += taps[k];
  });
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::RegroupTable<float> FASTSEG_FOR_ISA(regroup_f32) = {
    fastseg::to_strips<float>, fastseg::from_strips<float>, fastseg::to_taps<float>, fastseg::add_taps<float>};
extern "C" const fastseg::RegroupTable<double> FASTSEG_FOR_ISA(regroup_f64) = {
    fastseg::to_strips<double>, fastseg::from_strips<double>, fastseg::to_taps<double>, fastseg::add_taps<double>};
