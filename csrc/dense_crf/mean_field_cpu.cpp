#include <limits>
#include <memory>

#include "smoothness.h"

namespace fastseg {
namespace {

constexpr const char* kOp = "dense_crf";

enum class Output { logits, probabilities, labels };

struct Options {
  int64_t dims, iterations;  // dims: of the map
  Normalization norm;
  bool include_self, exact_spatial, exact_bilateral;
  Output output;
};

// Compatibilities [2, C, C], as Settle has them: diagonals, or columns where another number is not 0.
template <class T>
struct Compatibility {
  bool full = false;
  std::vector<T> tables[2];

  Compatibility(const T* matrices, int64_t channels, Block block) {
    const int64_t width = block.chunks * block.pitch;
    for (int64_t i = 0; i < 2 * channels * channels; ++i)
      full = full || (i / channels % channels != i % channels && matrices[i] != 0);
    for (int64_t k = 0; k < 2; ++k) {
      const T* const matrix = matrices + k * channels * channels;
      tables[k].assign(full ? channels * width : width, T(0));
      for (int64_t row = 0; row < channels; ++row)
        for (int64_t column = full ? 0 : row; column < (full ? channels : row + 1); ++column)
          tables[k][(full ? column * width : 0) + row] = matrix[row * channels + column];
    }
  }
};

template <class T>
class Field {
 public:
  Field(const Tensor& like, const Order& order, int64_t channels, const Options& options)
      : like_(like), order_(order), options_(options), channels_(channels), block_(channels) {
    order.list(kTile, runs_, first_);
  }

  // Energies [C, P] and features [d, P] -> logits or probabilities [C, P], or labels [P].
  void infer(const T* unary, const T* features, int64_t d, const double* sigma, const Compatibility<T>& compatibility,
             void* out) const {
    const int64_t points = order_.count(), stride = stride_of(block_, points);
    const Ranges tiles(int64_t(first_.size()) - 1, kTile * block_.size());
    std::vector<std::unique_ptr<Term<T>>> terms;
    const Tensor ordered = in_order(features, d);
    std::optional<Tensor> kept;
    if (options_.iterations > 0) {
      if (options_.exact_spatial) {
        auto term = std::make_unique<SmoothnessTerm<T>>(like_, order_, runs_, first_, sigma, block_, tiles.slots,
                                                        options_.norm, options_.include_self);
        kept = term->kept;
        terms.push_back(std::move(term));
      } else {
        terms.push_back(lattice_term(positions(sigma), options_.dims, tiles.slots, nullptr));
      }
      const T* const factors = kept ? data<T>(*kept) : nullptr;
      if (options_.exact_bilateral)
        terms.push_back(std::make_unique<PairwiseTerm<T>>(like_, ordered, d, points, block_, options_.norm,
                                                          options_.include_self, factors));
      else
        terms.push_back(lattice_term(ordered, d, tiles.slots, factors));
    }
    // Whoever looks at the values of all points needs those of the iteration before.
    const int64_t sides = options_.exact_spatial || options_.exact_bilateral ? 2 : 1;
    const Tensor energies = empty(like_, {block_.chunks * stride}, kScalar<T>);
    const Tensor values = empty(like_, {sides * block_.chunks * stride}, kScalar<T>);
    const int64_t local = block_.size();
    const Tensor messages = empty(like_, {tiles.slots * 2 * local}, kScalar<T>);
    for (int64_t iteration = 0; iteration <= options_.iterations; ++iteration) {
      const bool last = iteration == options_.iterations;
      T* const old = data<T>(values) + (iteration + 1) % sides * block_.chunks * stride;
      T* const now = data<T>(values) + iteration % sides * block_.chunks * stride;
      for (const auto& term : terms)
        if (iteration > 0) term->meet(old);
      tiles.run([&](int64_t slot, int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; ++tile) {
          const int64_t at = tile * kTile;
          if (iteration == 0) load(unary, tile, stride, data<T>(energies));
          Settle<T> p{};
          p.n = std::min(kTile, points - at);
          p.channels = channels_;
          p.chunks = block_.chunks;
          p.pitch = block_.pitch;
          p.unary = data<T>(energies) + at * block_.pitch;
          p.unary_stride = p.stride = stride;
          p.message_stride = block_.chunk();
          p.full = compatibility.full;
          p.old = old + at * block_.pitch;
          p.values = now + at * block_.pitch;
          p.kept = kept && !last ? data<T>(*kept) + at : nullptr;
          for (size_t k = 0; iteration > 0 && k < 2; ++k) {
            T* const message = data<T>(messages) + (slot * 2 + int64_t(k)) * local;
            terms[k]->give(slot, tile, message);
            p.messages[k] = message;
            p.compatibility[k] = compatibility.tables[k].data();
            p.after[k] = terms[k]->after ? data<T>(*terms[k]->after) + at : nullptr;
            p.self[k] = terms[k]->self ? data<T>(*terms[k]->self) + at : nullptr;
          }
          const auto& kernels = FASTSEG_PICK_FOR(T, mean_field);
          last&& options_.output != Output::probabilities ? kernels.logits(p) : kernels.settle(p);
          if (last) {
            store(p.values, stride, tile, out);
            continue;
          }
          for (const auto& term : terms) term->take(tile, now);
        }
      });
    }
  }

 private:
  const Tensor& like_;
  Order order_;
  Options options_;
  int64_t channels_;
  Block block_;
  std::vector<Run> runs_;
  std::vector<int64_t> first_;

  std::unique_ptr<Term<T>> lattice_term(const Tensor& features, int64_t d, int64_t slots, const T* kept) const {
    return std::make_unique<LatticeTerm<T>>(like_, data<T>(features), d, order_.count(), block_, slots, options_.norm,
                                            options_.include_self, kept);
  }

  // Planes [d, P] in the order.
  Tensor in_order(const T* planes, int64_t d) const {
    const int64_t points = order_.count();
    const Tensor ordered = empty(like_, {d, points}, kScalar<T>);
    Ranges(d, points).run([&](int64_t, int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        T* to = data<T>(ordered) + i * points;
        for (const Run& run : runs_) to = std::copy_n(planes + i * points + run.pixel, run.length, to);
      }
    });
    return ordered;
  }

  // Coordinates over their deviations [2 or 3, P], the last axis first.
  Tensor positions(const double* sigma) const {
    const int64_t points = order_.count(), dims = options_.dims;
    const Tensor at = empty(like_, {dims, points}, kScalar<T>);
    int64_t i = 0;
    for (const Run& run : runs_)
      for (int64_t pixel = run.pixel; pixel < run.pixel + run.length; ++pixel, ++i) {
        const int64_t x = pixel % order_.width, y = pixel / order_.width % order_.height;
        const int64_t place[] = {x, y, pixel / order_.width / order_.height};
        for (int64_t axis = 0; axis < dims; ++axis)
          data<T>(at)[axis * points + i] = T(double(place[axis]) / sigma[axis]);
      }
    return at;
  }

  int64_t some(int64_t chunk) const { return std::min(channels_ - chunk * kMostChannels, kMostChannels); }

  // Padded with labels that nothing is.
  void load(const T* unary, int64_t tile, int64_t stride, T* energies) const {
    const int64_t points = order_.count();
    for (int64_t c = 0; c < block_.chunks; ++c) {
      T* to = energies + c * stride + tile * kTile * block_.pitch;
      for (int64_t r = first_[tile]; r < first_[tile + 1]; ++r) {
        const T* const from = unary + c * kMostChannels * points + runs_[r].pixel;
        FASTSEG_PICK_FOR(T, lattice_filter)
            .load(from, points, some(c), runs_[r].length, block_.pitch, std::numeric_limits<T>::infinity(), to);
        to += runs_[r].length * block_.pitch;
      }
    }
  }

  void store(const T* values, int64_t stride, int64_t tile, void* out) const {
    if (options_.output == Output::labels) return store_labels(values, stride, tile, (int64_t*)out);
    const int64_t points = order_.count();
    for (int64_t c = 0; c < block_.chunks; ++c) {
      const T* from = values + c * stride;
      for (int64_t r = first_[tile]; r < first_[tile + 1]; ++r) {
        T* const to = (T*)out + c * kMostChannels * points + runs_[r].pixel;
        FASTSEG_PICK_FOR(T, lattice_filter).store(from, block_.pitch, some(c), runs_[r].length, points, to);
        from += runs_[r].length * block_.pitch;
      }
    }
  }

  // The first label of the largest logit; NaN is larger than all.
  void store_labels(const T* values, int64_t stride, int64_t tile, int64_t* labels) const {
    for (int64_t r = first_[tile], i = 0; r < first_[tile + 1]; ++r)
      for (int64_t j = 0; j < runs_[r].length; ++j, ++i) {
        int64_t best = 0;
        T most = values[i * block_.pitch];
        for (int64_t c = 1; c < channels_; ++c) {
          const T x = values[c / kMostChannels * stride + i * block_.pitch + c % kMostChannels];
          if (!(x > most || (x != x && most == most))) continue;
          best = c;
          most = x;
        }
        labels[runs_[r].pixel + j] = best;
      }
  }
};

Output output_of(const std::string& name) {
  FASTSEG_CHECK(name == "logits" || name == "probabilities" || name == "labels", kOp, "output",
                "be logits, probabilities or labels, got ", name);
  return name == "logits" ? Output::logits : name == "labels" ? Output::labels : Output::probabilities;
}

bool is_exact(const char* argument, const std::string& name) {
  FASTSEG_CHECK(name == "exact" || name == "lattice", kOp, argument, "be exact or lattice, got ", name);
  return name == "exact";
}

Tensor dense_crf(const Tensor& unary, const Tensor& features, std::vector<double> sigma, const Tensor& compatibility,
                 int64_t iterations, std::string normalization, bool include_self, std::string spatial,
                 std::string bilateral, std::string output) {
  const Float type = float_type(kOp, "unary", unary);
  const int64_t dims = unary.dim() - 2;
  FASTSEG_CHECK((dims == 2 || dims == 3) && (type == Float::f32 || type == Float::f64), kOp, "unary",
                "be float32 or float64 [N, C, H, W] or [N, C, D, H, W], got ", unary.dim(), " dimensions");
  FASTSEG_CHECK(features.dim() == unary.dim() && features.scalar_type() == unary.scalar_type(), kOp, "features",
                "have the dtype and the dimensions of unary, got ", features.dim());
  for (int64_t i = 0; i < unary.dim(); ++i)
    FASTSEG_CHECK(i == 1 || features.size(i) == unary.size(i), kOp, "features", "have the size of unary, got ",
                  features.size(i), " along ", i);
  FASTSEG_CHECK(int64_t(sigma.size()) == dims, kOp, "sigma", "be ", dims, " numbers, got ", sigma.size());
  for (const double x : sigma) FASTSEG_CHECK(x > 0, kOp, "spatial_sigma", "be positive, got ", x);
  const int64_t n = unary.size(0), c = unary.size(1), d = features.size(1);
  int64_t points = 1;
  for (int64_t i = 2; i < unary.dim(); ++i) points *= unary.size(i);
  FASTSEG_CHECK(compatibility.dim() == 3 && compatibility.size(0) == 2 && compatibility.size(1) == c &&
                    compatibility.size(2) == c && compatibility.scalar_type() == unary.scalar_type(),
                kOp, "compatibility", "be [2, ", c, ", ", c, "] of unary's dtype, got ", compatibility.dim(),
                " dimensions");
  FASTSEG_CHECK(c <= kMostChunks * kMostChannels, kOp, "unary", "have at most ", kMostChunks * kMostChannels,
                " labels, got ", c);
  FASTSEG_CHECK(iterations >= 0, kOp, "iterations", "be at least 0, got ", iterations);
  const Options options{dims,
                        iterations,
                        Normalization(kOp, normalization),
                        include_self,
                        is_exact("spatial", spatial),
                        is_exact("bilateral", bilateral),
                        output_of(output)};
  const bool lattice = iterations > 0 && !(options.exact_spatial && options.exact_bilateral);
  FASTSEG_CHECK(!lattice || points * (std::max(d, dims) + 1) < int64_t(1) << 31, kOp, "unary",
                "have fewer than 2^31 / (dimensions + 1) pixels where a lattice is used, got ", points);
  FASTSEG_CHECK(options.exact_bilateral || (d >= 1 && d <= kMostDims), kOp, "features",
                "have from 1 to 8 dimensions on a lattice, got ", d);
  took(kOp);
  const bool labels = options.output == Output::labels;
  std::vector<int64_t> sizes{n, c};
  if (labels) sizes.pop_back();
  for (int64_t i = 2; i < unary.dim(); ++i) sizes.push_back(unary.size(i));
  Tensor out = empty(unary, sizes, labels ? ScalarType::Long : unary.scalar_type());
  if (unary.numel() == 0) return out;
  const Tensor u = torch::stable::contiguous(unary), f = torch::stable::contiguous(features);
  const Tensor table = torch::stable::contiguous(compatibility);
  std::reverse(sigma.begin(), sigma.end());
  const Order order{dims == 3 ? unary.size(2) : 1, unary.size(dims), unary.size(dims + 1)};
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const Compatibility<T> tables(data<T>(table), c, Block(c));
    const Field<T> field(unary, order, c, options);
    for (int64_t i = 0; options.exact_bilateral && i < n * d; ++i)
      FASTSEG_CHECK(FASTSEG_PICK_FOR(T, lattice).extent(data<T>(f) + i * points, points).odd == 0, kOp, "features",
                    "be finite, got NaN or infinity");
    for (int64_t i = 0; i < n; ++i) {
      T* const to = data<T>(out) + (labels ? 0 : i * c * points);
      field.infer(data<T>(u) + i * c * points, data<T>(f) + i * d * points, d, sigma.data(), tables,
                  labels ? (void*)(data<int64_t>(out) + i * points) : to);
    }
  });
  return out;
}

}  // namespace
}  // namespace fastseg

STABLE_TORCH_LIBRARY_IMPL(fastseg, CPU, m) { m.impl("dense_crf", TORCH_BOX(&fastseg::dense_crf)); }
