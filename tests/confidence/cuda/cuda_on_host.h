// Just enough of CUDA for kernels.cu to run on the host: every thread of a block is a fiber, and blocks run one after the
// other. Fibers take turns at __syncthreads() only; from one to the next their order is reversed if the caller wishes,
// which changes the results of kernels that lack a synchronisation.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

struct Index {
    unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

namespace host {

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    std::unique_ptr<char[]> stack;
    Index index;
    bool started = false, done = false;
};

static std::vector<std::unique_ptr<Fiber>> fibers;
static Fiber *current;
static jmp_buf scheduler;
static void (*run_thread)(void **);
static void **run_arguments;

// A fiber serves one thread after another, because making one is slow.
static void serve() {
    for (;;) {
        run_thread(run_arguments);
        current->done = true;
        if (!_setjmp(current->place)) _longjmp(scheduler, 1);
    }
}

static void resume(Fiber &fiber) {
    current = &fiber;
    threadIdx = fiber.index;
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

static void launch(void (*thread)(void **), const unsigned *grid, const unsigned *block, bool reversed,
                   void **arguments) {
    run_thread = thread;
    run_arguments = arguments;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    const size_t threads = (size_t)block[0] * block[1] * block[2];
    fiber_number(threads - 1);
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                for (size_t number = 0; number < threads; number++) {
                    Fiber &fiber = *fibers[number];
                    fiber.index = {(unsigned)(number % block[0]), (unsigned)(number / block[0] % block[1]),
                                   (unsigned)(number / block[0] / block[1])};
                    fiber.done = false;
                }
                for (bool backwards = reversed, going_on = true; going_on; backwards = reversed && !backwards) {
                    going_on = false;
                    for (size_t turn = 0; turn < threads; turn++) {
                        Fiber &fiber = *fibers[backwards ? threads - 1 - turn : turn];
                        if (!fiber.done) resume(fiber);
                        going_on = going_on || !fiber.done;
                    }
                }
            }
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

static inline void __syncthreads() {
    if (!_setjmp(host::current->place)) _longjmp(host::scheduler, 1);
}

// Makes launch_NAME(grid, block, reversed, arguments) of a kernel, and its number of parameters.
#define MAKE_LAUNCHER(name)                                                                                           \
    extern "C" int parameters_of_##name() { return host::count(name); }                                               \
    extern "C" void launch_##name(const unsigned *grid, const unsigned *block, bool reversed, void **arguments) {     \
        host::launch([](void **values) { host::call(name, values); }, grid, block, reversed, arguments);              \
    }
