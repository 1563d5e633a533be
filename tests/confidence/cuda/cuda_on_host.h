// Just enough of CUDA for the kernels to run on the host: every thread of a block is a fiber, and blocks run one after
// the other. Fibers take turns at synchronisations only: a warp runs up to the next __syncthreads() before the next
// warp does, and its threads take turns at __syncwarp() and shuffles. From one turn to the next, the orders of warps and
// threads are reversed if the caller wishes, which changes the results of kernels that lack a synchronisation.
// A warp whose threads wait at different places, and accesses after the end of dynamic shared memory, are fatal.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <ucontext.h>
#ifdef FLUSH_TO_ZERO
#include <xmmintrin.h>
#endif

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define DYNAMIC_SHARED(name) Vector *name = (Vector *)host::dynamic_memory.data();

struct Index {
    unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

namespace host {

const unsigned warp_size = 32;

enum State { READY, AT_WARP, AT_BLOCK, DONE };

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    std::unique_ptr<char[]> stack;
    Index index;
    bool started = false;
    State state = READY;
    unsigned number = 0, shuffles = 0;
    double exchanged[2]; // values of this and of the previous shuffle
};

static std::vector<std::unique_ptr<Fiber>> fibers;
static Fiber *current;
static jmp_buf scheduler;
static void (*run_thread)(void **);
static void **run_arguments;
static std::vector<double> dynamic_memory;

static void wait(State state) {
    current->state = state;
    if (!_setjmp(current->place)) _longjmp(scheduler, 1);
}

[[noreturn]] static void fail(const char *message) {
    std::fprintf(stderr, "%s\n", message);
    std::abort();
}

// A fiber serves one thread after another, because making one is slow.
static void serve() {
    for (;;) {
        run_thread(run_arguments);
        wait(DONE);
    }
}

static void resume(Fiber &fiber) {
    current = &fiber;
    threadIdx = fiber.index;
    fiber.state = READY;
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}

static Fiber &fiber_number(size_t number) {
    const size_t stack_size = 64 * 1024;
    while (fibers.size() <= number) {
        auto fiber = std::make_unique<Fiber>();
        fiber->stack = std::make_unique<char[]>(stack_size);
        getcontext(&fiber->context);
        fiber->context.uc_stack.ss_sp = fiber->stack.get();
        fiber->context.uc_stack.ss_size = stack_size;
        makecontext(&fiber->context, serve, 0);
        fibers.push_back(std::move(fiber));
    }
    return *fibers[number];
}

// Run a warp until its threads wait for other warps or have ended. Returns whether it waits.
static bool run_warp(size_t begin, size_t end, bool reversed) {
    for (bool backwards = reversed;; backwards = reversed && !backwards) {
        size_t waiting[DONE + 1] = {};
        for (size_t turn = begin; turn < end; turn++) {
            Fiber &fiber = *fibers[backwards ? begin + end - 1 - turn : turn];
            if (fiber.state == READY || fiber.state == AT_WARP) resume(fiber);
            waiting[fiber.state]++;
        }
        if (waiting[AT_WARP] == end - begin) continue;
        if (waiting[AT_WARP] > 0) fail("threads of a warp wait at different places");
        return waiting[AT_BLOCK] > 0;
    }
}

static void run_block(size_t threads, size_t shared_bytes, bool reversed) {
    // The contents are not numbers, with a margin after the end to which nothing may be written.
    const size_t margin = 1024;
    dynamic_memory.resize((shared_bytes + 2 * margin) / sizeof(double));
    char *memory = (char *)dynamic_memory.data();
    std::memset(memory, -1, shared_bytes + margin);
    for (bool backwards = reversed, going_on = true; going_on; backwards = reversed && !backwards) {
        going_on = false;
        const size_t warps = (threads + warp_size - 1) / warp_size;
        for (size_t turn = 0; turn < warps; turn++) {
            const size_t begin = (backwards ? warps - 1 - turn : turn) * warp_size;
            const size_t end = begin + warp_size < threads ? begin + warp_size : threads;
            for (size_t number = begin; number < end; number++)
                if (fibers[number]->state == AT_BLOCK) fibers[number]->state = READY;
            if (run_warp(begin, end, reversed)) going_on = true;
        }
    }
    for (size_t index = shared_bytes; index < shared_bytes + margin; index++)
        if (memory[index] != -1) fail("write after the end of dynamic shared memory");
}

static void launch(void (*thread)(void **), const unsigned *grid, const unsigned *block, size_t shared_bytes,
                   bool reversed, void **arguments) {
    run_thread = thread;
    run_arguments = arguments;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    const size_t threads = (size_t)block[0] * block[1] * block[2];
#ifdef FLUSH_TO_ZERO
    const unsigned status = _mm_getcsr();
    _mm_setcsr(status | 0x8040); // denormal results and arguments are 0
#endif
    fiber_number(threads - 1);
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                for (size_t number = 0; number < threads; number++) {
                    Fiber &fiber = *fibers[number];
                    fiber.index = {(unsigned)(number % block[0]), (unsigned)(number / block[0] % block[1]),
                                   (unsigned)(number / block[0] / block[1])};
                    fiber.number = (unsigned)number;
                    fiber.state = READY;
                    fiber.shuffles = 0;
                }
                run_block(threads, shared_bytes, reversed);
            }
#ifdef FLUSH_TO_ZERO
    _mm_setcsr(status);
#endif
}

template <typename... Arguments, size_t... Numbers>
void call(void (*kernel)(Arguments...), void **arguments, std::index_sequence<Numbers...>) {
    kernel(*static_cast<std::remove_reference_t<Arguments> *>(arguments[Numbers])...);
}

template <typename... Arguments> void call(void (*kernel)(Arguments...), void **arguments) {
    call(kernel, arguments, std::index_sequence_for<Arguments...>{});
}

template <typename... Arguments> constexpr int count(void (*)(Arguments...)) { return sizeof...(Arguments); }

} // namespace host

static inline void __syncthreads() { host::wait(host::AT_BLOCK); }
static inline void __syncwarp() { host::wait(host::AT_WARP); }

template <typename Value> Value __shfl_sync(unsigned, Value value, int lane) {
    host::Fiber &mine = *host::current;
    const unsigned parity = mine.shuffles++ % 2;
    std::memcpy(&mine.exchanged[parity], &value, sizeof(Value));
    host::wait(host::AT_WARP);
    const host::Fiber &other =
        *host::fibers[mine.number / host::warp_size * host::warp_size + lane % host::warp_size];
    std::memcpy(&value, &other.exchanged[parity], sizeof(Value));
    return value;
}

template <typename Value> Value __shfl_xor_sync(unsigned lanes, Value value, int distance) {
    return __shfl_sync(lanes, value, (int)(host::current->number % host::warp_size) ^ distance);
}

// Makes launch_NAME(grid, block, shared_bytes, reversed, arguments) of a kernel, and its number of parameters.
#define MAKE_LAUNCHER(name)                                                                                           \
    extern "C" int parameters_of_##name() { return host::count(name); }                                               \
    extern "C" void launch_##name(const unsigned *grid, const unsigned *block, size_t shared_bytes, bool reversed,    \
                                  void **arguments) {                                                                 \
        host::launch([](void **values) { host::call(name, values); }, grid, block, shared_bytes, reversed, arguments); \
    }
