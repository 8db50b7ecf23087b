#include "path.h"

#include <torch/csrc/stable/library.h>

#include <atomic>
#include <mutex>

namespace fastseg {
namespace {

std::atomic<bool> tracing{false};
std::mutex guard;
std::string paths;

}  // namespace

void trace_start() {
  const std::lock_guard<std::mutex> lock(guard);
  paths.clear();
  tracing = true;
}

std::string trace_stop() {
  const std::lock_guard<std::mutex> lock(guard);
  tracing = false;
  return paths;
}

void took(const char* op, const char* algorithm) {
  if (!tracing.load(std::memory_order_relaxed)) return;
  const std::lock_guard<std::mutex> lock(guard);
  paths += std::string(op) + ":" + path_name() + (algorithm ? std::string(":") + algorithm : "") + "\n";
}

}  // namespace fastseg

// Libraries that are loaded together register under names of their own.
#ifndef FASTSEG_TRACE_PREFIX
#define FASTSEG_TRACE_PREFIX ""
#endif

STABLE_TORCH_LIBRARY_FRAGMENT(fastseg, m) {
  m.def(FASTSEG_TRACE_PREFIX "_trace_start() -> ()");
  m.def(FASTSEG_TRACE_PREFIX "_trace_stop() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(fastseg, CompositeExplicitAutograd, m) {
  m.impl(FASTSEG_TRACE_PREFIX "_trace_start", TORCH_BOX(&fastseg::trace_start));
  m.impl(FASTSEG_TRACE_PREFIX "_trace_stop", TORCH_BOX(&fastseg::trace_stop));
}
