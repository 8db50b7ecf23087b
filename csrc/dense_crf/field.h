// Mean field of one sample, for the glue files.
#pragma once
#include <memory>

#include "options.h"
#include "smoothness.h"

namespace fastseg {

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
  Field(const Tensor& like, const Map<T>& map, int64_t channels, const Options& options)
      : like_(like), map_(map), options_(options), channels_(channels), block_(channels) {}

  // Energies [C, P] and features [d, P] -> logits or probabilities [C, P], or labels [P]. sigma: of the last axis
  // first.
  void infer(const T* unary, const T* features, int64_t d, const double* sigma, const Compatibility<T>& compatibility,
             void* out) const {
    const int64_t points = map_.order.count(), stride = stride_of(block_, points), local = block_.size();
    const Ranges tiles(map_.tiles(), kTile * local);
    const auto terms = options_.iterations ? terms_of(features, d, sigma, tiles.slots) : Terms{};
    const T* const kept = !terms.empty() && terms[0]->kept ? data<T>(*terms[0]->kept) : nullptr;
    // Values of all points are kept where a term looks at them, and those of the iteration before where at others'.
    const bool others = options_.exact_spatial || options_.exact_bilateral, all = others || !options_.include_self;
    const Tensor energies = empty(like_, {block_.chunks * stride}, kScalar<T>);
    const int64_t size = block_.chunks * stride, sides = others ? 2 : 1;
    const Tensor values = empty(like_, {all ? sides * size : tiles.slots * local}, kScalar<T>);
    const Tensor messages = empty(like_, {tiles.slots * 2 * local}, kScalar<T>);
    for (int64_t iteration = 0; iteration <= options_.iterations; ++iteration) {
      const bool last = iteration == options_.iterations;
      T* const old = data<T>(values) + (iteration + 1) % sides * size;
      T* const now = data<T>(values) + iteration % sides * size;
      for (const auto& term : terms)
        if (iteration > 0) term->meet(old);
      tiles.run([&](int64_t slot, int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; ++tile) {
          const int64_t at = tile * kTile;
          Settle<T> p{};
          p.n = std::min(kTile, points - at);
          p.channels = channels_;
          p.chunks = block_.chunks;
          p.pitch = block_.pitch;
          p.unary = data<T>(energies) + at * block_.pitch;
          p.unary_stride = stride;
          p.message_stride = block_.chunk();
          p.full = compatibility.full;
          p.stride = all ? stride : block_.chunk();
          p.old = old + at * block_.pitch;
          p.values = all ? now + at * block_.pitch : now + slot * local;
          p.kept = kept && !last ? kept + at : nullptr;
          if (iteration == 0) map_.load(unary, channels_, tile, block_, stride, data<T>(energies) + at * block_.pitch);
          for (size_t k = 0; iteration > 0 && k < 2; ++k) {
            T* const message = data<T>(messages) + (slot * 2 + int64_t(k)) * local;
            terms[k]->give(slot, tile, message);
            p.messages[k] = message;
            p.compatibility[k] = compatibility.tables[k].data();
            p.after[k] = terms[k]->after ? data<T>(*terms[k]->after) + at : nullptr;
            p.self[k] = terms[k]->self ? data<T>(*terms[k]->self) + at : nullptr;
          }
          finish(p, last, tile, terms, out);
        }
      });
    }
  }

 private:
  using Terms = std::vector<std::unique_ptr<Term<T>>>;

  const Tensor& like_;
  const Map<T>& map_;
  Options options_;
  int64_t channels_;
  Block block_;

  Terms terms_of(const T* features, int64_t d, const double* sigma, int64_t slots) const {
    Terms terms;
    const int64_t points = map_.order.count();
    const auto on_lattice = [&](const char* argument, const Tensor& of, int64_t dims, const T* kept) {
      terms.push_back(std::make_unique<LatticeTerm<T>>(like_, argument, data<T>(of), dims, points, block_, slots,
                                                       options_.norm, options_.include_self, kept));
    };
    if (options_.exact_spatial)
      terms.push_back(
          std::make_unique<SmoothnessTerm<T>>(like_, map_, sigma, block_, slots, options_.norm, options_.include_self));
    else
      on_lattice("spatial_sigma", map_.positions(like_, sigma), map_.dims, nullptr);
    const T* const kept = terms[0]->kept ? data<T>(*terms[0]->kept) : nullptr;
    const Tensor ordered = map_.in_order(like_, features, d);
    if (options_.exact_bilateral)
      terms.push_back(std::make_unique<PairwiseTerm<T>>(like_, ordered, d, points, block_, options_.norm,
                                                        options_.include_self, kept));
    else
      on_lattice("image", ordered, d, kept);
    return terms;
  }

  // The values of a tile, for the next iteration or as the result.
  void finish(const Settle<T>& p, bool last, int64_t tile, const Terms& terms, void* out) const {
    const auto& kernels = FASTSEG_PICK_FOR(T, mean_field);
    if (last && options_.output != Output::probabilities)
      kernels.logits(p);
    else
      kernels.settle(p);
    if (last && options_.output == Output::labels)
      map_.store_labels(p.values, channels_, tile, block_, p.stride, (int64_t*)out);
    else if (last)
      map_.store(p.values, channels_, tile, block_, p.stride, (T*)out);
    else
      for (const auto& term : terms) term->take(tile, p.values, p.stride);
  }
};

}  // namespace fastseg
