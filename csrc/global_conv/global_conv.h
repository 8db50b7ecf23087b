// GCN's large separable kernel. Shapes: maps x [n, cin, h, w]; column taps [c, cin, k, 1] and [c, c, k, 1], row taps
// [c, cin, 1, k] and [c, c, 1, k]; middle maps [n, c, h, w] of two branches.
//
// A first stage convolves every column (or row) of a map with k taps, from cin to c channels: products of polynomials,
// which are products of numbers at each frequency. A *line* is a column or a row, cut into *windows* of `size` samples;
// the spectrum of a real window is packed into size / 2 complex *bins*, of which bin 0 holds the two real ones, those
// of frequencies 0 and size / 2, in place of a real and an imaginary part.
#pragma once
#include <stdint.h>

#include "../common/dtypes.h"
#include "../common/isa.h"

namespace fastseg {

constexpr int64_t kMostSamples = 128;  // of a window, a multiple of 4
constexpr int64_t kTogether = 3;       // channels of the result that the second stage takes at a time
constexpr int64_t kBeyond = 64;        // columns that it takes at a time, at most

// `outer` groups of `lanes` lines of n samples: sample s of line l of group g is data[g * outer + l * lane + s * axis].
template <class T>
struct Lines {
  T* data;
  int64_t outer, lane, axis, n;
};

// Window t holds the samples [t * step + start, ... + size) of a line, zero where there is none.
struct Windows {
  int64_t size, count, step, start;
};

// Spectra of lines. Bin b, part p, window t, group g, line l: out[b * bin + p * part + t * window + g * outer + l].
template <class T>
struct Analysis {
  Lines<const T> lines;
  int64_t lanes;
  Windows windows;
  int64_t used;    // samples of a window that are not taken as zero
  const T* table;  // of analysis_table
  T* out;
  int64_t bin, part, window, outer;
  int64_t turned;  // where the spectrum times i goes, beside out; 0 where it is not wanted
};

// The lines of spectra, at the same places, in windows of which the first `step` samples are wanted.
template <class T>
struct Synthesis {
  const T* in;
  int64_t bin, part, window, outer;
  int64_t factor;  // where the products with the imaginary part of a conjugate factor lie; 0: the spectra are sums
  int64_t lanes;
  Windows windows;
  const T* table;  // [step, size] of synthesis_table
  Lines<T> lines;
  const T* bias;  // for each group, or null
  bool add;       // to what is there
};

// The second stage of both branches: out[o, y, x] = bias[o] + sum over m, t of
//   row[o, m, t] first[m, y, x + t - reach_x] + column[o, m, t] second[m, y + t - reach_y, x].
// Rows of middle maps are `pitch` = w + reach_x apart, with zeros between them, and kBeyond values are readable behind.
template <class T>
struct Mix {
  const T *first, *second;  // [n, c, h, pitch], from column 0 of the first row on
  const T *row, *column;    // [c / kTogether, c, 2 * reach + 1, kTogether], channels padded with zeros; or null
  const T* bias;            // [c], or null
  T* out;                   // [n, c, h, w]
  int64_t c, h, w, pitch, reach_x, reach_y;
};

template <class T>
struct SpectrumTable {
  void (*analyse)(const Analysis<T>&, int64_t, int64_t);      // groups
  void (*synthesise)(const Synthesis<T>&, int64_t, int64_t);  // groups
};

template <class T>
struct MixTable {
  void (*mix)(const Mix<T>&, int64_t, int64_t);  // rows of n * h
  bool (*finite)(const T* values, int64_t n);
};

FASTSEG_TABLES(SpectrumTable<float>, spectrum_f32);
FASTSEG_TABLES(SpectrumTable<double>, spectrum_f64);
FASTSEG_TABLES(MixTable<float>, mix_f32);
FASTSEG_TABLES(MixTable<double>, mix_f64);

}  // namespace fastseg
