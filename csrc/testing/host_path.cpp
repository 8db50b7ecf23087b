// What the registry asks of the library that it loads, answered by the CUDA kernels on the host.
#include <torch/csrc/stable/library.h>

#include "../common/checks.h"
#include "../common/path.h"

namespace fastseg {
namespace {

std::string isa() { return "host"; }

void use_isa(const std::string& name) {
  FASTSEG_CHECK(name == "host", "cpu_isa", "FASTSEG_CPU_ISA", "be one of: host, got ", name);
}

}  // namespace

std::string path_name() { return "cuda/host"; }

}  // namespace fastseg

STABLE_TORCH_LIBRARY_FRAGMENT(fastseg, m) {
  m.def("_cpu_isa() -> str");
  m.def("_cpu_isas() -> str");
  m.def("_use_cpu_isa(str name) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastseg, CompositeExplicitAutograd, m) {
  m.impl("_cpu_isa", TORCH_BOX(&fastseg::isa));
  m.impl("_cpu_isas", TORCH_BOX(&fastseg::isa));
  m.impl("_use_cpu_isa", TORCH_BOX(&fastseg::use_isa));
}
