#include "isa.h"

#include <torch/csrc/stable/library.h>

#include <atomic>
#include <string>

#include "checks.h"
#include "path.h"

namespace fastseg {
namespace {

constexpr const char* kNames[] = {"base", "avx2", "avx512"};

Isa best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
    return Isa::base;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return Isa::avx512;
  return Isa::avx2;
#else
  return Isa::base;
#endif
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> value{best()};
  return value;
}

std::string cpu_isa() { return isa_name(); }

std::string cpu_isas() {
  std::string all;
  for (int i = 0; i <= int(best()); ++i) all += std::string(i ? " " : "") + kNames[i];
  return all;
}

void use_cpu_isa(const std::string& name) {
  for (int i = 0; i <= int(best()); ++i)
    if (name == kNames[i]) {
      chosen() = Isa(i);
      return;
    }
  FASTSEG_CHECK(false, "cpu_isa", "FASTSEG_CPU_ISA", "be one of: ", cpu_isas(), ", got ", name);
}

}  // namespace

Isa isa() { return chosen().load(std::memory_order_relaxed); }
const char* isa_name() { return kNames[int(isa())]; }
std::string path_name() { return std::string("cpu/") + isa_name(); }

}  // namespace fastseg

STABLE_TORCH_LIBRARY_FRAGMENT(fastseg, m) {
  m.def("_cpu_isa() -> str");
  m.def("_cpu_isas() -> str");
  m.def("_use_cpu_isa(str name) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastseg, CompositeExplicitAutograd, m) {
  m.impl("_cpu_isa", TORCH_BOX(&fastseg::cpu_isa));
  m.impl("_cpu_isas", TORCH_BOX(&fastseg::cpu_isas));
  m.impl("_use_cpu_isa", TORCH_BOX(&fastseg::use_cpu_isa));
}
