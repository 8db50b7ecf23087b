// Atrous convolution. Shapes: x [n, h, w, c] or [n, c, h, w], results with k channels and their own height and width.
#pragma once
#include "../conv/conv.h"

namespace fastseg {

// One axis of a convolution: output o reads the inputs o * stride - padding + tap * dilation.
struct ConvAxis {
  int64_t in, out, taps, stride, padding, dilation;
};

// A bilinear algorithm for the sub-grids of an atrous convolution with 3 x 3 taps and stride 1: outputs that are
// `dilation` apart form a dense 3 x 3 convolution of their own. A tile is a square of them.
enum Scheme { winograd2, winograd3, winograd4, toeplitz2, kSchemes };
constexpr const char* kSchemeNames[] = {"winograd2", "winograd3", "winograd4", "toeplitz2"};
constexpr int64_t kTile[] = {2, 3, 4, 2};       // outputs of a tile along an axis
constexpr int64_t kPoints[] = {16, 25, 36, 9};  // products of a tile

// The first output of a tile.
struct Tile {
  int32_t image, y, x;
};

struct Tiles {
  const float* x;      // [images, rows.in, columns.in, slice], pixels that start pitch apart
  float* y;            // [images, rows.out, columns.out, k]
  float* inputs;       // [points, tiles of the band, slice]
  float* products;     // [points, tiles of the band, k]
  const float* zeros;  // [slice], read in place of pixels outside of the map
  int64_t pitch, k, slice;
  ConvAxis rows, columns;
  const Tile* tiles;    // of the band
  int64_t band;         // its number of tiles
  int32_t* not_finite;  // [images], set where a result is not finite: its tile is right by other means only
  Epilogue<float> epilogue;
};

struct SchemeTable {
  // weight [k, c, 3, 3] -> [points, channels, k], of the channels [begin, end); `first` is the first of `channels`.
  void (*weights)(const float* weight, float* out, int64_t c, int64_t k, int64_t first, int64_t channels, int64_t begin,
                  int64_t end);
  // Tiles [begin, end) of the band.
  void (*inputs)(const Tiles&, int64_t begin, int64_t end);
  void (*outputs)(const Tiles&, int64_t begin, int64_t end);
};

struct SchemeTables {
  SchemeTable of[kSchemes];
};

FASTSEG_TABLES(SchemeTables, schemes);

// Outputs of a row, up to the next segment, that the taps [first, last) along x read for.
struct Segment {
  int64_t start, first, last;
};

// A filter for each channel. Pieces of rows of a plane, or of a block of channels, are walked over by themselves.
template <class T>
struct Depthwise {
  const T* x;
  T* y;             // [images, c, row_count, columns.out] or [images, row_count, columns.out, c], from first_row on
  const T* weight;  // [c, taps] or, in channels_last, [taps, c]
  T* scratch;       // of this thread: scratch_size() values
  int64_t images, c;
  ConvAxis rows, columns;
  int64_t first_row, row_count;
  int64_t piece;  // rows of the result that are walked over at once
  bool channels_last;
  int64_t lines;            // of channels that are walked over together, in channels_last
  bool in_place;            // all of them, where they are; else what a piece reads is copied to the scratch
  const Segment* segments;  // of a row, in channels_last, and one behind its end
  Epilogue<T> epilogue;

  static constexpr int64_t kLine = 64 / sizeof(T);  // channels of a cache line
  FASTSEG_INLINE int64_t block() const { return lines * kLine; }
  FASTSEG_INLINE int64_t pieces() const { return (row_count + piece - 1) / piece; }
  FASTSEG_INLINE int64_t blocks() const { return channels_last ? (c + block() - 1) / block() : c; }
  FASTSEG_INLINE int64_t tasks() const { return images * blocks() * pieces(); }
  FASTSEG_INLINE int64_t taps() const { return rows.taps * columns.taps; }
  // A row of a plane between its zeros, and a vector beyond.
  FASTSEG_INLINE int64_t padded_width() const {
    const int64_t reach = (columns.out - 1) * columns.stride + (columns.taps - 1) * columns.dilation + 1;
    const int64_t width = reach > columns.in + columns.padding ? reach : columns.in + columns.padding;
    return width + 16 * columns.stride;
  }
  FASTSEG_INLINE int64_t halo() const { return (rows.taps - 1) * rows.dilation; }
  // Rows of the source that a piece reads.
  FASTSEG_INLINE int64_t piece_rows() const {
    const int64_t reach = (piece - 1) * rows.stride + halo() + 1;
    return reach < rows.in ? reach : rows.in;
  }
  FASTSEG_INLINE int64_t row_size() const { return channels_last ? columns.in * block() : padded_width(); }
  FASTSEG_INLINE int64_t copy_size() const { return in_place ? 0 : piece_rows() * row_size(); }
  FASTSEG_INLINE int64_t scratch_size() const { return copy_size() + (channels_last ? taps() * block() : 0); }
};

template <class T>
struct DepthwiseTable {
  void (*forward)(const Depthwise<T>&, int64_t begin, int64_t end);
  // NCHW: y, the gradient of the result, is read; grad [c, taps] is written, of the channels [begin, end). `sums`
  // [taps].
  void (*weight_gradient)(const Depthwise<T>&, double* sums, T* grad, int64_t begin, int64_t end);
};

FASTSEG_TABLES(DepthwiseTable<float>, depthwise_f32);
FASTSEG_TABLES(DepthwiseTable<double>, depthwise_f64);

}  // namespace fastseg
