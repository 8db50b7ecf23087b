// CUDA on the host: what kernels and their launchers need of CUDA, as plain C++, so that the very files that nvcc
// compiles run under gcc's sanitizers. Each CUDA thread is a fiber; blocks run one after the other.
//
// Found: barriers that not all threads of a block reach, or reach at different places; warp operations whose mask names
// a lane that does not come; launches that no GPU takes; reads of shared memory that nothing wrote (it is NaN before
// each block); out-of-bounds accesses, of shared memory too (AddressSanitizer: every array is an allocation of its
// exact size); races within a block and between blocks (ThreadSanitizer). Not modelled: weak memory order, timing, bank
// conflicts.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <type_traits>

#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace fastseg::host {

using Place = std::source_location;

struct Coordinates {
  uint3 thread, block;
  dim3 threads, blocks;
};

const Coordinates& here();

// Waits for all threads of the block, or for the lanes of the mask.
void wait_block(Place at);
void wait_warp(unsigned mask, Place at);

// What `lane` of this warp offers, after every lane of the mask has offered something of the same size.
void exchange(unsigned mask, const void* mine, void* theirs, size_t size, unsigned lane, Place at);

// 2^31 - 1, or FASTSEG_HOST_BLOCKS: with few blocks kernels have to stride over their tasks.
// FASTSEG_HOST_ORDER=backwards runs the last block and its last thread first. FASTSEG_HOST_ENDS=1 runs no block of a
// grid but the first and the last: of results too large to be computed whole.
int64_t most_blocks();

// Runs `body` once for each thread; throws what went wrong.
void launch(int64_t blocks, int threads, size_t dynamic_bytes, const std::function<void()>& body);

// Shared memory of this block: the same for the same tag, NaN (all bits set) until it is written.
void* shared(const void* tag, size_t bytes);
void* dynamic_shared();

template <class T>
T from_lane(unsigned mask, T value, unsigned lane, Place at) {
  static_assert(sizeof(T) <= 16);
  T theirs;
  exchange(mask, &value, &theirs, sizeof value, lane, at);
  return theirs;
}

inline unsigned lane() {
  const Coordinates& c = here();
  return (c.thread.x + c.threads.x * (c.thread.y + c.threads.y * c.thread.z)) % 32;
}

template <class T, class Combine>
T atomically(T* p, Combine combine) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  Bits old = __atomic_load_n((Bits*)p, __ATOMIC_RELAXED), next;
  T before, after;
  do {
    memcpy(&before, &old, sizeof before);
    after = combine(before);
    memcpy(&next, &after, sizeof after);
  } while (!__atomic_compare_exchange_n((Bits*)p, &old, next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return before;
}

}  // namespace fastseg::host

#define threadIdx (::fastseg::host::here().thread)
#define blockIdx (::fastseg::host::here().block)
#define blockDim (::fastseg::host::here().threads)
#define gridDim (::fastseg::host::here().blocks)

#define FASTSEG_SHARED(T, name, count) \
  static char name##_tag;              \
  T* const name = (T*)::fastseg::host::shared(&name##_tag, sizeof(T) * (count))
#define FASTSEG_DYNAMIC_SHARED(T, name) T* const name = (T*)::fastseg::host::dynamic_shared()

inline void __syncthreads(::fastseg::host::Place at = ::fastseg::host::Place::current()) {
  ::fastseg::host::wait_block(at);
}

inline void __syncwarp(unsigned mask = ~0u, ::fastseg::host::Place at = ::fastseg::host::Place::current()) {
  ::fastseg::host::wait_warp(mask, at);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
              ::fastseg::host::Place at = ::fastseg::host::Place::current()) {
  const unsigned me = ::fastseg::host::lane();
  return ::fastseg::host::from_lane(mask, value, (me & ~(width - 1)) | (lane & (width - 1)), at);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  ::fastseg::host::Place at = ::fastseg::host::Place::current()) {
  const unsigned me = ::fastseg::host::lane(), other = me ^ bits;
  return ::fastseg::host::from_lane(mask, value, (other ^ me) & ~(width - 1) ? me : other, at);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                   ::fastseg::host::Place at = ::fastseg::host::Place::current()) {
  const unsigned me = ::fastseg::host::lane(), other = me + by;
  return ::fastseg::host::from_lane(mask, value, (me % width) + by < unsigned(width) ? other : me, at);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                 ::fastseg::host::Place at = ::fastseg::host::Place::current()) {
  const unsigned me = ::fastseg::host::lane();
  return ::fastseg::host::from_lane(mask, value, me % width >= by ? me - by : me, at);
}

unsigned __ballot_sync(unsigned mask, int predicate, ::fastseg::host::Place at = ::fastseg::host::Place::current());

inline int __any_sync(unsigned mask, int predicate, ::fastseg::host::Place at = ::fastseg::host::Place::current()) {
  return __ballot_sync(mask, predicate, at) != 0;
}

inline int __all_sync(unsigned mask, int predicate, ::fastseg::host::Place at = ::fastseg::host::Place::current()) {
  return __ballot_sync(mask, !predicate, at) == 0;
}

template <class T>
T __ldg(const T* p) {
  return *p;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }

template <class T>
T atomicAdd(T* p, std::type_identity_t<T> value) {
  return ::fastseg::host::atomically(p, [&](T old) { return T(old + value); });
}

template <class T>
T atomicMin(T* p, std::type_identity_t<T> value) {
  return ::fastseg::host::atomically(p, [&](T old) { return value < old ? value : old; });
}

template <class T>
T atomicMax(T* p, std::type_identity_t<T> value) {
  return ::fastseg::host::atomically(p, [&](T old) { return old < value ? value : old; });
}

template <class T>
T atomicOr(T* p, std::type_identity_t<T> value) {
  return ::fastseg::host::atomically(p, [&](T old) { return T(old | value); });
}

template <class T>
T atomicExch(T* p, std::type_identity_t<T> value) {
  return ::fastseg::host::atomically(p, [&](T) { return value; });
}

template <class T>
T atomicCAS(T* p, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  return ::fastseg::host::atomically(p, [&](T old) { return old == compare ? value : old; });
}
