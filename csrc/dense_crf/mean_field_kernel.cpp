// Messages of the smoothness kernel and the update of mean field (Kraehenbuehl, Koltun 2011, "Efficient Inference in
// Fully Connected CRFs with Gaussian Edge Potentials", algorithm 1) on points whose channels lie beside each other.
//
// down and across: 2 reach + 1 products a value each, from the nearest cache. settle: a product for each kernel, two
// reductions over the channels and an exponential a value.
#include "lattice.h"
#include "mean_field.h"
#include "row.h"

namespace fastseg {
namespace {

constexpr int kVectors = 8;          // across
constexpr int kColumns = kRows / 2;  // vectors of a row, down

// `rows` rows from row i on, of `vectors`: sums over the rows near them, each of which is read once for all.
template <int rows, int vectors, class T>
FASTSEG_INLINE void down_rows(const T* const* in, int64_t j, int64_t n, int64_t i, Taps<T> taps, V<T>* sums) {
  constexpr int64_t L = Simd<T>::lanes;
  for (int s = 0; s < rows * vectors; ++s) sums[s] = V<T>{};
  const int64_t last = n - i < rows + taps.reach ? n : i + rows + taps.reach;
  for (int64_t k = i < taps.reach ? 0 : i - taps.reach; k < last; ++k) {
    const T* const from = in[k] + j;
    const T* const weights = taps.weights + (k - i);
    V<T> row[vectors];
    for (int v = 0; v < vectors; ++v) row[v] = load(from + v * L);
    for (int r = 0; r < rows; ++r) {
      const V<T> w = splat(weights[-r]);
      for (int v = 0; v < vectors; ++v) sums[r * vectors + v] = multiply_add<T>(w, row[v], sums[r * vectors + v]);
    }
  }
}

template <int rows, class T>
FASTSEG_INLINE void down_group(const T* const* in, int64_t n, int64_t i, int64_t length, Taps<T> taps, T* out,
                               int64_t step) {
  constexpr int64_t L = Simd<T>::lanes;
  V<T> sums[rows * kColumns];
  int64_t j = 0;
  for (; j + kColumns * L <= length; j += kColumns * L) {
    down_rows<rows, kColumns>(in, j, n, i, taps, sums);
    for (int s = 0; s < rows * kColumns; ++s) store(out + s / kColumns * step + j + s % kColumns * L, sums[s]);
  }
  for (; j < length; j += L) {
    down_rows<rows, 1>(in, j, n, i, taps, sums);
    const int64_t rest = length - j < L ? length - j : L;
    for (int r = 0; r < rows; ++r) memcpy(out + r * step + j, sums + r, rest * sizeof(T));
  }
}

template <class T>
void down(const T* const* in, int64_t n, int64_t begin, int64_t end, int64_t length, Taps<T> taps, T* out,
          int64_t step) {
  int64_t i = begin;
  for (; i + kTapRows <= end; i += kTapRows)
    down_group<kTapRows>(in, n, i, length, taps, out + (i - begin) * step, step);
  for (; i < end; ++i) down_group<1>(in, n, i, length, taps, out + (i - begin) * step, step);
}

template <int vectors, class T>
FASTSEG_INLINE void across_vectors(const T* row, int64_t pitch, Taps<T> taps, T* out) {
  constexpr int64_t L = Simd<T>::lanes;
  V<T> sums[vectors];
  for (int v = 0; v < vectors; ++v) sums[v] = splat(taps.weights[0]) * load(row + v * L);
  for (int64_t k = 1; k <= taps.reach; ++k) {
    const V<T> w = splat(taps.weights[k]);
    for (int v = 0; v < vectors; ++v)
      sums[v] = multiply_add<T>(w, load(row + v * L - k * pitch) + load(row + v * L + k * pitch), sums[v]);
  }
  for (int v = 0; v < vectors; ++v) store(out + v * L, sums[v]);
}

template <class T>
void across(const T* row, int64_t length, int64_t pitch, Taps<T> taps, T* out) {
  constexpr int64_t L = Simd<T>::lanes;
  int64_t j = 0;
  for (; j + kVectors * L <= length; j += kVectors * L) across_vectors<kVectors>(row + j, pitch, taps, out + j);
  for (; j < length; j += L) across_vectors<1>(row + j, pitch, taps, out + j);
}

template <int C, bool full, class T>
FASTSEG_INLINE Row<C, T> logits_of(const Settle<T>& p, int64_t i, int64_t chunk) {
  Row<C, T> sum = Row<C, T>::of(p.unary + chunk * p.unary_stride + i * C);
  for (int k = 0; k < 2; ++k) {
    if (!p.messages[k]) continue;
    const T *const message = p.messages[k] + i * C, *const old = p.old + i * C;
    const T after = p.after[k] ? p.after[k][i] : T(1), self = p.self[k] ? p.self[k][i] : T(0);
    if constexpr (!full) {
      auto one = Row<C, T>::of(message + chunk * p.message_stride);
      if (p.after[k]) one.scale(after);
      if (p.self[k]) one.add(Row<C, T>::of(old + chunk * p.stride), -self);
      const auto table = Row<C, T>::of(p.compatibility[k] + chunk * C);
      for (int v = 0; v < one.parts; ++v) sum.part[v] = sum.part[v] + table.part[v] * one.part[v];
      continue;
    }
    for (int64_t m = 0; m < p.channels; ++m) {
      const int64_t from = m / C, lane = m % C;
      T one = after * message[from * p.message_stride + lane];
      if (p.self[k]) one -= self * old[from * p.stride + lane];
      sum.add(Row<C, T>::of(p.compatibility[k] + (m * p.chunks + chunk) * C), one);
    }
  }
  sum.scale(T(-1));
  return sum;
}

template <int C, bool full, class T>
void logits_on(const Settle<T>& p) {
  Row<C, T> row[kMostChunks];
  for (int64_t i = 0; i < p.n; ++i) {
    for (int64_t c = 0; c < p.chunks; ++c) row[c] = logits_of<C, full>(p, i, c);
    for (int64_t c = 0; c < p.chunks; ++c) row[c].to(p.values + c * p.stride + i * C);
  }
}

// n points at once: while one waits for its sums, others go on. Registers hold them, but for the widest rows.
template <int C, int n, bool full, class T>
FASTSEG_INLINE void settle_points(const Settle<T>& p, int64_t i) {
  Row<C, T> rows[n];
  for (int k = 0; k < n; ++k) rows[k] = logits_of<C, full>(p, i + k, 0);
  for (auto& row : rows) {
    const T most = row.most();
    for (auto& part : row.part) part = part - most;
  }
  Row<C, T>::exponentiate(rows);
  T totals[n];
  for (int k = 0; k < n; ++k) totals[k] = rows[k].total();
  for (int k = 0; k < n; ++k) {
    rows[k].scale((p.kept ? p.kept[i + k] : T(1)) / totals[k]);
    rows[k].to(p.values + (i + k) * C);
  }
}

template <int C, bool full, class T>
void settle_chunk(const Settle<T>& given) {
  const Settle<T> p = given;  // which no store can change
  constexpr int n = C > 4 ? 2 : 4;
  int64_t i = 0;
  for (; i + n <= p.n; i += n) settle_points<C, n, full>(p, i);
  for (; i < p.n; ++i) settle_points<C, 1, full>(p, i);
}

// More channels than a chunk has.
template <bool full, class T>
void settle_chunks(const Settle<T>& given) {
  const Settle<T> p = given;
  constexpr int64_t kPoints = 16;  // at a time
  constexpr int C = kMostChannels;
  Row<C, T> row[kMostChunks];
  for (int64_t first = 0; first < p.n; first += kPoints) {
    const int64_t last = p.n - first < kPoints ? p.n : first + kPoints;
    for (int64_t i = first; i < last; ++i) {
      row[0] = logits_of<C, full>(p, i, 0);
      T most = row[0].most();
      for (int64_t c = 1; c < p.chunks; ++c) {
        row[c] = logits_of<C, full>(p, i, c);
        const T top = row[c].most();
        most = top > most ? top : most;
      }
      for (int64_t c = 0; c < p.chunks; ++c) {
        for (auto& part : row[c].part) part = part - most;
        row[c].to(p.values + c * p.stride + i * C);
      }
    }
    for (int64_t c = 0; c < p.chunks; ++c)
      for (int64_t j = first * C; j < last * C; j += Simd<T>::lanes) {
        T* const x = p.values + c * p.stride + j;
        store(x, exponential(load(x)));
      }
    for (int64_t i = first; i < last; ++i) {
      T total = 0;
      for (int64_t c = 0; c < p.chunks; ++c) {
        row[c] = Row<C, T>::of(p.values + c * p.stride + i * C);
        total += row[c].total();
      }
      const T factor = (p.kept ? p.kept[i] : T(1)) / total;
      for (int64_t c = 0; c < p.chunks; ++c) {
        row[c].scale(factor);
        row[c].to(p.values + c * p.stride + i * C);
      }
    }
  }
}

template <class T>
void logits(const Settle<T>& p) {
  by_pitch(p.pitch, [&](auto pitch) { p.full ? logits_on<pitch(), true>(p) : logits_on<pitch(), false>(p); });
}

template <class T>
void settle(const Settle<T>& p) {
  if (p.chunks > 1) return p.full ? settle_chunks<true>(p) : settle_chunks<false>(p);
  by_pitch(p.pitch, [&](auto pitch) { p.full ? settle_chunk<pitch(), true>(p) : settle_chunk<pitch(), false>(p); });
}

template <class T>
constexpr FieldKernels<T> kKernels{down<T>, across<T>, logits<T>, settle<T>};

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::FieldKernels<float> FASTSEG_FOR_ISA(mean_field_f32) = fastseg::kKernels<float>;
extern "C" const fastseg::FieldKernels<double> FASTSEG_FOR_ISA(mean_field_f64) = fastseg::kKernels<double>;
