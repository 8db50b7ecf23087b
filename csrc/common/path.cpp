#include "path.h"

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

void took(const char* op) {
  if (!tracing.load(std::memory_order_relaxed)) return;
  const std::lock_guard<std::mutex> lock(guard);
  paths += std::string(op) + ":" + path_name() + "\n";
}

}  // namespace fastseg
