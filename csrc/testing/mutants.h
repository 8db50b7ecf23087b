// What fastseg/testing/ladder/mutation.py writes into a copy of the kernels: many mutants in one library, of which
// `fastseg_mutant` says the one that is alive. `fastseg_reached` says which of them a row would have met.
#pragma once

extern "C" {
__attribute__((visibility("default"), used)) inline int fastseg_mutant = 0;
__attribute__((visibility("default"), used)) inline unsigned char fastseg_reached[8192] = {};
}

namespace fastseg::mutants {

inline bool alive(int k) {
#if !defined(FASTSEG_WATCH_RACES)
  fastseg_reached[k] = 1;
#endif
  return fastseg_mutant == k;
}

// a < b, written a < Compared<k>() < b: no operand has to be found. Shifted by one; values, which have no neighbours,
// are compared the other way round.
template <int k, class T>
struct Left {
  T value;
};
template <int k>
struct Compared {};

#define FASTSEG_COMPARED(op, shifted, turned)                           \
  template <int k, class T>                                             \
  Left<k, T> operator op(T a, Compared<k>) {                            \
    return {a};                                                         \
  }                                                                     \
  template <int k, class T, class U>                                    \
  bool operator op(Left<k, T> a, U b) {                                 \
    if (!alive(k)) return a.value op b;                                 \
    if constexpr (std::is_floating_point_v<T>) return a.value turned b; \
    return a.value shifted b;                                           \
  }
FASTSEG_COMPARED(<, <=, >=)
FASTSEG_COMPARED(<=, <, >)
FASTSEG_COMPARED(>, >=, <=)
FASTSEG_COMPARED(>=, >, <)
FASTSEG_COMPARED(==, !=, !=)
FASTSEG_COMPARED(!=, ==, ==)
#undef FASTSEG_COMPARED

template <class T, class Combine>
T plainly(T* p, Combine combine) {
  const T old = *p;
  *p = combine(old);
  return old;
}
template <class T>
T plain_atomicAdd(T* p, std::type_identity_t<T> v) {
  return plainly(p, [&](T old) { return T(old + v); });
}
template <class T>
T plain_atomicMax(T* p, std::type_identity_t<T> v) {
  return plainly(p, [&](T old) { return old < v ? v : old; });
}
template <class T>
T plain_atomicMin(T* p, std::type_identity_t<T> v) {
  return plainly(p, [&](T old) { return v < old ? v : old; });
}
template <class T>
T plain_atomicOr(T* p, std::type_identity_t<T> v) {
  return plainly(p, [&](T old) { return T(old | v); });
}

}  // namespace fastseg::mutants

#define FASTSEG_ALIVE(k) ::fastseg::mutants::alive(k)
#define FASTSEG_ATOMIC(plain, dropped, name, p, v) \
  (FASTSEG_ALIVE(dropped) ? *(p) : FASTSEG_ALIVE(plain) ? ::fastseg::mutants::plain_##name(p, v) : name(p, v))
#define FASTSEG_VOTE(own, all, name, mask, p) \
  [&](int mine) { return FASTSEG_ALIVE(all) ? 1 : FASTSEG_ALIVE(own) ? mine : name(mask, mine); }((p) ? 1 : 0)
#define FASTSEG_SHUFFLE(k, name, mask, value, ...) (FASTSEG_ALIVE(k) ? (value) : name(mask, value, __VA_ARGS__))
#define FASTSEG_EITHER(first, second, name, a, b) \
  (FASTSEG_ALIVE(first) ? (a) : FASTSEG_ALIVE(second) ? (b) : name(a, b))
#define FASTSEG_SWAPPED(k, name, a, wa, b, wb) (FASTSEG_ALIVE(k) ? name(a, wb, b, wa) : name(a, wa, b, wb))
#define FASTSEG_TRUNCATED(k, name, x) (FASTSEG_ALIVE(k) ? name##z(x) : name##n(x))
