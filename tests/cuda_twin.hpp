// What CUDA C++ means where a block's threads are threads of the CPU: enough for this project's kernels.
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#define TWIN
#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

struct Index { int x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
static thread_local Index threadIdx, blockIdx;
static std::barrier<>* everybody;
static float exchanged[1024];

using std::min;
typedef unsigned short Half;

static void __syncthreads() { everybody->arrive_and_wait(); }

static float shuffle(float value, int from) {
    exchanged[threadIdx.x] = value;
    __syncthreads();
    float got = exchanged[from];
    __syncthreads();
    return got;
}
static float __shfl_sync(unsigned, float value, int lane, int width) {
    return shuffle(value, threadIdx.x / width * width + lane);
}
static float __shfl_xor_sync(unsigned, float value, int mask, int) { return shuffle(value, threadIdx.x ^ mask); }

static float power_of_2(float x) { return exp2f(x); }
static float reciprocal(float x) { return 1 / x; }
static float bits_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
static unsigned float_as_bits(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
static float from_half(Half x) { _Float16 y; memcpy(&y, &x, 2); return y; }
static Half to_half(float x) { _Float16 y = x; Half z; memcpy(&z, &y, 2); return z; }

// A card stops where a word does not lie at a multiple of its size; here it becomes NaN, which no test takes.
template <typename T>
static void move_word(T* place, const T* source) {
    const bool lies_right = (uintptr_t)place % sizeof(T) == 0 && (uintptr_t)source % sizeof(T) == 0;
    if (lies_right) memcpy((void*)place, (const void*)source, sizeof(T));
    else memset((void*)place, 0xFF, sizeof(T));
}

template <typename Values>
static void store_where(bool wanted, Values* place, const Values& values) {
    if (wanted) move_word(place, &values);
}

template <typename T>
static void copy_ahead(T* place, const T* source) { move_word(place, source); }
static void end_group() {}
static void await_group() { __syncthreads(); }
static void __syncwarp() { __syncthreads(); }

template <typename Operands>
void run(void (*kernel)(Operands), int x, int y, int z, int threads, const Operands& operands) {
    std::barrier barrier(threads);
    everybody = &barrier;
    std::vector<std::thread> block;
    for (int i = 0; i < threads; i++)
        block.emplace_back([=, &barrier] {
            for (int c = 0; c < z; c++)
                for (int b = 0; b < y; b++)
                    for (int a = 0; a < x; a++) {
                        threadIdx = {i, 0, 0};
                        blockIdx = {a, b, c};
                        kernel(operands);
                        barrier.arrive_and_wait();
                    }
        });
    for (auto& thread : block) thread.join();
}
