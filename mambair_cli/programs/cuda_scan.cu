// The selective scan for inference, in CUDA C++ without headers, compiled at run time for the card.
//
// One thread holds STATES of the N states of a channel in registers; LANES neighbouring threads hold all of
// them. A block walks along one path of one image, or along one chunk of it. B and C of the path's next STAGE
// tokens are in shared memory as float32, and all threads read the same four at a time; tokens and steps are read
// and results written at the pixels that the path names. Everything is loaded one stage or one group ahead.
//
// Steps are given as step * log2(e), so that every decay is a power of 2, which the card computes directly. The
// token that is added to the states needs the step itself: the factor ln(2) is multiplied into B when B is staged.
// A result overwrites its step, in shared memory and then in memory, after all threads have read the step.
//
// Macros set by the caller of the compiler: N, LANES, STEPS, STAGE, THREADS, BLOCKS; VECTOR, the elements of a row
// of projections that are read at once; INPUT, the type of u, B and C, and OUTPUT, that of steps and results (0:
// float32, 1: float16, 2: bfloat16); DICTIONARY (0 or 1); EACH, the tokens, or steps, that are copied at once: at
// most 16 bytes, which a card copies asynchronously, or fewer if their number or address requires it (below 4 bytes
// the copy is synchronous).

#define STATES ((N + LANES - 1) / LANES)
#define SLOTS ((STATES + 3) / 4 * 4)  // floats of one lane in a staged row
#define COLUMNS (2 * N)
#define ROW (2 * LANES * SLOTS)  // staged: B of each lane, C of each lane
#define MINE (STEPS / LANES)     // steps of a group that one lane reads from shared memory and writes
#define WARP_CHANNELS (32 / LANES)
#define BLOCK_CHANNELS (THREADS / LANES)
#define PIECES (WARP_CHANNELS / EACH)  // pieces of a step's tokens that a warp copies
#define AHEAD (STAGE / STEPS - 1)  // groups; AHEAD + 1 is a power of 2

static_assert(LANES == 1 || LANES == 2 || LANES == 4, "LANES is 1, 2 or 4: sums are gathered so");
static_assert(STEPS % LANES == 0 && STEPS % 4 == 0, "STEPS is a multiple of LANES and of 4");
static_assert(STAGE % STEPS == 0 && STAGE >= 2 * STEPS, "STAGE is a multiple of STEPS: groups are fetched ahead");
static_assert((STAGE & (STAGE - 1)) == 0, "STAGE is a power of 2: places go round in rings");
static_assert((STAGE / STEPS & AHEAD) == 0, "STAGE / STEPS is a power of 2: groups go round in a ring");
static_assert(STAGE <= THREADS, "STAGE is at most THREADS: each thread looks up one pixel of a stage");
static_assert(THREADS % 32 == 0, "THREADS is a multiple of 32: warps are whole");
static_assert(COLUMNS % VECTOR == 0, "VECTOR divides a row of projections");
static_assert(EACH > 0 && WARP_CHANNELS % EACH == 0, "EACH divides the channels of a warp");

constexpr float LN_2 = 0.6931471805599453f;

typedef Element<INPUT> In;
typedef Element<OUTPUT> Out;

typedef Pack<In::Stored, VECTOR> Columns;
typedef Pack<In::Stored, EACH> TokenPiece;
typedef Pack<Out::Stored, EACH> ValuePiece;

static_assert(sizeof(Columns) <= 16, "VECTOR elements have 16 bytes at most: they are read at once");
static_assert(sizeof(TokenPiece) <= 16 && sizeof(ValuePiece) <= 16, "EACH elements have 16 bytes at most");

// Store under a predicate: a branch would wait for all loads that are under way.
#ifndef TWIN
template <typename Values>
__device__ __forceinline__ void store_where(bool wanted, Values* place, const Values& values) {
    if constexpr (sizeof(Values) == 2) {
        asm volatile("{ .reg .pred p; setp.ne.s32 p, %0, 0; @p st.global.u16 [%1], %2; }" ::"r"((int)wanted),
                     "l"(place), "h"(*(const unsigned short*)&values)
                     : "memory");
    } else if constexpr (sizeof(Values) == 4) {
        asm volatile("{ .reg .pred p; setp.ne.s32 p, %0, 0; @p st.global.u32 [%1], %2; }" ::"r"((int)wanted),
                     "l"(place), "r"(*(const unsigned*)&values)
                     : "memory");
    } else if constexpr (sizeof(Values) == 8) {
        const unsigned* words = (const unsigned*)&values;
        asm volatile("{ .reg .pred p; setp.ne.s32 p, %0, 0; @p st.global.v2.u32 [%1], {%2, %3}; }" ::"r"((int)wanted),
                     "l"(place), "r"(words[0]), "r"(words[1])
                     : "memory");
    } else {
        static_assert(sizeof(Values) == 16);
        const unsigned* words = (const unsigned*)&values;
        asm volatile("{ .reg .pred p; setp.ne.s32 p, %0, 0; @p st.global.v4.u32 [%1], {%2, %3, %4, %5}; }" ::"r"(
                         (int)wanted),
                     "l"(place), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
                     : "memory");
    }
}
#endif

struct Operands {
    const In::Stored* u;          // (b, l, d)
    const In::Stored* projected;  // B and C, joined, (b, l, k, 2 N), strided
    const int* paths;             // (k, l) or (b, k, l)
    const float* A;               // (k, d, N)
    const float* D;               // (k, d)
    const int* labels;            // (b, l): row of the dictionary that is added to C at each step of the path
    const float* dictionary;      // (t, N)
    Out::Stored* values;          // (b, l, k, d): steps, and then results
    float* ends;                  // (b, k, chunks, N, d): states after each chunk that starts from zero
    float* sums;                  // (b, k, chunks, d): sum of each chunk's steps
    long long image_stride;       // of projected
    long long paths_stride;       // of an image's paths; 0 if all images share them
    int token_stride;
    int path_stride;
    int k;
    int length;
    int channels;
    int chunk;   // tokens
    int chunks;
};

// Copy tokens or steps to shared memory, asynchronously if the card can.
#ifndef TWIN
template <typename T>
__device__ __forceinline__ void copy_ahead(T* place, const T* source) {
#if __CUDA_ARCH__ >= 800
    if constexpr (sizeof(T) >= 4) {  // 4, 8 or 16
        unsigned address = (unsigned)__cvta_generic_to_shared(place);
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(address), "l"(source), "n"(sizeof(T)));
        return;
    }
#endif
    *place = *source;
}

__device__ __forceinline__ void end_group() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;");
#endif
}

// Wait for the warp's copies of all groups but the last AHEAD - 1, and until the warp has read what will be
// overwritten.
__device__ __forceinline__ void await_group() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(AHEAD - 1) : "memory");
#endif
    __syncwarp();
}
#endif

// Elements from one step's channels to the next one's: chosen so that lanes that read successive steps, and a warp
// that writes several, use different banks.
#define ROW_BYTES(T) (BLOCK_CHANNELS * sizeof(T))
template <typename T>
constexpr int ROW_OF = (LANES == 1 ? ROW_BYTES(T) + 64 : (ROW_BYTES(T) + 127) / 128 * 128 + 128 / LANES) / sizeof(T);

struct Shared {
    alignas(16) In::Stored tokens[AHEAD + 1][STEPS][ROW_OF<In::Stored>];
    alignas(16) Out::Stored steps[AHEAD + 1][STEPS][ROW_OF<Out::Stored>];
    alignas(16) float rows[2][STAGE][ROW];
    alignas(16) int pixels[4 * STAGE];  // of four stages
};

static_assert(ROW_OF<In::Stored> * sizeof(In::Stored) % 16 == 0, "steps of tokens begin where pieces may");
static_assert(ROW_OF<Out::Stored> * sizeof(Out::Stored) % 16 == 0, "steps of values begin where pieces may");
static_assert(sizeof(Shared) <= 48 * 1024, "a block has 48 KiB of shared memory without asking");

#define GROUPS (COLUMNS / VECTOR)
#define ITEMS (STAGE * GROUPS)
#define ITEMS_PER_THREAD ((ITEMS + THREADS - 1) / THREADS)

struct Walk {
    const Operands& operands;
    Shared& shared;
    const In::Stored* projected;
    const int* path;
    const int* labels;
    int start, stop;

    __device__ __forceinline__ int pixel(int position) const {
        return position < stop ? path[position] : path[start];
    }

    __device__ __forceinline__ void fetch_rows(int stage, Columns* ahead) const {
#pragma unroll
        for (int i = 0; i < ITEMS_PER_THREAD; i++) {
            int item = i * THREADS + threadIdx.x;
            if (ITEMS % THREADS == 0 || item < ITEMS) {
                int pixel = shared.pixels[(stage & 3) * STAGE + item / GROUPS];
                const In::Stored* row = projected + (long long)pixel * operands.token_stride;
                ahead[i] = *(const Columns*)(row + item % GROUPS * VECTOR);
            }
        }
    }

    __device__ __forceinline__ void keep_rows(int stage, const Columns* ahead) const {
#pragma unroll
        for (int i = 0; i < ITEMS_PER_THREAD; i++) {
            int item = i * THREADS + threadIdx.x;
            if (ITEMS % THREADS == 0 || item < ITEMS) {
                int token = item / GROUPS;
                float* row = shared.rows[stage & 1][token];
#pragma unroll
                for (int v = 0; v < VECTOR; v++) {
                    int column = item % GROUPS * VECTOR + v;
                    float value = In::load(ahead[i].at[v]);
                    bool leaves = column >= N;
                    int state = leaves ? column - N : column;
                    if (!leaves) value *= LN_2;
                    if (DICTIONARY && leaves) {
                        int position = min(start + stage * STAGE + token, stop - 1);
                        value += operands.dictionary[labels[position] * N + state];
                    }
                    row[state / STATES * SLOTS + state % STATES + (leaves ? LANES * SLOTS : 0)] = value;
                }
            }
        }
    }
};

// Walk along a chunk. With WRITES, write y; without, write how the chunk changes the states it starts from.
template <bool WRITES>
__device__ __forceinline__ void walk(const Operands& operands, Shared& shared) {
    const int lane = threadIdx.x % LANES;
    const int wanted = blockIdx.x * BLOCK_CHANNELS + threadIdx.x / LANES;
    const bool exists = wanted < operands.channels;
    const int channel = exists ? wanted : 0;
    const int line = blockIdx.y;  // image and path
    const int image = line / operands.k, path = line % operands.k;
    const int d = operands.channels;
    const int first = blockIdx.z * operands.chunk;

    Walk along = {operands,
                  shared,
                  operands.projected + image * operands.image_stride + path * operands.path_stride,
                  operands.paths + image * operands.paths_stride + (long long)path * operands.length,
                  DICTIONARY ? operands.labels + (long long)image * operands.length : nullptr,
                  first,
                  min(first + operands.chunk, operands.length)};
    const int stride = operands.k * d;  // of a pixel's values
    Out::Stored* values = operands.values + (long long)image * operands.length * stride + path * d + channel;

    const long long row = (long long)path * d + channel;
    const float D = operands.D[row];
    float sum = 0.0f, A[STATES], h[STATES];
#pragma unroll
    for (int s = 0; s < STATES; s++) {
        int state = lane * STATES + s;
        A[s] = state < N ? operands.A[row * N + state] : 0.0f;
        h[s] = 0.0f;
    }
    if (WRITES) {  // compute the states after the chunks before this one
#pragma unroll 2
        for (int before = 0; before < (int)blockIdx.z; before++) {
            long long at = (long long)line * operands.chunks + before;
            float steps = operands.sums[at * d + channel];
#pragma unroll
            for (int s = 0; s < STATES; s++) {
                int state = lane * STATES + s;
                float end = state < N ? operands.ends[(at * N + state) * d + channel] : 0.0f;
                h[s] = power_of_2(steps * A[s]) * h[s] + end;
            }
        }
    }

    // Slots of states that do not exist stay zero.
    for (int i = threadIdx.x; i < 2 * STAGE * ROW; i += THREADS) (&shared.rows[0][0][0])[i] = 0.0f;
    for (int i = threadIdx.x; i < 2 * STAGE; i += THREADS)
        shared.pixels[i] = along.pixel(along.start + i);
    __syncthreads();
    Columns ahead[ITEMS_PER_THREAD];
    along.fetch_rows(0, ahead);
    along.keep_rows(0, ahead);
    // A warp copies for its threads; each thread copies the same channels of some steps.
    const int piece = threadIdx.x % 32 % PIECES, first_step = threadIdx.x % 32 / PIECES;
    const int copied = threadIdx.x / 32 * WARP_CHANNELS + piece * EACH;  // channel, counted from the block's first
    const bool copies = blockIdx.x * BLOCK_CHANNELS + copied < d;
    const int source = copies ? blockIdx.x * BLOCK_CHANNELS + copied : 0;
    const In::Stored* copied_tokens = operands.u + (long long)image * operands.length * d + source;
    Out::Stored* copied_values = values - channel + source;
    auto fetch_group = [&](int group) {  // counted from the chunk's start
#pragma unroll
        for (int t = 0; t < STEPS; t += 32 / PIECES) {
            int step = t + first_step;
            if (STEPS % (32 / PIECES) == 0 || step < STEPS) {
                int position = group * STEPS + step;
                long long pixel = shared.pixels[position & (4 * STAGE - 1)];
                int slot = group & AHEAD;
                copy_ahead((TokenPiece*)&shared.tokens[slot][step][copied],
                           (const TokenPiece*)(copied_tokens + pixel * d));
                copy_ahead((ValuePiece*)&shared.steps[slot][step][copied],
                           (const ValuePiece*)(copied_values + pixel * stride));
            }
        }
        end_group();
    };
    for (int group = 0; group < AHEAD; group++) fetch_group(group);
    __syncthreads();

    const int stages = (along.stop - along.start + STAGE - 1) / STAGE;
#pragma unroll 1
    for (int stage = 0; stage < stages; stage++) {
        along.fetch_rows(stage + 1, ahead);
        int next = 0;
        if (threadIdx.x < STAGE) next = along.pixel(along.start + (stage + 2) * STAGE + threadIdx.x);

#pragma unroll 1
        for (int group = 0; group < STAGE; group += STEPS) {
            const float* rows = shared.rows[stage & 1][group];
            const int number = (stage * STAGE + group) / STEPS;
            await_group();

            float own_step[MINE], own_enter[MINE], own_y[MINE];
#pragma unroll
            for (int i = 0; i < MINE; i++) {
                const int slot = number & AHEAD, mine = threadIdx.x / LANES;
                float u = In::load(shared.tokens[slot][i * LANES + lane][mine]);
                own_step[i] = Out::load(shared.steps[slot][i * LANES + lane][mine]);
                own_enter[i] = own_step[i] * u;
                own_y[i] = D * u;
            }
            fetch_group(number + AHEAD);

            float y_here[STEPS];
#pragma unroll
            for (int t = 0; t < STEPS; t++) {
                float step = own_step[t / LANES], enter = own_enter[t / LANES];
                if (LANES > 1) {
                    step = __shfl_sync(0xFFFFFFFF, step, t % LANES, LANES);
                    enter = __shfl_sync(0xFFFFFFFF, enter, t % LANES, LANES);
                }
                if (!WRITES) sum += step;  // without WRITES, all chunks are full
                y_here[t] = 0.0f;
                const float* row = rows + t * ROW + lane * SLOTS;
#pragma unroll
                for (int q = 0; q < SLOTS; q += 4) {
                    float4 b4 = *(const float4*)(row + q), c4 = b4;
                    if (WRITES) c4 = *(const float4*)(row + LANES * SLOTS + q);
                    float enters[4] = {b4.x, b4.y, b4.z, b4.w}, leaves[4] = {c4.x, c4.y, c4.z, c4.w};
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        int s = q + j;
                        if (s < STATES) {
                            h[s] = power_of_2(step * A[s]) * h[s] + enter * enters[j];
                            if (WRITES) y_here[t] += h[s] * leaves[j];
                        }
                    }
                }
            }

            if (WRITES) {
                // Results overwrite their steps in shared memory, too, and are written in pieces of the same width.
#pragma unroll
                for (int i = 0; i < MINE; i++) {
                    float total = own_y[i];
                    if (LANES == 1) total += y_here[i];
                    if (LANES == 2) {
                        float own = lane ? y_here[LANES * i + (LANES > 1)] : y_here[LANES * i];
                        float other = lane ? y_here[LANES * i] : y_here[LANES * i + (LANES > 1)];
                        total += own + __shfl_xor_sync(0xFFFFFFFF, other, 1, LANES);
                    }
                    if (LANES == 4) {
                        // Pairs of lanes exchange halves, then neighbours: each ends with its own token's sum.
                        float part[4];
#pragma unroll
                        for (int t = 0; t < 4; t++) part[t] = y_here[(LANES * i + t) % STEPS];
                        bool high = lane & 2, odd = lane & 1;
                        float keep0 = high ? part[2] : part[0], keep1 = high ? part[3] : part[1];
                        float send0 = high ? part[0] : part[2], send1 = high ? part[1] : part[3];
                        keep0 += __shfl_xor_sync(0xFFFFFFFF, send0, 2, LANES);
                        keep1 += __shfl_xor_sync(0xFFFFFFFF, send1, 2, LANES);
                        float keep = odd ? keep1 : keep0, send = odd ? keep0 : keep1;
                        total += keep + __shfl_xor_sync(0xFFFFFFFF, send, 1, LANES);
                    }
                    shared.steps[number & AHEAD][i * LANES + lane][threadIdx.x / LANES] = Out::store(total);
                }
                __syncwarp();
#pragma unroll
                for (int t = 0; t < STEPS; t += 32 / PIECES) {
                    const int step = t + first_step;
                    if (STEPS % (32 / PIECES) == 0 || step < STEPS) {
                        const int position = number * STEPS + step;
                        long long pixel = shared.pixels[position & (4 * STAGE - 1)];
                        ValuePiece results = *(const ValuePiece*)&shared.steps[number & AHEAD][step][copied];
                        store_where(copies && along.start + position < along.stop,
                                    (ValuePiece*)(copied_values + pixel * stride), results);
                    }
                }
            }
        }

        along.keep_rows(stage + 1, ahead);
        if (threadIdx.x < STAGE) shared.pixels[((stage + 2) & 3) * STAGE + threadIdx.x] = next;
        __syncthreads();
    }

    if (!WRITES && exists) {
        long long at = (long long)line * operands.chunks + blockIdx.z;
        if (lane == 0) operands.sums[at * d + channel] = sum;
#pragma unroll
        for (int s = 0; s < STATES; s++) {
            int state = lane * STATES + s;
            if (state < N) operands.ends[(at * N + state) * d + channel] = h[s];
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) scan(const Operands operands) {
    __shared__ Shared shared;
    walk<true>(operands, shared);
}

// The states after each chunk but the last, each chunk started from zero.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) scan_ends(const Operands operands) {
    __shared__ Shared shared;
    walk<false>(operands, shared);
}
