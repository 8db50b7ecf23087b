// Tensors for the glue files: types, memory formats, allocation through torch, and ranges over threads.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "checks.h"
#include "dtypes.h"
#include "path.h"

#if defined(__linux__) && !defined(__CUDACC__)
#include <sys/mman.h>
#endif

namespace fastseg {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class T>
constexpr ScalarType kScalar = sizeof(T) == 4 ? ScalarType::Float : ScalarType::Double;

inline Float float_type(const char* op, const char* argument, const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return Float::f32;
    case ScalarType::Double:
      return Float::f64;
    case ScalarType::BFloat16:
      return Float::bf16;
    case ScalarType::Half:
      return Float::f16;
    default:
      fail(op, argument, "be floating, got scalar type ", int(x.scalar_type()));
  }
}

inline Int int_type(const char* op, const char* argument, ScalarType type) {
  switch (type) {
    case ScalarType::Byte:
      return Int::u8;
    case ScalarType::Char:
      return Int::i8;
    case ScalarType::Short:
      return Int::i16;
    case ScalarType::Int:
      return Int::i32;
    case ScalarType::Long:
      return Int::i64;
    default:
      fail(op, argument, "be uint8, int8, int16, int32 or int64, got scalar type ", int(type));
  }
}

// channels_last and not also NCHW: the rule of fastseg.reference.upsample.memory_format.
inline bool is_channels_last(const Tensor& x) {
  if (x.is_contiguous()) return false;
  int64_t expected = 1;
  for (const int d : {1, 3, 2, 0}) {
    if (x.size(d) != 1 && x.stride(d) != expected) return false;
    expected *= x.size(d);
  }
  return true;
}

// Fresh memory of large outputs is mapped in huge pages: a page fault per 4 KiB costs more than the kernels do.
inline Tensor huge(Tensor x, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__) && !defined(__CUDACC__)
  constexpr uintptr_t kPage = 2 << 20;
  if (bytes >= int64_t(2 * kPage)) {
    const uintptr_t start = (uintptr_t(x.data_ptr()) + kPage - 1) / kPage * kPage;
    const uintptr_t stop = (uintptr_t(x.data_ptr()) + bytes) / kPage * kPage;
    if (start < stop) madvise((void*)start, stop - start, MADV_HUGEPAGE);  // a hint: failure changes nothing
  }
#endif
  return x;
}

inline int64_t element_size(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
    case ScalarType::Long:
      return 8;
    case ScalarType::Float:
    case ScalarType::Int:
      return 4;
    case ScalarType::Half:
    case ScalarType::BFloat16:
    case ScalarType::Short:
      return 2;
    default:
      return 1;
  }
}

inline Tensor empty(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type) {
  int64_t bytes = element_size(type);
  for (const int64_t s : sizes) bytes *= s;
  return huge(torch::stable::new_empty(like, sizes, type), bytes);
}

inline Tensor zeros(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type) {
  return torch::stable::new_zeros(like, sizes, type);
}

// [n, c, h, w] in either memory format.
inline Tensor empty_images(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w, ScalarType type,
                           bool channels_last) {
  if (!channels_last) return empty(like, {n, c, h, w}, type);
  return torch::stable::transpose(torch::stable::transpose(empty(like, {n, h, w, c}, type), 1, 3), 2, 3);
}

// Throws for the label at flat index `at` of a contiguous tensor [N, H, W], which `label` points to.
[[noreturn]] inline void fail_label(const char* op, const char* argument, const Tensor& labels, Int type, int64_t at,
                                    int64_t classes, const void* label) {
  int64_t value = 0;
  switch (type) {
    case Int::u8:
      value = *(const uint8_t*)label;
      break;
    case Int::i8:
      value = *(const int8_t*)label;
      break;
    case Int::i16:
      value = *(const int16_t*)label;
      break;
    case Int::i32:
      value = *(const int32_t*)label;
      break;
    case Int::i64:
      value = *(const int64_t*)label;
      break;
  }
  const int64_t w = labels.size(2), h = labels.size(1);
  fail(op, argument, "be in [0, ", classes, ") or ignore_index, got ", value, " at [", at / (h * w), ", ", at / w % h,
       ", ", at % w, "]");
}

[[noreturn]] inline void fail_label(const char* op, const char* argument, const Tensor& labels, Int type, int64_t at,
                                    int64_t classes) {
  fail_label(op, argument, labels, type, at, classes, (const char*)labels.data_ptr() + at * size_of(type));
}

// Calls work(slot, begin, end) on about equal parts of [0, tasks), at most one per thread; slots count from 0.
// `cost` is the number of elementary operations of a task: small jobs stay on one thread.
struct Ranges {
  int64_t tasks, slots;

  Ranges(int64_t tasks_, int64_t cost)
      : tasks(tasks_),
        slots(std::max<int64_t>(1, std::min({int64_t(torch::stable::get_num_threads()), tasks_,
                                             tasks_ * std::max<int64_t>(cost, 1) >> 15}))) {}

  template <class Work>
  void run(const Work& work) const {
    if (slots == 1) return work(0, 0, tasks);
    torch::stable::parallel_for(0, slots, 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) work(s, tasks * s / slots, tasks * (s + 1) / slots);
    });
  }
};

}  // namespace fastseg
