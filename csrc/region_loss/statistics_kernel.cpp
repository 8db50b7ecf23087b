// Sums over the pixels of bilinearly upsampled logits, per image and class: Lin et al. 2017, eq. 4 (focal), Milletari
// et al. 2016, eq. 1 (Dice), Salehi et al. 2017, eq. 3 (Tversky), and cross-entropy are functions of them.
//
// Softmax: the exponentials of a vector of columns as upsample/softmax_kernel.cpp has them, kept in the first-level
// cache; a second pass over the classes divides by their sum: 4 operations more per class and pixel. What only the true
// class has is added lane by lane, each lane to a sum of its own, so that equal classes side by side do not wait for
// each other. Sigmoid: classes one after the other, with their sums in registers; an exponential and a logarithm per
// class and pixel. Sums are of T within a few runs of rows, and double from there on.
#include "terms.h"

namespace fastseg {
namespace {

// Sums of all classes, a lane each: of T, added to doubles before they lose digits.
template <class T>
struct Lanes {
  static constexpr int L = Simd<T>::lanes;
  static constexpr int64_t kOften = 64;  // additions to a lane until then, of a run of rows each
  static constexpr int64_t kOwn = 4, kClass = kSoftmaxSums * L;
  static constexpr Sums kOrder[kOwn] = {kOverlap, kTrue, kEntropy, kFocal};
  T* part;  // [c]: sums of p and p^2 [2, lanes], then those of kOrder [lanes, kOwn]
  double* whole;
  int64_t size, since = 0;

  Lanes(T* part_, double* whole_, int64_t classes) : part(part_), whole(whole_), size(classes * kClass) {
    for (int64_t i = 0; i < size; ++i) whole[i] = part[i] = 0;
  }
  void add(int64_t c, V<T> p, V<T> squares) {
    T* at = part + c * kClass;
    store(at, load(at) + p);
    store(at + L, load(at + L) + squares);
  }
  // Adds terms [lanes, kOwn], each lane to its class.
  void add_own(const T* terms, const typename Simd<T>::Int* own) {
    using Four = typename Narrow<T, kOwn>::type;
    for (int l = 0; l < L; ++l) {
      T* at = part + own[l] * kClass + 2 * L + l * kOwn;
      Four term, sum;
      memcpy(&term, terms + l * kOwn, sizeof term);
      memcpy(&sum, at, sizeof sum);
      sum += term;
      memcpy(at, &sum, sizeof sum);
    }
  }
  void settle() {
    for (int64_t i = 0; i < size; ++i) whole[i] += part[i];
    for (int64_t i = 0; i < size; ++i) part[i] = 0;
    since = 0;
  }
  void count() {
    if (++since == kOften) settle();
  }
  // [c, kSoftmaxSums]
  void total(double* out) {
    settle();
    for (int64_t i = 0; i < size / L; ++i) out[i] = 0;
    for (const double* from = whole; from < whole + size; from += kClass, out += kSoftmaxSums)
      for (int l = 0; l < L; ++l) {
        out[kPredicted] += from[l];
        out[kSquared] += from[L + l];
        for (int64_t k = 0; k < kOwn; ++k) out[kOrder[k]] += from[2 * L + l * kOwn + k];
      }
  }
};

// Adds the terms of R rows, [c, R or more, lanes] `apart`, to the sums of p and p^2.
template <class T, int R>
void add_rows(const T* terms, int64_t apart, int64_t classes, const V<T>* inverse, Lanes<T>& sums) {
  constexpr int L = Simd<T>::lanes;
  V<T> scale[R];
  for (int j = 0; j < R; ++j) scale[j] = inverse[j];
  for (int64_t c = 0; c < classes; ++c, terms += apart) {
    V<T> p = load(terms) * scale[0], sum = p, squares = p * p;
#pragma GCC unroll 8
    for (int j = 1; j < R; ++j) {
      p = load(terms + j * L) * scale[j];
      sum += p;
      squares += p * p;
    }
    sums.add(c, sum, squares);
  }
}

template <class T>
void softmax(const Statistics<T>& s, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  using Scalar = typename Simd<T>::Int;
  const Softmax<T>& p = s.pixels;
  const int64_t classes = p.source.c;
  T* part = p.scratch + (2 + kRows) * classes * L;
  double* whole = (double*)(part + kSoftmaxSums * classes * L);

  // What a vector of pixels adds to the sums of their own classes.
  const auto add_true = [&](I<T> own, V<T> probability, V<T> entropy, Lanes<T>& sums) {
    const I<T> counted = own >= Scalar(0);
    probability = counted ? probability : V<T>{};  // 0 * NaN is not 0
    entropy = counted ? entropy : V<T>{};
    V<T> focal = {};
    if (s.focal) focal = entropy * power<T>(T(1) - probability, s.gamma);
    const V<T> one = counted ? splat(T(1)) : V<T>{};
    T even[2 * L], odd[2 * L], terms[4 * L];  // [lanes, 4] at last
    store_pairs<T>(even, probability, entropy);
    store_pairs<T>(odd, one, focal);
    store_pairs<T>(terms, load(even), load(odd));
    store_pairs<T>(terms + 2 * L, load(even + L), load(odd + L));
    Scalar place[L];
    const I<T> index = counted ? own : I<T>{};
    memcpy(place, &index, sizeof place);
    sums.add_own(terms, place);
  };

  for (int64_t i = begin; i < end; ++i) {
    Lanes<T> sums(part, whole, classes);
    int64_t bad = -1;
    each_run(p, i, [&](const Block<T>& block, const Run<T>& run, int64_t x, int64_t n) {
      const int64_t pixel = (block.cell.image * p.y.out + run.y) * p.x.out + x;
      I<T> own[kRows];
      V<T> sum[kRows], inverse[kRows];
      for (int64_t j = 0; j < run.n; ++j) own[j] = classes_of<T>(p, s.first, classes, pixel + j * p.x.out, n, &bad);
      if (block.progressive(run)) {
        const int64_t rows = run.n > 4 ? kRows : 4;
        block.template sums<true>(run, sum);
        for (int64_t j = 0; j < run.n; ++j) inverse[j] = own[j] != Scalar(kIgnored) ? T(1) / sum[j] : V<T>{};
        if (run.n == kRows)
          add_rows<T, kRows>(block.value, rows * L, classes, inverse, sums);
        else if (run.n == 4)
          add_rows<T, 4>(block.value, rows * L, classes, inverse, sums);
        else
          for (int64_t j = 0; j < run.n; ++j) add_rows<T, 1>(block.value + j * L, rows * L, classes, inverse + j, sums);
        for (int64_t j = 0; j < run.n; ++j) {
          const I<T> place = ((own[j] >= 0 ? own[j] : I<T>{}) * Scalar(rows) + Scalar(j)) * Scalar(L) + counting<T>();
          const V<T> term = gather_lanes<T>(block.value, place);
          add_true(own[j], term * inverse[j], logarithm(sum[j]) - logarithm(term), sums);
        }
      } else {
        for (int64_t j = 0; j < run.n; ++j) {
          const V<T> reference = block.row(run.y + j);
          const I<T> place = (own[j] >= 0 ? own[j] : I<T>{}) * Scalar(L) + counting<T>();
          const V<T> value = gather_lanes<T>(block.value, place) - reference;
          const V<T> total = block.template sum<true>(reference), factor = T(1) / total;
          const I<T> counted = own[j] != Scalar(kIgnored);
          for (int64_t c = 0; c < classes; ++c) {
            const V<T> term = load(block.value + c * L) * factor, probability = counted ? term : V<T>{};
            sums.add(c, probability, probability * probability);
          }
          const V<T> entropy = logarithm(total) - value;
          add_true(own[j], gather_lanes<T>(block.value, place) * factor, entropy, sums);
        }
      }
      sums.count();
    });
    sums.total(s.sums + i * classes * kSoftmaxSums);
    p.bad[i] = bad;
  }
}

// Adds one class of a vector of pixels to its sums.
template <class T>
struct OneClass {
  V<T> sums[kSigmoidSums] = {};

  void add(const Sigmoid<T>& of, I<T> hit, I<T> counted, const Statistics<T>& s) {
    const V<T> p = counted ? of.p : V<T>{}, entropy = counted ? (hit ? of.yes : of.no) : V<T>{};
    V<T> focal = {};
    if (s.focal) focal = entropy * power<T>(counted ? (hit ? of.q : of.p) : V<T>{}, s.gamma);
    sums[kOverlap] += hit ? p : V<T>{};
    sums[kPredicted] += p;
    sums[kSquared] += p * p;
    sums[kTrue] += hit ? splat(T(1)) : V<T>{};
    sums[kEntropy] += hit ? entropy : V<T>{};
    sums[kFocal] += hit ? focal : V<T>{};
    sums[kOtherEntropy] += hit ? V<T>{} : entropy;
    sums[kOtherFocal] += hit ? V<T>{} : focal;
  }
};

template <class T>
void sigmoid(const Statistics<T>& s, int64_t begin, int64_t end) {
  constexpr int L = Simd<T>::lanes;
  using Scalar = typename Simd<T>::Int;
  const Softmax<T>& p = s.pixels;
  const Maps<T>& source = p.source;
  Scalar* own = (Scalar*)p.scratch;  // [kTileRows, kTile]
  for (int64_t i = begin; i < end; ++i) {
    const CellRow<T> cell(p.y, i);
    double* sums = s.sums + i * source.c * kSigmoidSums;
    int64_t bad = -1;
    for (int64_t k = 0; k < source.c * kSigmoidSums; ++k) sums[k] = 0;
    for (int64_t y0 = cell.begin; y0 < cell.end; y0 += kTileRows)
      for (int64_t x0 = 0; x0 < p.x.out; x0 += kTile) {
        const int64_t y1 = least(y0 + kTileRows, cell.end), x1 = least(x0 + kTile, p.x.out);
        for (int64_t y = y0; y < y1; ++y)
          for (int64_t x = x0; x < x1; x += L) {
            const int64_t pixel = (cell.image * p.y.out + y) * p.x.out + x;
            const I<T> mine = classes_of<T>(p, s.first, source.c, pixel, least(L, x1 - x), &bad);
            memcpy(own + (y - y0) * kTile + (x - x0), &mine, sizeof mine);
          }
        for (int64_t c = 0; c < source.c; ++c) {
          const T* map = source.data + cell.image * source.stride_n + c * source.stride_c;
          OneClass<T> tile;
          for (int64_t x = x0; x < x1; x += L) {
            const Columns<T> k = columns(p.x, x);
            const V<T> top = along(map + cell.row * source.stride_y, k);
            const V<T> bottom = along(map + cell.below * source.stride_y, k);
            for (int64_t y = y0; y < y1; ++y) {
              const I<T> mine = load_lanes<T>(own + (y - y0) * kTile + (x - x0));
              const V<T> z = blend<T>(top, splat(p.y.lower_weight[y]), bottom, splat(p.y.upper_weight[y]));
              tile.add(Sigmoid<T>(z), mine == Scalar(c), mine != Scalar(kIgnored), s);
            }
          }
          for (int64_t k = 0; k < kSigmoidSums; ++k)
            for (int l = 0; l < L; ++l) sums[c * kSigmoidSums + k] += tile.sums[k][l];
        }
      }
    p.bad[i] = bad;
  }
}

}  // namespace
}  // namespace fastseg

extern "C" const fastseg::StatisticsKernels<float> FASTSEG_FOR_ISA(statistics_f32) = {fastseg::softmax<float>,
                                                                                      fastseg::sigmoid<float>};
extern "C" const fastseg::StatisticsKernels<double> FASTSEG_FOR_ISA(statistics_f64) = {fastseg::softmax<double>,
                                                                                       fastseg::sigmoid<double>};
