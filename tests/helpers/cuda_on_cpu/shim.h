// CUDA's words for a C++ compiler: a block's threads are fibers of one thread, taking turns at each barrier.
//
// The fibers take their turns forwards or backwards, as is asked for: a kernel that lacks a barrier shows it by
// other results.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using std::max;
using std::min;

#define __global__
#define __device__
#define __shared__ static thread_local
#define __launch_bounds__(...)

struct Index { int x; };
thread_local Index threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

constexpr int MOST_THREADS = 256, STACK = 1 << 16;

struct Team {
    std::unique_ptr<char[]> stacks{new char[MOST_THREADS * STACK]};
    ucontext_t start[MOST_THREADS];
    jmp_buf master, fibers[MOST_THREADS];
    bool begun[MOST_THREADS] = {}, done[MOST_THREADS];
    int current;
    const std::function<void()>* body;
};
thread_local Team* team;

// ucontext begins a fiber; _setjmp switches, since swapcontext asks the kernel for the signal mask each time.
inline void __syncthreads() {
    if (!_setjmp(team->fibers[team->current])) _longjmp(team->master, 1);
}

static void run_fiber() {
    for (;;) {  // a block after the other
        (*team->body)();
        team->done[team->current] = true;
        __syncthreads();
    }
}

static void resume(int t) {
    team->current = t;
    threadIdx.x = t;
    if (_setjmp(team->master)) return;
    if (team->begun[t]) _longjmp(team->fibers[t], 1);
    team->begun[t] = true;
    ucontext_t& start = team->start[t];
    getcontext(&start);
    start.uc_stack.ss_sp = &team->stacks[(size_t)t * STACK];
    start.uc_stack.ss_size = STACK;
    start.uc_link = nullptr;
    makecontext(&start, run_fiber, 0);
    setcontext(&start);
}

// One block. A fiber that ends while others wait at a barrier is, as on a GPU, no longer waited for.
static void run_block(int threads, bool backwards) {
    std::fill(team->done, team->done + threads, false);
    for (bool busy = true; busy;) {
        busy = false;
        for (int i = 0; i < threads; i++) {
            int t = backwards ? threads - 1 - i : i;
            if (team->done[t]) continue;
            resume(t);
            busy = busy || !team->done[t];
        }
    }
}

static void launch(int blocks, int threads, bool backwards, const std::function<void()>& body) {
    std::atomic<int> next{0};
    auto work = [&] {
        Team mine;
        team = &mine;
        mine.body = &body;
        blockDim.x = threads;
        gridDim.x = blocks;
        for (int b = next++; b < blocks; b = next++) {
            blockIdx.x = b;
            run_block(threads, backwards);
        }
    };
    std::vector<std::thread> workers;
    for (unsigned i = 0; i < std::min(2u, std::max(1u, std::thread::hardware_concurrency())); i++)
        workers.emplace_back(work);
    for (auto& worker : workers) worker.join();
}

// A kernel's parameters, a letter each: int32, int64, double; capital of a pointer's: Float, Double, Int.
template <class T> constexpr char letter() {
    using U = std::remove_cv_t<std::remove_pointer_t<T>>;
    constexpr char plain = std::is_same_v<U, float> ? 'f' : std::is_same_v<U, double> ? 'd' :
                           sizeof(U) == 8 ? 'l' : 'i';
    return std::is_pointer_v<T> ? plain - 'a' + 'A' : plain;
}
template <class... P> std::string letters(void (*)(P...)) { return {letter<P>()...}; }

// Run a kernel on arguments given as to cuLaunchKernel: a pointer to each value.
template <class... P, size_t... I>
void call(void (*kernel)(P...), std::index_sequence<I...>, void** arguments, int blocks, int threads,
          bool backwards) {
    launch(blocks, threads, backwards, [=] { kernel(*(P*)arguments[I]...); });
}
template <class... P>
void run(void (*kernel)(P...), void** arguments, int blocks, int threads, bool backwards) {
    call(kernel, std::index_sequence_for<P...>(), arguments, blocks, threads, backwards);
}

#define EXPORT(name)                                                                                         \
    extern "C" void run_##name(void** arguments, int blocks, int threads, bool backwards) {                  \
        run(name, arguments, blocks, threads, backwards);                                                    \
    }                                                                                                        \
    extern "C" const char* letters_##name() {                                                                \
        static const std::string found = letters(name);                                                      \
        return found.c_str();                                                                                \
    }
