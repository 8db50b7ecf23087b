// fastseg._C: what was built, and what this machine can do at best. Links no torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

// Seconds of the fastest of `rounds` runs of work(thread) on all threads at once.
template <class Work>
double fastest(int threads, int rounds, const Work& work) {
  double best = 1e300;
  for (int r = 0; r < rounds; ++r) {
    const auto start = Clock::now();
    std::vector<std::thread> team;
    for (int t = 1; t < threads; ++t) team.emplace_back(work, t);
    work(0);
    for (auto& member : team) member.join();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

double measure_copy(int threads) {
  if (threads < 1) throw pybind11::value_error("fastseg::measure_copy: threads must be positive");
  constexpr size_t kBytes = size_t(64) << 20;  // beyond the caches, per thread
  std::vector<std::unique_ptr<char[]>> from(threads), to(threads);
  for (int t = 0; t < threads; ++t) {
    from[t].reset(new char[kBytes]);
    to[t].reset(new char[kBytes]);
    std::memset(from[t].get(), 1, kBytes);
    std::memset(to[t].get(), 2, kBytes);
  }
  const double seconds = fastest(threads, 7, [&](int t) { std::memcpy(to[t].get(), from[t].get(), kBytes); });
  return 2.0 * double(kBytes) * threads / seconds;
}

constexpr int kChains = 12;  // independent multiply-adds: latency times throughput of the widest cores
constexpr long kSteps = 2'000'000;

// One loop per instruction set: the attribute must stand on the function that holds the vectors.
#define FASTSEG_FMA_LOOP(name, target_attribute, bytes)           \
  target_attribute double name() {                                \
    typedef float V __attribute__((vector_size(bytes)));          \
    V sum[kChains], factor = V{} + 0.999999f, term = V{} + 1e-6f; \
    for (auto& s : sum) s = V{} + 0.5f;                           \
    for (long i = 0; i < kSteps; ++i)                             \
      for (auto& s : sum) s = s * factor + term;                  \
    V all = {};                                                   \
    for (const auto& s : sum) all += s;                           \
    asm volatile("" : : "r"(&all) : "memory");                    \
    return 2.0 * kChains * double(kSteps) * (bytes / 4);          \
  }

FASTSEG_FMA_LOOP(fma_base, , 16)
#if defined(__x86_64__)
FASTSEG_FMA_LOOP(fma_avx2, __attribute__((target("avx2,fma"))), 32)
FASTSEG_FMA_LOOP(fma_avx512, __attribute__((target("avx512f,fma"))), 64)
#endif

struct Level {
  const char* name;
  double (*flops)();
};

std::vector<Level> levels() {
  std::vector<Level> all{{"base", fma_base}};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    all.push_back({"avx2", fma_avx2});
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
      all.push_back({"avx512", fma_avx512});
  }
#endif
  return all;
}

double measure_fma(int threads) {
  if (threads < 1) throw pybind11::value_error("fastseg::measure_fma: threads must be positive");
  const Level best = levels().back();
  std::vector<double> flops(threads);
  const double seconds = fastest(threads, 7, [&](int t) { flops[t] = best.flops(); });
  double total = 0;
  for (const double f : flops) total += f;
  return total / seconds;
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Level& level : levels()) names.emplace_back(level.name);
  return names;
}

std::map<std::string, std::string> build_info() {
  return {{"compiler", FASTSEG_COMPILER},
          {"flags", FASTSEG_FLAGS},
          {"isas", FASTSEG_ISAS},
          {"cuda_archs", FASTSEG_ARCHS},
          {"torch_target", "2.10"}};
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Build information and measured ceilings of this machine.";
  m.def("build_info", &build_info, "Compiler, flags, instruction sets and CUDA architectures of this build.");
  m.def("isas", &isas, "Instruction sets that the CPU kernels can use on this machine, worst first.");
  m.def("measure_copy", &measure_copy, pybind11::arg("threads"), pybind11::call_guard<pybind11::gil_scoped_release>(),
        "Copy bandwidth in bytes per second, read plus written.");
  m.def("measure_fma", &measure_fma, pybind11::arg("threads"), pybind11::call_guard<pybind11::gil_scoped_release>(),
        "float32 multiply-add rate in FLOP per second at the best instruction set.");
}
