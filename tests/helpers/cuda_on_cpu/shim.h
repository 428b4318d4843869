// CUDA's words for a C++ compiler: a block's threads are fibers of one thread, taking turns at each barrier.
//
// The fibers take their turns forwards or backwards, as is asked for: a kernel that lacks a barrier shows it by
// other results. Shared memory holds NaN when a block begins: a kernel that reads what no thread has written shows
// that. Vectors at an address that a GPU would refuse are counted.
#include <link.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
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
struct Team;
struct State { Index thread, block, block_size, grid; Team* team; };
thread_local State state;
#define threadIdx state.thread
#define blockIdx state.block
#define blockDim state.block_size
#define gridDim state.grid

std::atomic<int> misaligned{0};

// Vectors look at their addresses whenever they are read or written.
static void copy_vector(void* to, const void* from, size_t size) {
    asm volatile("" : "+r"(to), "+r"(from));  // or the compiler takes the alignment for granted
    if ((size_t)to % size || (size_t)from % size) misaligned++;
    memcpy(to, from, size);
}
#define VECTOR(name, SIZE, ...)                                                                              \
    struct alignas(SIZE) name {                                                                              \
        float __VA_ARGS__;                                                                                   \
        name() = default;                                                                                    \
        name(const name& other) { copy_vector(this, &other, SIZE); }                                         \
        name& operator=(const name& other) { copy_vector(this, &other, SIZE); return *this; }                \
    };
VECTOR(float4, 16, x, y, z, w)
VECTOR(float2, 8, x, y)
inline float4 make_float4(float x, float y, float z, float w) {
    float4 made;
    made.x = x, made.y = y, made.z = z, made.w = w;
    return made;
}
inline float2 make_float2(float x, float y) {
    float2 made;
    made.x = x, made.y = y;
    return made;
}

// Rounded one by one: the compiler cannot fuse what it may not see into.
#define ROUNDED(name, operation)                                                                             \
    __attribute__((noinline)) static float name(float a, float b) { return a operation b; }
ROUNDED(__fadd_rn, +)
ROUNDED(__fsub_rn, -)
ROUNDED(__fmul_rn, *)

constexpr int MOST_THREADS = 256, STACK = 1 << 16;

struct Team {
    char stacks[MOST_THREADS * STACK];
    ucontext_t start[MOST_THREADS];
    jmp_buf master, fibers[MOST_THREADS];
    bool begun[MOST_THREADS], done[MOST_THREADS];
    int current;
    const std::function<void()>* body;
};

// All thread-local memory of this library: the blocks' shared memory, and `state`.
struct Memory { void* start; size_t size; };
static int find_memory(dl_phdr_info* library, size_t, void* found) {
    bool ours = false;
    for (int i = 0; i < library->dlpi_phnum; i++) {
        const auto& part = library->dlpi_phdr[i];
        size_t offset = (size_t)&find_memory - library->dlpi_addr - part.p_vaddr;
        ours = ours || (part.p_type == PT_LOAD && offset < part.p_memsz);
    }
    for (int i = 0; ours && i < library->dlpi_phnum; i++)
        if (library->dlpi_phdr[i].p_type == PT_TLS)
            *(Memory*)found = {library->dlpi_tls_data, library->dlpi_phdr[i].p_memsz};
    return ours;
}

// ucontext begins a fiber; _setjmp switches, since swapcontext asks the kernel for the signal mask each time.
inline void __syncthreads() {
    Team* team = state.team;
    if (!_setjmp(team->fibers[team->current])) _longjmp(team->master, 1);
}

static void run_fiber() {
    for (;;) {  // a block after the other
        (*state.team->body)();
        state.team->done[state.team->current] = true;
        __syncthreads();
    }
}

static void resume(int t) {
    Team* team = state.team;
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
    Team* team = state.team;
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
    static Team teams[2];  // one launch at a time
    auto work = [&](Team& mine) {
        std::fill(mine.begun, mine.begun + MOST_THREADS, false);
        mine.body = &body;
        state.team = &mine;
        Memory memory{};
        dl_iterate_phdr(find_memory, &memory);
        for (int b = next++; b < blocks; b = next++) {
            memset(memory.start, 0xff, memory.size);  // NaN
            state = {{0}, {b}, {threads}, {blocks}, &mine};
            run_block(threads, backwards);
        }
    };
    std::vector<std::thread> workers;
    for (unsigned i = 0; i < std::min(2u, std::max(1u, std::thread::hardware_concurrency())); i++)
        workers.emplace_back(work, std::ref(teams[i]));
    for (auto& worker : workers) worker.join();
}

// A kernel's parameters, a letter each: int32, int64, double; capital of a pointer's: Float,
// Double, Int, Byte.
template <class T> constexpr char letter() {
    using U = std::remove_cv_t<std::remove_pointer_t<T>>;
    constexpr char plain = std::is_same_v<U, float> ? 'f' : std::is_same_v<U, double> ? 'd' :
                           sizeof(U) == 8 ? 'l' : sizeof(U) == 1 ? 'b' : 'i';
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

extern "C" int take_misaligned() { return misaligned.exchange(0); }
