#include "cuda_on_host.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#if defined(FASTSEG_WATCH_RACES)
#include <sanitizer/tsan_interface.h>
#endif

// Under ThreadSanitizer every fiber is a thread. Fibers are switched without ordering anything, so that only barriers
// order what they do. Blocks are not ordered either: a block's threads run on the fibers of the pool shifted by one, so
// that threads of the same index in neighbouring blocks are different fibers. This file itself is compiled without
// sanitizers.
namespace fastseg::host {
namespace {

constexpr size_t kStack = 256 << 10;
constexpr size_t kSharedLimit = 48 << 10;  // bytes of shared memory that every GPU grants without asking
constexpr unsigned kMost = 1024;           // threads of a block, and threads of the pool

enum class State { ready, at_block, at_warp, done };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  void* watched = nullptr;
  unsigned index = 0;  // of the CUDA thread
  State state = State::done;
  unsigned mask = 0;
  Place at;
  Coordinates coordinates;
  uint64_t offer[2] = {};  // what a warp exchange offers
  unsigned block_barriers = 0, warp_barriers = 0;
};

struct Block {
  std::unordered_map<const void*, void*> arrays;  // by tag
  void* dynamic = nullptr;
  size_t bytes = 0;
};

std::vector<Fiber> pool;
std::vector<Fiber*> running;  // by CUDA thread index
Fiber* current = nullptr;
ucontext_t scheduler;
Block block;
std::vector<void*> memory;  // of all blocks of this launch: what a later block got again would look like a race
const std::function<void()>* work = nullptr;
std::string fault;
// Things that barriers order by, two each: with one, a thread that is a barrier ahead would seem ordered.
char launch_token, end_token, array_token, block_token[2], warp_token[32][2];

void* scheduler_watched = nullptr;
#if defined(FASTSEG_WATCH_RACES)
void release(void* token) { __tsan_release(token); }
void acquire(void* token) { __tsan_acquire(token); }
void follow(void* watched) { __tsan_switch_to_fiber(watched, __tsan_switch_to_fiber_no_sync); }
#else
void release(void*) {}
void acquire(void*) {}
void follow(void*) {}
#endif

void to_scheduler() {
  follow(scheduler_watched);
  swapcontext(&current->context, &scheduler);
}

void to_fiber(Fiber* fiber) {
  current = fiber;
  follow(fiber->watched);
  swapcontext(&scheduler, &fiber->context);
}

void fail(const std::string& what, Place at) {
  std::ostringstream text;
  const std::string file = at.file_name();
  text << what << " at " << file.substr(file.find_last_of('/') + 1) << ":" << at.line();
  if (fault.empty()) fault = text.str();
  current->state = State::done;
  for (;;) to_scheduler();
}

void entry() {
  acquire(&launch_token);
  (*work)();
  release(&end_token);
  current->state = State::done;
  to_scheduler();
}

bool same(Place a, Place b) {
  return a.line() == b.line() && a.column() == b.column() && !strcmp(a.file_name(), b.file_name());
}

// Lets the lanes go on whose whole mask waits at the same place. Returns whether any did.
bool release_warps() {
  bool any = false;
  for (size_t first = 0; first < running.size(); first += 32)
    for (size_t i = first; i < std::min(first + 32, running.size()); ++i) {
      Fiber& fiber = *running[i];
      if (fiber.state != State::at_warp) continue;
      bool complete = true;
      for (unsigned lane = 0; lane < 32; ++lane) {
        if (!(fiber.mask >> lane & 1)) continue;
        const Fiber* other = first + lane < running.size() ? running[first + lane] : nullptr;
        if (first + lane >= running.size()) continue;  // lanes that a small block lacks never come, on a GPU neither
        complete &= other->state == State::at_warp && other->mask == fiber.mask && same(other->at, fiber.at);
      }
      if (!complete) continue;
      any = true;
      const unsigned mask = fiber.mask;
      for (unsigned lane = 0; lane < 32; ++lane)
        if (mask >> lane & 1 && first + lane < running.size()) running[first + lane]->state = State::ready;
    }
  return any;
}

void describe_stuck() {
  unsigned waiting = 0;
  const Fiber* example = nullptr;
  for (const Fiber* fiber : running)
    if (fiber->state != State::done && (!example || same(fiber->at, example->at))) {
      example = fiber;
      ++waiting;
    }
  std::ostringstream text;
  const std::string file = example->at.file_name();
  text << (example->state == State::at_block ? "barrier divergence: " : "warp divergence: ") << waiting << " of "
       << running.size() << " threads wait at " << file.substr(file.find_last_of('/') + 1) << ":" << example->at.line()
       << ", the others do not come";
  fault = text.str();
}

void run_block(bool backwards) {
  for (;;) {
    bool advanced = false;
    for (size_t k = 0; k < running.size(); ++k) {
      Fiber* fiber = running[backwards ? running.size() - 1 - k : k];
      if (fiber->state != State::ready) continue;
      advanced = true;
      to_fiber(fiber);
      if (!fault.empty()) return;
    }
    if (release_warps() || advanced) continue;
    size_t done = 0, waiting = 0;
    for (const Fiber* fiber : running) {
      done += fiber->state == State::done;
      waiting += fiber->state == State::at_block && same(fiber->at, running[0]->at);
    }
    if (done == running.size()) return;
    if (waiting != running.size()) return describe_stuck();
    for (Fiber* fiber : running) fiber->state = State::ready;
  }
}

void* fresh(size_t bytes) {
  void* array = nullptr;
  if (posix_memalign(&array, 16, bytes)) abort();  // exactly so many bytes: AddressSanitizer guards what lies behind
  memset(array, 0xff, bytes);
  memory.push_back(array);
  return array;
}

void start(unsigned thread, int64_t block_index, int64_t blocks, int threads) {
  Fiber& fiber = pool[(thread + block_index) % kMost];
#if defined(FASTSEG_WATCH_RACES)
  if (!fiber.watched) fiber.watched = __tsan_create_fiber(0);
#endif
  fiber.index = thread;
  fiber.state = State::ready;
  fiber.block_barriers = fiber.warp_barriers = 0;
  fiber.coordinates = {{thread, 0, 0}, {unsigned(block_index), 0, 0}, dim3(threads), dim3(unsigned(blocks))};
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
  running[thread] = &fiber;
}

}  // namespace

const Coordinates& here() { return current->coordinates; }

void wait_block(Place at) {
  current->state = State::at_block;
  current->at = at;
  void* token = &block_token[current->block_barriers++ & 1];
  release(token);
  to_scheduler();
  acquire(token);
}

void wait_warp(unsigned mask, Place at) {
  if (!(mask >> lane() & 1)) fail("the mask of a warp operation leaves out the calling lane", at);
  current->state = State::at_warp;
  current->mask = mask;
  current->at = at;
  void* token = &warp_token[current->index / 32][current->warp_barriers++ & 1];
  release(token);
  to_scheduler();
  acquire(token);
}

void exchange(unsigned mask, const void* mine, void* theirs, size_t size, unsigned from, Place at) {
  if (!(mask >> from & 1)) fail("a shuffle reads a lane that its mask leaves out", at);
  memcpy(current->offer, mine, size);
  wait_warp(mask, at);
  const unsigned index = current->index / 32 * 32 + from;
  if (index >= running.size()) fail("a shuffle reads a lane that the block does not have", at);
  memcpy(theirs, running[index]->offer, size);
  wait_warp(mask, at);
}

void* shared(const void* tag, size_t bytes) {
  follow(scheduler_watched);  // allocated by the block, not by the thread that comes first
  void*& array = block.arrays[tag];
  if (!array) {
    block.bytes += bytes;
    array = fresh(bytes);
    release(&array_token);
  }
  follow(current->watched);
  acquire(&array_token);
  if (block.bytes > kSharedLimit) fail("more than 48 KiB of shared memory", Place::current());
  return array;
}

void* dynamic_shared() { return block.dynamic; }

int64_t most_blocks() {
  const char* asked = getenv("FASTSEG_HOST_BLOCKS");
  return asked && *asked ? atoll(asked) : 2147483647;
}

void launch(int64_t blocks, int threads, size_t dynamic_bytes, const std::function<void()>& body) {
  if (blocks < 1 || blocks > 2147483647) throw std::runtime_error("cuda/host: a grid must have 1 to 2^31 - 1 blocks");
  if (dynamic_bytes > kSharedLimit) throw std::runtime_error("cuda/host: more than 48 KiB of dynamic shared memory");
  if (threads < 1 || threads > int(kMost)) throw std::runtime_error("cuda/host: a block must have 1 to 1024 threads");
  if (pool.empty()) pool = std::vector<Fiber>(kMost);
#if defined(FASTSEG_WATCH_RACES)
  scheduler_watched = __tsan_get_current_fiber();
#endif
  const char* order = getenv("FASTSEG_HOST_ORDER");
  const bool backwards = order && !strcmp(order, "backwards");
  const char* ends = getenv("FASTSEG_HOST_ENDS");
  const int64_t step = ends && !strcmp(ends, "1") ? std::max<int64_t>(blocks - 1, 1) : 1;
  work = &body;
  running.assign(threads, nullptr);
  fault.clear();
  for (int64_t k = 0; k < blocks && fault.empty(); k += step) {
    const int64_t index = backwards ? blocks - 1 - k : k;
    block = {};
    block.bytes = dynamic_bytes;
    if (dynamic_bytes) block.dynamic = fresh(dynamic_bytes);
    release(&launch_token);
    for (int t = 0; t < threads; ++t) start(t, index, blocks, threads);
    run_block(backwards);
  }
  acquire(&end_token);
  for (void* array : memory) free(array);
  memory.clear();
  if (!fault.empty()) throw std::runtime_error("cuda/host: " + fault);
}

}  // namespace fastseg::host

unsigned __ballot_sync(unsigned mask, int predicate, fastseg::host::Place at) {
  using namespace fastseg::host;
  current->offer[0] = predicate != 0;
  wait_warp(mask, at);
  unsigned votes = 0;
  const unsigned first = current->index / 32 * 32;
  for (unsigned lane = 0; lane < 32 && first + lane < running.size(); ++lane)
    if (mask >> lane & 1) votes |= unsigned(running[first + lane]->offer[0] & 1) << lane;
  wait_warp(mask, at);
  return votes;
}
