// Executes a kernel: its threads are fibers, one group after the other on each of a few OS threads.
//
// Kernels are compiled with ThreadSanitizer's instrumentation but without its runtime: the __tsan_* functions
// here see every access before it happens. Each must lie in a buffer of the launch, in the group's storage or
// on the thread's own stack; and no two threads may touch a cell, one writing, without a barrier between.
//
// Ordering: `time` counts the barriers that a group has passed. Each cell keeps a stamp (time, thread) of its
// last write and of its reads. An access is ordered after a stamp if the stamp is older than the last barrier
// of the group, or of the accessing thread's simdgroup when it was set by that simdgroup; or if the thread
// set it itself.
#include <elf.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "emulator.h"

#if !defined(__x86_64__)
#error "the fiber switch is written for x86-64"
#endif

namespace {

constexpr uint32_t max_threads = 1024, simd_width = 32;
constexpr size_t stack_size = 128 << 10, arena_size = 256 << 10, arena_gap = 64;
constexpr uint64_t stack_canary = 0x5AFE57AC5AFE57ACull;
constexpr int max_declarations = 64;

// A stamp is time << 11 | who. `who` is a thread, several threads of one simdgroup, several simdgroups, or
// atomic.
using Stamp = uint32_t;
constexpr uint32_t who_bits = 11, who_mask = (1u << who_bits) - 1;
constexpr uint32_t who_simdgroup = 1024, who_several = 1056, who_atomic = 1057;
constexpr uint32_t max_time = (1u << (32 - who_bits)) - 2;
constexpr Stamp outside = ~0u;  // a cell of the arena that belongs to no storage

struct Cell {
  Stamp write, read;
};

// Groups are never ordered: a device cell also keeps who has touched it (group + 1; several: all ones).
struct DeviceCell {
  Cell cell;
  uint32_t writer, reader;
};
constexpr uint32_t several_groups = ~0u, atomic_groups = ~0u - 1;

extern "C" void emu_switch(void** save, void* load);
asm(R"(
.text
.globl emu_switch
.type emu_switch,@function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch, .-emu_switch
)");

}  // namespace

extern "C" {

// Mirrored by launch.py.
struct EmuBuffer {
  const char* name;
  char* data;
  uint64_t size;        // bytes
  DeviceCell* cells;    // of a writable buffer, else null
  uint32_t cell_shift;  // log2 of the bytes in a cell
  uint32_t writable;
  uint32_t readable;  // before the kernel wrote it
  uint64_t lowest;    // out, of a launch of the last group only: the first byte that was touched
};

struct EmuLaunch {
  void (*entry)(void* const*);
  void* const* arguments;
  EmuBuffer* buffers;
  uint32_t buffer_count;
  uint32_t grid[3], group[3];  // threads
  uint32_t whole_groups;       // the grid is rounded up (CUDA), else edge groups are smaller (Metal)
  uint32_t reverse;            // threads, simdgroups and groups in descending order
  uint32_t storage_shift;      // log2 of the bytes in a cell of group storage
  uint32_t storage_limit;      // bytes
  uint32_t workers;
  uint32_t last_only;     // execute the last group only
  uint32_t storage_used;  // out: bytes
  uint64_t error_pc;      // out: where in the kernel's file, 0 if unknown
  char error[1024];       // out: empty if all went well
};
}

namespace {

enum State : uint8_t { running, at_simd, at_barrier, finished };

struct Lane {
  void* sp;
  char* stack;
  EmuVec3 position;
  State state;
  const char* at;  // the operation it waits in
};

struct Simdgroup {
  uint32_t exists, ready, arrived;  // masks of lanes
  Stamp barrier[3];                 // as the group's
  uint32_t parity, memory;
  const char* what;
  EmuBits slots[2][simd_width];
  float a[256], b[256], c[2][256];
};

struct Storage {
  const char* name;
  char* begin;
  size_t size;
};

struct Range {
  uintptr_t begin, end;
};

struct Worker {
  // What each access looks at first.
  uintptr_t stack = 0;
  char* arena = nullptr;
  EmuBuffer* recent[16];  // by call site
  uint32_t thread = 0, time = 1, storage_shift = 2;
  Stamp me = 0;                  // of the running thread, now
  Stamp barrier[3] = {0, 0, 0};  // the first stamp after the last barrier that ordered this kind of memory
  Cell* cells = nullptr;

  EmuLaunch* launch = nullptr;
  EmuVec3 group, groups, size;
  uint32_t group_index = 0, threads = 0, simdgroups = 0, waiting = 0, done = 0, barrier_memory = 0;
  void* scheduler = nullptr;
  char* stacks = nullptr;
  size_t arena_used = 0;
  Storage storage[max_declarations];
  std::vector<std::pair<size_t, size_t>>
      written;  // byte ranges of device cells to forget when time starts again
  Lane lanes[max_threads];
  Simdgroup simd[max_threads / simd_width];

  Worker() {
    stacks = map(max_threads * stack_size);
    arena = map(arena_size);
    cells = reinterpret_cast<Cell*>(map(arena_size * sizeof(Cell)));
    memset(cells, 0xFF, arena_size * sizeof(Cell));
    for (uint32_t i = 0; i < max_threads; ++i) {
      lanes[i].stack = stacks + i * stack_size;
    }
  }
  static char* map(size_t size) {
    void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
      perror("emulator: mmap");
      abort();
    }
    return static_cast<char*>(p);
  }
};

thread_local Worker* self = nullptr;
std::mutex error_mutex;
std::vector<Range> module_ranges;  // read-only data of the kernel's file
uintptr_t module_base = 0;
std::atomic<bool> failed{false};

EmuVec3 position_of(uint32_t thread, EmuVec3 size) {
  return {thread % size.x, thread / size.x % size.y, thread / (size.x * size.y)};
}

// Records the first failure of the launch; the group is left where it stands.
[[noreturn]] void fail(const void* pc, const char* format, ...) {
  Worker& w = *self;
  {
    std::lock_guard<std::mutex> lock(error_mutex);
    if (!w.launch->error[0]) {
      char text[768];
      va_list args;
      va_start(args, format);
      vsnprintf(text, sizeof text, format, args);
      va_end(args);
      EmuVec3 t = w.lanes[w.thread].position;
      snprintf(w.launch->error, sizeof w.launch->error, "thread (%u, %u, %u) of group (%u, %u, %u): %s", t.x,
               t.y, t.z, w.group.x, w.group.y, w.group.z, text);
      // The return address follows the call.
      w.launch->error_pc = pc ? reinterpret_cast<uintptr_t>(pc) - 1 - module_base : 0;
    }
  }
  failed = true;
  void* abandoned;
  emu_switch(&abandoned, w.scheduler);
  __builtin_unreachable();
}

// ---- scheduling
// -------------------------------------------------------------------------------------------------------

uint32_t pick(uint32_t mask, bool reverse) {
  return reverse ? 31 - __builtin_clz(mask) : __builtin_ctz(mask);
}

void resume(Worker& w, uint32_t thread, void** save) {
  w.thread = thread;
  w.me = w.time << who_bits | thread;
  w.stack = reinterpret_cast<uintptr_t>(w.lanes[thread].stack);
  emu_switch(save, w.lanes[thread].sp);
}

[[noreturn]] void stuck(Worker& w) {
  uint32_t count[4] = {}, example[4] = {};
  for (uint32_t i = 0; i < w.threads; ++i) {
    count[w.lanes[i].state]++;
    example[w.lanes[i].state] = i;
  }
  w.thread = example[count[at_simd] ? at_simd : at_barrier];
  const char* at = w.lanes[w.thread].at;
  const char* other = count[at_simd] && count[at_barrier] ? w.lanes[example[at_barrier]].at : "the end";
  fail(nullptr,
       "divergent %s: %u threads wait in it or another, %u in a simd operation, %u at a barrier, %u have "
       "ended; some are at %s",
       at, count[at_simd] + count[at_barrier], count[at_simd], count[at_barrier], count[finished], other);
}

// Leaves the current thread, which cannot go on, for one that can.
void next(Worker& w, void** save) {
  bool reverse = w.launch->reverse;
  uint32_t s = w.thread / simd_width;
  for (uint32_t n = 0; n < w.simdgroups; ++n) {
    if (w.simd[s].ready) {
      return resume(w, s * simd_width + pick(w.simd[s].ready, reverse), save);
    }
    s = reverse ? (s ? s - 1 : w.simdgroups - 1) : (s + 1 < w.simdgroups ? s + 1 : 0);
  }
  if (w.done == w.threads) {
    emu_switch(save, w.scheduler);
    __builtin_unreachable();
  }
  stuck(w);
}

// The lane waits until all of its simdgroup are in the same operation; true for the last one, which does not
// wait.
template <class Work>
void rendezvous(const char* what, Work work) {
  Worker& w = *self;
  uint32_t lane = w.thread % simd_width;
  Simdgroup& s = w.simd[w.thread / simd_width];
  if (s.arrived == 0) {
    s.what = what;
  } else if (s.what != what && strcmp(s.what, what) != 0) {
    fail(__builtin_return_address(0), "divergent simdgroup: this lane is in %s, others are in %s", what,
         s.what);
  }
  s.arrived |= 1u << lane;
  if (s.arrived == s.exists) {
    s.arrived = 0;
    s.ready = s.exists;
    work(s);
    s.parity ^= 1;
    return;
  }
  s.ready &= ~(1u << lane);
  Lane& me = w.lanes[w.thread];
  me.state = at_simd;
  me.at = what;
  next(w, &me.sp);
  me.state = running;
}

void forget_device(Worker& w) {
  for (uint32_t i = 0; i < w.launch->buffer_count; ++i) {
    EmuBuffer& b = w.launch->buffers[i];
    if (b.cells) {
      for (uint64_t c = 0; c < b.size >> b.cell_shift; ++c) {
        if (b.cells[c].writer == w.group_index + 1) {
          b.cells[c].cell = {0, 0};
        }
      }
    }
  }
}

// Barriers past the range of a stamp: the group's stamps begin again. What raced across this very barrier is
// not seen.
Stamp tick(Worker& w) {
  if (w.time == max_time) {
    for (size_t i = 0; i < arena_size >> w.storage_shift; ++i) {
      if (w.cells[i].write != outside) {
        w.cells[i] = {0, 0};
      }
    }
    forget_device(w);
    w.time = 0;
    for (Stamp& b : w.barrier) {
      b = 0;
    }
    for (Simdgroup& s : w.simd) {
      s.barrier[EMU_DEVICE_MEMORY] = s.barrier[EMU_GROUP_MEMORY] = 0;
    }
  }
  ++w.time;
  w.me = w.time << who_bits | w.thread;
  return w.time << who_bits;
}

void thread_main() {
  Worker& w = *self;
  w.launch->entry(w.launch->arguments);
  Lane& me = w.lanes[w.thread];
  uint64_t canary;
  memcpy(&canary, me.stack, sizeof canary);
  if (canary != stack_canary) {
    fail(nullptr, "more than %zu bytes of private memory", stack_size);
  }
  w.simd[w.thread / simd_width].ready &= ~(1u << w.thread % simd_width);
  me.state = finished;
  ++w.done;
  next(w, &me.sp);
  __builtin_unreachable();
}

void run_group(Worker& w, uint32_t index) {
  EmuLaunch& l = *w.launch;
  w.group_index = index;
  w.group = position_of(index, w.groups);
  const uint32_t at[3] = {w.group.x, w.group.y, w.group.z};
  uint32_t size[3];
  for (int i = 0; i < 3; ++i) {
    uint32_t full = l.whole_groups ? l.group[i] : std::min(l.group[i], l.grid[i]);
    size[i] = l.whole_groups ? full : std::min(full, l.grid[i] - at[i] * full);
  }
  w.size = {size[0], size[1], size[2]};
  w.threads = size[0] * size[1] * size[2];
  w.simdgroups = (w.threads + simd_width - 1) / simd_width;
  w.waiting = w.done = 0;
  w.time = 1;
  w.barrier[EMU_DEVICE_MEMORY] = w.barrier[EMU_GROUP_MEMORY] = 0;
  // Storage begins as NaN in every float format, and belongs to nobody until it is declared.
  memset(w.arena, 0xFF, w.arena_used);
  memset(w.cells, 0xFF, (w.arena_used >> w.storage_shift) * sizeof(Cell));
  w.arena_used = 0;
  for (Storage& s : w.storage) {
    s.begin = nullptr;
  }
  for (uint32_t i = 0; i < w.simdgroups; ++i) {
    Simdgroup& s = w.simd[i];
    uint32_t lanes = std::min(simd_width, w.threads - i * simd_width);
    s.exists = s.ready = lanes == simd_width ? ~0u : (1u << lanes) - 1;
    s.arrived = s.parity = 0;
    s.barrier[EMU_DEVICE_MEMORY] = s.barrier[EMU_GROUP_MEMORY] = 0;
  }
  for (uint32_t i = 0; i < w.threads; ++i) {
    Lane& lane = w.lanes[i];
    lane.position = position_of(i, w.size);
    lane.state = running;
    lane.at = "";
    memcpy(lane.stack, &stack_canary, sizeof stack_canary);
    auto* top = reinterpret_cast<uint64_t*>(lane.stack + stack_size);
    *--top = 0;  // keeps the stack aligned as after a call
    *--top = reinterpret_cast<uint64_t>(&thread_main);
    for (int saved = 0; saved < 6; ++saved) {
      *--top = 0;
    }
    lane.sp = top;
  }
  uint32_t first = l.reverse ? w.simdgroups - 1 : 0;
  resume(w, first * simd_width + pick(w.simd[first].ready, l.reverse), &w.scheduler);
}

// ---- accesses
// ---------------------------------------------------------------------------------------------------------

uint32_t simdgroup_of(uint32_t who) { return who < who_simdgroup ? who / simd_width : who - who_simdgroup; }

void describe(char* text, size_t size, const Worker& w, Stamp stamp) {
  uint32_t who = stamp & who_mask;
  if (who < who_simdgroup) {
    EmuVec3 p = w.lanes[who].position;
    snprintf(text, size, "thread (%u, %u, %u)", p.x, p.y, p.z);
  } else if (who < who_several) {
    snprintf(text, size, "several threads of simdgroup %u", who - who_simdgroup);
  } else {
    snprintf(text, size, who == who_atomic ? "an atomic operation" : "several threads");
  }
}

struct Place {
  const char* kind;
  const char* name;
  size_t offset;
};

[[noreturn]] __attribute__((noinline, cold)) void race(const void* pc, Place place, const char* mine,
                                                       const char* theirs, Stamp stamp) {
  char who[64];
  describe(who, sizeof who, *self, stamp);
  fail(pc, "race: it %s %s `%s` at byte %zu, %s by %s with no barrier between", mine, place.kind, place.name,
       place.offset, theirs, who);
}

enum Kind { reading, writing, updating };  // updating: atomically
const char* verb[] = {"reads", "writes", "atomically updates"};

// Whether all threads have left behind what `stamp` stands for before the running one came here.
inline bool ordered(const Worker& w, Stamp stamp, unsigned memory) {
  if (stamp < w.barrier[memory] || (stamp & who_mask) == w.thread || stamp == 0) {
    return true;
  }
  uint32_t simdgroup = w.thread / simd_width;
  return simdgroup_of(stamp & who_mask) == simdgroup && stamp < w.simd[simdgroup].barrier[memory];
}

// Ordering inside a group; `memory` is the kind of memory, whose barriers count.
template <Kind kind>
inline void touch(Worker& w, Cell& cell, unsigned memory, const void* pc, auto place) {
  const Stamp me = w.me;
  // What this thread did to the cell since the last barrier was checked then, and what others did, when they
  // did.
  if (kind == reading ? cell.read == me : kind == writing && cell.write == me) {
    return;
  }
  bool both_atomic = kind == updating && (cell.write & who_mask) == who_atomic;
  if (__builtin_expect(!both_atomic && !ordered(w, cell.write, memory), 0)) {
    race(pc, place(), verb[kind], "written", cell.write);
  }
  if (kind == reading) {
    Stamp merged = me;
    if (cell.read >= w.barrier[memory] && (cell.read & who_mask) != w.thread && cell.read != 0) {
      uint32_t simdgroup = w.thread / simd_width, now = me & ~who_mask;
      if (simdgroup_of(cell.read & who_mask) != simdgroup) {
        merged = now | who_several;
      } else if (cell.read >= w.simd[simdgroup].barrier[memory]) {
        merged = now | (who_simdgroup + simdgroup);
      }
    }
    cell.read = merged;
  } else {
    if (__builtin_expect(!ordered(w, cell.read, memory), 0)) {
      race(pc, place(), verb[kind], "read", cell.read);
    }
    cell.write = kind == updating ? (me & ~who_mask) | who_atomic : me;
  }
}

template <Kind kind>
[[noreturn]] __attribute__((noinline, cold)) void outside_storage(Worker& w, uintptr_t address, size_t size,
                                                                  const void* pc) {
  const Storage* nearest = nullptr;
  for (const Storage& s : w.storage) {
    if (s.begin && reinterpret_cast<uintptr_t>(s.begin) <= address &&
        (!nearest || s.begin > nearest->begin)) {
      nearest = &s;
    }
  }
  if (nearest) {
    fail(pc, "out of bounds: it %s %zu bytes at byte %zu of group storage `%s`, which has %zu", verb[kind],
         size, address - reinterpret_cast<uintptr_t>(nearest->begin), nearest->name, nearest->size);
  }
  fail(pc, "out of bounds: it %s %zu bytes before all group storage", verb[kind], size);
}

template <Kind kind>
inline void group_access(Worker& w, uintptr_t address, size_t size, const void* pc) {
  size_t offset = address - reinterpret_cast<uintptr_t>(w.arena);
  size_t begin = offset >> w.storage_shift, end = (offset + size - 1) >> w.storage_shift;
  for (size_t i = begin; i <= end; ++i) {
    Cell& cell = w.cells[i];
    if (__builtin_expect(cell.write == outside, 0)) {
      outside_storage<kind>(w, address, size, pc);
    }
    touch<kind>(w, cell, EMU_GROUP_MEMORY, pc, [&] {
      const Storage* at = w.storage;
      for (const Storage& s : w.storage) {
        if (s.begin && reinterpret_cast<uintptr_t>(s.begin) <= address &&
            address < reinterpret_cast<uintptr_t>(s.begin) + s.size) {
          at = &s;
        }
      }
      return Place{"group storage", at->name, address - reinterpret_cast<uintptr_t>(at->begin)};
    });
  }
}

template <Kind kind>
inline void device_access(Worker& w, EmuBuffer& b, uintptr_t address, size_t size, const void* pc) {
  size_t offset = address - reinterpret_cast<uintptr_t>(b.data);
  if (__builtin_expect(w.launch->last_only, 0)) {
    b.lowest = std::min<uint64_t>(b.lowest, offset);
  }
  if (!b.writable) {
    if (kind != reading) {
      fail(pc, "it %s byte %zu of `%s`, which is an input", verb[kind], offset, b.name);
    }
    return;
  }
  const uint32_t me = w.group_index + 1;
  const uint32_t mark = kind == updating ? atomic_groups : me;
  size_t begin = offset >> b.cell_shift, end = (offset + size - 1) >> b.cell_shift;
  for (size_t i = begin; i <= end; ++i) {
    DeviceCell& d = b.cells[i];
    uint32_t writer = __atomic_load_n(&d.writer, __ATOMIC_RELAXED);
    if (kind == reading) {
      if (writer == 0 && !b.readable) {
        fail(pc, "it reads byte %zu of output `%s`, which nothing has written", offset, b.name);
      }
      if (__atomic_load_n(&d.reader, __ATOMIC_RELAXED) != me) {
        uint32_t before = __atomic_exchange_n(&d.reader, me, __ATOMIC_RELAXED);
        if (before != 0 && before != me) {
          __atomic_store_n(&d.reader, several_groups, __ATOMIC_RELAXED);
        }
        writer = __atomic_load_n(&d.writer, __ATOMIC_RELAXED);
      }
      if (writer != 0 && writer != me) {
        fail(pc, "race: it reads byte %zu of `%s`, which another group writes", offset, b.name);
      }
    } else {
      if (writer != mark) {
        uint32_t before = __atomic_exchange_n(&d.writer, mark, __ATOMIC_RELAXED);
        if (before != 0 && before != mark) {
          fail(pc, "race: it %s byte %zu of `%s`, which another group writes", verb[kind], offset, b.name);
        }
      }
      uint32_t reader = __atomic_load_n(&d.reader, __ATOMIC_RELAXED);
      if (reader != 0 && reader != me) {
        fail(pc, "race: it %s byte %zu of `%s`, which another group reads", verb[kind], offset, b.name);
      }
    }
    if (kind != updating) {
      touch<kind>(w, d.cell, EMU_DEVICE_MEMORY, pc, [&] { return Place{"output", b.name, offset}; });
    }
  }
}

template <Kind kind>
[[noreturn]] __attribute__((noinline, cold)) void outside_buffers(Worker& w, uintptr_t address, size_t size,
                                                                  const void* pc) {
  const EmuBuffer* nearest = nullptr;
  uint64_t best = ~0ull;
  for (uint32_t i = 0; i < w.launch->buffer_count; ++i) {
    EmuBuffer& b = w.launch->buffers[i];
    uintptr_t begin = reinterpret_cast<uintptr_t>(b.data), end = begin + b.size;
    uint64_t distance = address < begin ? begin - address : address >= end ? address - end : 0;
    if (distance < best) {
      best = distance;
      nearest = &b;
    }
  }
  uintptr_t stacks = reinterpret_cast<uintptr_t>(w.stacks);
  if (address - stacks < max_threads * stack_size) {
    fail(pc, "it %s %zu bytes of the private memory of another thread", verb[kind], size);
  }
  if (nearest) {
    fail(pc, "out of bounds: it %s %zu bytes at byte %lld of `%s`, which has %llu", verb[kind], size,
         static_cast<long long>(address - reinterpret_cast<uintptr_t>(nearest->data)), nearest->name,
         static_cast<unsigned long long>(nearest->size));
  }
  fail(pc, "out of bounds: it %s %zu bytes at an address of no buffer", verb[kind], size);
}

template <Kind kind>
__attribute__((noinline)) EmuBuffer* find_buffer(Worker& w, uintptr_t address, size_t size, const void* pc) {
  for (uint32_t i = 0; i < w.launch->buffer_count; ++i) {
    EmuBuffer& b = w.launch->buffers[i];
    uintptr_t offset = address - reinterpret_cast<uintptr_t>(b.data);
    if (offset < b.size && size <= b.size - offset) {
      return &b;
    }
  }
  if (kind == reading) {
    for (const Range& r : module_ranges) {
      if (r.begin <= address && address < r.end) {
        return nullptr;
      }
    }
  }
  outside_buffers<kind>(w, address, size, pc);
}

template <Kind kind>
[[gnu::always_inline]] inline void check(uintptr_t address, size_t size, size_t align, const void* pc) {
  Worker& w = *self;
  if (address - w.stack < stack_size) {
    return;
  }
  if (__builtin_expect(address % align != 0, 0)) {
    fail(pc, "misaligned: it %s %zu bytes at an address that is a multiple of %zu only", verb[kind], size,
         size_t(1) << __builtin_ctzll(address));
  }
  if (address - reinterpret_cast<uintptr_t>(w.arena) < arena_size) {
    return group_access<kind>(w, address, size, pc);
  }
  EmuBuffer*& recent = w.recent[reinterpret_cast<uintptr_t>(pc) / 2 % 16];
  uintptr_t offset = address - reinterpret_cast<uintptr_t>(recent->data);
  if (__builtin_expect(offset >= recent->size || size > recent->size - offset, 0)) {
    EmuBuffer* found = find_buffer<kind>(w, address, size, pc);
    if (!found) {
      return;
    }
    recent = found;
  }
  device_access<kind>(w, *recent, address, size, pc);
}

int find_module(dl_phdr_info* info, size_t, void* entry) {
  uintptr_t address = reinterpret_cast<uintptr_t>(entry);
  bool mine = false;
  std::vector<Range> ranges;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) & h = info->dlpi_phdr[i];
    if (h.p_type == PT_LOAD) {
      Range r = {info->dlpi_addr + h.p_vaddr, info->dlpi_addr + h.p_vaddr + h.p_memsz};
      mine |= r.begin <= address && address < r.end;
      if (!(h.p_flags & PF_X)) {
        ranges.push_back(r);
      }
    }
  }
  if (mine) {
    module_ranges = ranges;
    module_base = info->dlpi_addr;
  }
  return mine;
}

}  // namespace

extern "C" {

EmuVec3 emu_thread_in_group() { return self->lanes[self->thread].position; }
EmuVec3 emu_group_in_grid() { return self->group; }
EmuVec3 emu_threads_per_group() { return self->size; }
EmuVec3 emu_groups_per_grid() { return self->groups; }
uint32_t emu_thread_index() { return self->thread; }

EmuVec3 emu_threads_per_full_group() {
  const EmuLaunch& l = *self->launch;
  if (l.whole_groups) {
    return {l.group[0], l.group[1], l.group[2]};
  }
  return {std::min(l.group[0], l.grid[0]), std::min(l.group[1], l.grid[1]), std::min(l.group[2], l.grid[2])};
}

EmuVec3 emu_threads_per_grid() {
  const EmuLaunch& l = *self->launch;
  return {l.grid[0], l.grid[1], l.grid[2]};
}

void emu_group_barrier(unsigned memory, const char* what) {
  Worker& w = *self;
  Lane& me = w.lanes[w.thread];
  w.barrier_memory = w.waiting == 0 ? memory : w.barrier_memory & memory;
  if (++w.waiting == w.threads) {
    w.waiting = 0;
    Stamp now = tick(w);
    for (unsigned kind : {EMU_DEVICE_MEMORY, EMU_GROUP_MEMORY}) {
      if (w.barrier_memory & kind) {
        w.barrier[kind] = now;
      }
    }
    for (uint32_t i = 0; i < w.simdgroups; ++i) {
      w.simd[i].ready = w.simd[i].exists;
    }
    return;
  }
  w.simd[w.thread / simd_width].ready &= ~(1u << w.thread % simd_width);
  me.state = at_barrier;
  me.at = what;
  next(w, &me.sp);
  me.state = running;
}

void emu_simd_barrier(unsigned memory, const char* what) {
  Worker& w = *self;
  Simdgroup& mine = w.simd[w.thread / simd_width];
  mine.memory = mine.arrived == 0 ? memory : mine.memory & memory;
  rendezvous(what, [&](Simdgroup& s) {
    Stamp now = tick(w);
    for (unsigned kind : {EMU_DEVICE_MEMORY, EMU_GROUP_MEMORY}) {
      if (s.memory & kind) {
        s.barrier[kind] = now;
      }
    }
  });
}

void* emu_group_storage(int declaration, size_t size, size_t align, const char* name) {
  Worker& w = *self;
  if (declaration >= max_declarations) {
    fail(__builtin_return_address(0), "more than %d declarations of group storage", max_declarations);
  }
  Storage& s = w.storage[declaration];
  if (!s.begin) {
    // Aligned to what was asked for and to no more.
    size_t begin = (w.arena_used + arena_gap + 2 * align - 1) / (2 * align) * (2 * align) + align;
    if (begin + size + arena_gap > arena_size) {
      fail(__builtin_return_address(0), "group storage `%s` of %zu bytes: there are at most %u", name, size,
           w.launch->storage_limit);
    }
    s = {name, w.arena + begin, size};
    memset(&w.cells[begin >> w.storage_shift], 0,
           ((size + (1u << w.storage_shift) - 1) >> w.storage_shift) * sizeof(Cell));
    w.arena_used = begin + size;
    size_t total = 0;
    for (const Storage& each : w.storage) {
      total += each.begin ? (each.size + 15) / 16 * 16 : 0;
    }
    if (total > w.launch->storage_limit) {
      fail(__builtin_return_address(0), "%zu bytes of group storage: there are at most %u", total,
           w.launch->storage_limit);
    }
    std::lock_guard<std::mutex> lock(error_mutex);
    w.launch->storage_used = std::max(w.launch->storage_used, static_cast<uint32_t>(total));
  }
  return s.begin;
}

uint32_t emu_lanes() { return __builtin_popcount(self->simd[self->thread / simd_width].exists); }

EmuBits emu_shuffle(EmuBits mine, uint32_t source, const char* what) {
  Simdgroup& s = self->simd[self->thread / simd_width];
  EmuBits* slots = s.slots[s.parity];
  slots[self->thread % simd_width] = mine;
  rendezvous(what, [](Simdgroup&) {});
  return source < emu_lanes() ? slots[source] : EmuBits{~0ull, ~0ull};
}

EmuBits emu_reduce(EmuBits mine, EmuFold fold, const char* what) {
  Simdgroup& s = self->simd[self->thread / simd_width];
  EmuBits* slots = s.slots[s.parity];
  slots[self->thread % simd_width] = mine;
  rendezvous(what, [=](Simdgroup&) {
    for (uint32_t n = emu_lanes(); n > 1; n = (n + 1) / 2) {
      for (uint32_t i = 0; i < n / 2; ++i) {
        slots[i] = fold(slots[i], slots[i + (n + 1) / 2]);
      }
    }
  });
  return slots[0];
}

EmuBits emu_scan(EmuBits mine, EmuFold fold, bool inclusive, EmuBits identity, const char* what) {
  Simdgroup& s = self->simd[self->thread / simd_width];
  EmuBits* slots = s.slots[s.parity];
  uint32_t lane = self->thread % simd_width;
  slots[lane] = mine;
  rendezvous(what, [=](Simdgroup&) {
    EmuBits sum = identity;
    for (uint32_t i = 0; i < emu_lanes(); ++i) {
      EmuBits next = fold(sum, slots[i]);
      slots[i] = inclusive ? next : sum;
      sum = next;
    }
  });
  return slots[lane];
}

EmuPair emu_matmul8(EmuPair a, EmuPair b, EmuPair c) {
  Worker& w = *self;
  Simdgroup& s = w.simd[w.thread / simd_width];
  uint32_t lane = w.thread % simd_width, quad = lane / 4;
  uint32_t row = (quad & 4) + lane / 2 % 4, column = (quad & 2) * 2 + lane % 2 * 2, at = row * 8 + column;
  float* d = s.c[s.parity];
  s.a[at] = a.x, s.a[at + 1] = a.y;
  s.b[at] = b.x, s.b[at + 1] = b.y;
  d[at] = c.x, d[at + 1] = c.y;
  rendezvous("simdgroup_multiply_accumulate", [&](Simdgroup& g) {
    if (g.exists != ~0u) {
      fail(nullptr, "a simdgroup matrix operation needs 32 lanes, this simdgroup has %u", emu_lanes());
    }
    using Row = float __attribute__((ext_vector_type(8)));
    Row b[8], row;
    memcpy(b, g.b, sizeof b);
    for (int i = 0; i < 8; ++i) {
      memcpy(&row, d + i * 8, sizeof row);
      for (int k = 0; k < 8; ++k) {
        row += g.a[i * 8 + k] * b[k];
      }
      memcpy(d + i * 8, &row, sizeof row);
    }
  });
  return {d[at], d[at + 1]};
}

void emu_matmul_at(int m, int n, int k, const float* a, const int* at_a, const float* b, const int* at_b,
                   float* c, const int* at_c) {
  Worker& w = *self;
  Simdgroup& s = w.simd[w.thread / simd_width];
  float* d = s.c[s.parity];
  const int counts[3] = {m * k / int(simd_width), k * n / int(simd_width), m * n / int(simd_width)};
  for (int i = 0; i < counts[0]; ++i) {
    s.a[at_a[i]] = a[i];
  }
  for (int i = 0; i < counts[1]; ++i) {
    s.b[at_b[i]] = b[i];
  }
  for (int i = 0; i < counts[2]; ++i) {
    d[at_c[i]] = c[i];
  }
  rendezvous("mma_sync", [&](Simdgroup& g) {
    if (g.exists != ~0u) {
      fail(nullptr, "mma_sync needs 32 lanes, this warp has %u", emu_lanes());
    }
    for (int i = 0; i < m; ++i) {
      for (int l = 0; l < k; ++l) {
        for (int j = 0; j < n; ++j) {
          d[i * n + j] += g.a[i * k + l] * g.b[l * n + j];
        }
      }
    }
  });
  for (int i = 0; i < counts[2]; ++i) {
    c[i] = d[at_c[i]];
  }
}

void emu_matmul(int m, int n, int k, const float* a, const float* b, float* c) {
  const int lane = self->thread % simd_width;
  int at[3][16];
  const int counts[3] = {m * k / int(simd_width), k * n / int(simd_width), m * n / int(simd_width)};
  for (int which = 0; which < 3; ++which) {
    for (int i = 0; i < counts[which]; ++i) {
      at[which][i] = lane * counts[which] + i;
    }
  }
  emu_matmul_at(m, n, k, a, at[0], b, at[1], c, at[2]);
}

void emu_refuse(const char* what) { fail(__builtin_return_address(0), "%s", what); }

void emu_atomic(const volatile void* address, size_t size) {
  check<updating>(reinterpret_cast<uintptr_t>(address), size, size, __builtin_return_address(0));
}

// Runs all groups; returns 0, or 1 with `error` filled in.
int emu_launch(EmuLaunch* launch) {
  uint32_t groups[3], total = 1;
  for (int i = 0; i < 3; ++i) {
    uint32_t size = launch->whole_groups ? launch->group[i] : std::min(launch->group[i], launch->grid[i]);
    groups[i] = (launch->grid[i] + size - 1) / size;
    total *= groups[i];
  }
  launch->error[0] = 0;
  launch->error_pc = 0;
  launch->storage_used = 0;
  failed = false;
  dl_iterate_phdr(find_module, reinterpret_cast<void*>(launch->entry));
  std::atomic<uint32_t> taken{launch->last_only ? total - 1 : 0};
  static std::vector<Worker*> workers;
  uint32_t count = launch->last_only ? 1 : std::max(1u, std::min(launch->workers, total));
  while (workers.size() < count) {
    workers.push_back(new Worker);
  }
  auto work = [&](Worker& w) {
    self = &w;
    w.launch = launch;
    w.groups = {groups[0], groups[1], groups[2]};
    std::fill(std::begin(w.recent), std::end(w.recent), launch->buffers);
    // The cells of an earlier launch may be of another size.
    memset(w.cells, 0xFF, arena_size * sizeof(Cell));
    w.arena_used = 0;
    w.storage_shift = launch->storage_shift;
    for (uint32_t i; !failed && (i = taken++) < total;) {
      run_group(w, launch->reverse && !launch->last_only ? total - 1 - i : i);
    }
    self = nullptr;
  };
  std::vector<std::thread> others;
  for (uint32_t i = 1; i < count; ++i) {
    others.emplace_back([&, i] { work(*workers[i]); });
  }
  work(*workers[0]);
  for (std::thread& t : others) {
    t.join();
  }
  return failed;
}

// Index of the first cell that nothing has written, or the number of cells.
uint64_t emu_first_unwritten(const EmuBuffer* b) {
  uint64_t n = b->size >> b->cell_shift;
  for (uint64_t i = 0; i < n; ++i) {
    if (b->cells[i].writer == 0) {
      return i;
    }
  }
  return n;
}

void* emu_map(uint64_t size) { return Worker::map(size); }
void emu_unmap(void* p, uint64_t size) { munmap(p, size); }

#define EMU_ACCESS(size, align)                                                               \
  void __tsan_read##size(void* p) {                                                           \
    check<reading>(reinterpret_cast<uintptr_t>(p), size, align, __builtin_return_address(0)); \
  }                                                                                           \
  void __tsan_write##size(void* p) {                                                          \
    check<writing>(reinterpret_cast<uintptr_t>(p), size, align, __builtin_return_address(0)); \
  }
EMU_ACCESS(1, 1)
EMU_ACCESS(2, 2)
EMU_ACCESS(4, 4)
EMU_ACCESS(8, 8)
EMU_ACCESS(16, 8)  // the instrumentation does not tell 8 from 16
#define EMU_UNALIGNED(size)                                                               \
  void __tsan_unaligned_read##size(void* p) {                                             \
    check<reading>(reinterpret_cast<uintptr_t>(p), size, 1, __builtin_return_address(0)); \
  }                                                                                       \
  void __tsan_unaligned_write##size(void* p) {                                            \
    check<writing>(reinterpret_cast<uintptr_t>(p), size, 1, __builtin_return_address(0)); \
  }
EMU_UNALIGNED(2)
EMU_UNALIGNED(4)
EMU_UNALIGNED(8)
EMU_UNALIGNED(16)

void* __tsan_memcpy(void* to, const void* from, size_t n) {
  if (n) {
    check<reading>(reinterpret_cast<uintptr_t>(from), n, 1, __builtin_return_address(0));
    check<writing>(reinterpret_cast<uintptr_t>(to), n, 1, __builtin_return_address(0));
  }
  return memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, size_t n) {
  if (n) {
    check<reading>(reinterpret_cast<uintptr_t>(from), n, 1, __builtin_return_address(0));
    check<writing>(reinterpret_cast<uintptr_t>(to), n, 1, __builtin_return_address(0));
  }
  return memmove(to, from, n);
}
void* __tsan_memset(void* to, int value, size_t n) {
  if (n) {
    check<writing>(reinterpret_cast<uintptr_t>(to), n, 1, __builtin_return_address(0));
  }
  return memset(to, value, n);
}
void __tsan_init() {}

#define EMU_UNDEFINED(handler, what)                                 \
  void __ubsan_handle_##handler##_minimal() {                        \
    fail(__builtin_return_address(0), "undefined behaviour: " what); \
  }
EMU_UNDEFINED(type_mismatch, "misaligned access")
EMU_UNDEFINED(out_of_bounds, "index outside an array")
EMU_UNDEFINED(add_overflow, "signed addition overflows")
EMU_UNDEFINED(sub_overflow, "signed subtraction overflows")
EMU_UNDEFINED(mul_overflow, "signed multiplication overflows")
EMU_UNDEFINED(negate_overflow, "signed negation overflows")
EMU_UNDEFINED(divrem_overflow, "division by zero, or overflow of one")
EMU_UNDEFINED(shift_out_of_bounds, "shift by more bits than there are")
EMU_UNDEFINED(float_cast_overflow, "a float out of the integer's range is converted")

// Older libgcc has no conversion to bfloat16: to the nearest, ties to even, NaN stays NaN.
__bf16 __truncsfbf2(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = x == x ? bits + 0x7fffu + (bits >> 16 & 1u) : bits | 0x400000u;
  return __builtin_bit_cast(__bf16, static_cast<uint16_t>(rounded >> 16));
}

}  // extern "C"
