// The selective scan and its gradient for training, in CUDA C++ without headers, compiled at run time for the card.
//
// A thread holds the N states of a channel in registers. A block walks with THREADS channels along one chunk of one
// path of one image, forward or backward, after a pass that finds what each chunk leaves to the next; there are so
// many chunks that the card's warps hide each other's waiting. B, C and the ranks of the steps are in shared memory
// for STAGE tokens. Forward it keeps the states at the start of each GROUP of tokens; backward it computes the
// group's states anew from them, and sums the gradients of B, C and ranks over channels for PART tokens at a time.
//
// Macros set by the caller of the compiler: N and R, the rank of the steps; THREADS, a multiple of 32; RESIDENT, the
// blocks that a multiprocessor should hold at a time; PART, GROUP, a multiple of it, and STAGE, a multiple of that;
// INPUT, the type of u, dt, B and C (0: float32, 1: float16, 2: bfloat16).

#define COLUMNS (2 * N + R)
#define WIDTH ((COLUMNS + 3) / 4 * 4)

static_assert(THREADS % 32 == 0, "THREADS is a multiple of 32: warps are whole");
static_assert(STAGE % GROUP == 0 && GROUP % PART == 0, "PART divides GROUP, and GROUP divides STAGE");

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;
constexpr int TOGETHER = GROUP;  // a pragma takes no macro

typedef Element<INPUT> In;

struct Operands {
    const In::Stored* u;    // (b, l, d)
    const In::Stored* dt;   // (b, l, k, R), strided
    const In::Stored* B;    // (b, l, k, N), strided
    const In::Stored* C;    // (b, l, k, N), strided
    const int* paths;       // (k, l) or (b, k, l)
    const float* weight;    // (k, d, R)
    const float* bias;      // (k, d)
    const float* A;         // (k, d, N)
    const float* D;         // (k, d)
    const float* grad_y;    // (b, l, d)
    float* y;               // (b, k, l, d)
    float* kept;            // (b, k, groups, N, d): states at the start of each group
    float* grad_u;          // (b, k, l, d)
    float* grad_projected;  // (blocks, b, l, k, R + 2 N), of blocks of channels
    float* grad_weight;     // (b, k, chunks, R, d)
    float* grad_bias;       // (b, k, chunks, d)
    float* grad_A;          // (b, k, chunks, N, d)
    float* ends;            // (b, k, chunks, N, d): what leaves each chunk if nothing enters it
    float* sums;            // (b, k, chunks, d): sum of each chunk's steps
    long long dt_image, dt_token, dt_path;  // strides, in values
    long long B_image, B_token, B_path;
    long long C_image, C_token, C_path;
    long long paths_image;
    int images;
    int k;
    int length;
    int channels;
    int chunk;  // tokens, a multiple of STAGE
    int chunks;
};

struct alignas(16) Rows {
    float columns[STAGE][WIDTH];  // B, C, ranks
    int pixels[STAGE];
};

// A step and its slope, of softplus.
struct Step {
    float value, slope;
};

__device__ __forceinline__ Step make_step(float x) {
    const float e = power_of_2(-LOG2_E * fabsf(x));
    const float s = e * reciprocal(2.0f + e), s2 = s * s;  // log(1 + e) = 2 artanh(s), s <= 1/3
    const float series = 1.0f +
        s2 * (1.0f / 3 + s2 * (1.0f / 5 + s2 * (1.0f / 7 + s2 * (1.0f / 9 + s2 * (1.0f / 11 + s2 * (1.0f / 13))))));
    return {fmaxf(x, 0.0f) + 2.0f * s * series, (x >= 0.0f ? 1.0f : e) * reciprocal(1.0f + e)};
}

// The walk of one thread along one chunk of a path.
struct Walk {
    const Operands& operands;
    Rows& rows;
    const int line, image, path, channel, first, stop;
    const long long own, own_of_path;  // where the thread's values of an image begin in (b, l, d), and in (b, k, l, d)
    const bool exists;
    float A[N], weight[R], bias, D;  // A times log2(e): decays are powers of 2

    __device__ __forceinline__ Walk(const Operands& given, Rows& shared)
        : operands(given),
          rows(shared),
          line(blockIdx.y),
          image(blockIdx.y / given.k),
          path(blockIdx.y % given.k),
          channel(min((int)(blockIdx.x * THREADS + threadIdx.x), given.channels - 1)),
          first(blockIdx.z * given.chunk),
          stop(min(first + given.chunk, given.length)),
          own((long long)image * given.length * given.channels + channel),
          own_of_path((long long)line * given.length * given.channels + channel),
          exists((int)(blockIdx.x * THREADS + threadIdx.x) < given.channels) {
        const long long row = (long long)path * operands.channels + channel;
        D = operands.D[row], bias = operands.bias[row];
#pragma unroll
        for (int s = 0; s < N; s++) A[s] = LOG2_E * operands.A[row * N + s];
#pragma unroll
        for (int r = 0; r < R; r++) weight[r] = operands.weight[row * R + r];
    }

    // Fill shared memory with the rows and pixels of a stage; past the chunk's end with those of its last token.
    __device__ __forceinline__ void stage(int start) {
        const int* pixels = operands.paths + image * operands.paths_image + (long long)path * operands.length;
        __syncthreads();  // until the stage before has been read
        for (int i = threadIdx.x; i < STAGE; i += THREADS)
            rows.pixels[i] = pixels[min(start + i, stop - 1)];
        for (int column = threadIdx.x % 32; column < COLUMNS; column += 32) {
            const In::Stored* values = operands.dt + image * operands.dt_image + path * operands.dt_path + column - 2 * N;
            long long stride = operands.dt_token;
            if (column < N) {
                values = operands.B + image * operands.B_image + path * operands.B_path + column;
                stride = operands.B_token;
            } else if (column < 2 * N) {
                values = operands.C + image * operands.C_image + path * operands.C_path + column - N;
                stride = operands.C_token;
            }
#pragma unroll 8
            for (int i = threadIdx.x / 32; i < STAGE; i += THREADS / 32)
                rows.columns[i][column] = In::load(values[pixels[min(start + i, stop - 1)] * stride]);
        }
        __syncthreads();
    }

    // Where the values of a token's pixel begin, from the first pixel's; this may need 64 bits.
    __device__ __forceinline__ long long place(int token) const {
        return (long long)rows.pixels[token] * operands.channels;
    }

    // The token of a stage; past the chunk's end its step is 0, so that states stay as they are.
    __device__ __forceinline__ Step step(int start, int token) const {
        float raw = bias;
#pragma unroll
        for (int r = 0; r < R; r++) raw += rows.columns[token][2 * N + r] * weight[r];
        const Step step = make_step(raw);
        return start + token < stop ? step : Step{0.0f, 0.0f};
    }
    __device__ __forceinline__ float token(int token) const {
        return In::load(operands.u[own + place(token)]);
    }
    __device__ __forceinline__ float grad(int token) const { return operands.grad_y[own + place(token)]; }

    __device__ __forceinline__ float decay(float step, int s) const { return power_of_2(step * A[s]); }

    __device__ __forceinline__ void advance(float* after, const float* before, float step, float u, int token) const {
        const float enter = step * u;
#pragma unroll
        for (int s = 0; s < N; s++) after[s] = decay(step, s) * before[s] + enter * rows.columns[token][s];
    }

    __device__ __forceinline__ long long state_at(long long place, int s) const {
        return (place * N + s) * operands.channels + channel;
    }

    // Pass the chunks before this one, or after it from the last on.
    __device__ __forceinline__ void enter(float* state, int from, int count, int by) const {
#pragma unroll 4
        for (int i = 0; i < count; i++) {
            const long long place = (long long)line * operands.chunks + (from + i * by);
            const float steps = operands.sums[place * operands.channels + channel];
#pragma unroll
            for (int s = 0; s < N; s++) state[s] = decay(steps, s) * state[s] + operands.ends[state_at(place, s)];
        }
    }

    __device__ __forceinline__ void leave(const float* state, float sum) const {
        const long long place = (long long)line * operands.chunks + blockIdx.z;
        if (!exists) return;
        operands.sums[place * operands.channels + channel] = sum;
#pragma unroll
        for (int s = 0; s < N; s++) operands.ends[state_at(place, s)] = state[s];
    }
};

// What leaves each chunk if nothing enters it: the states after its last token.
extern "C" __global__ void __launch_bounds__(THREADS) forward_ends(const Operands operands) {
    __shared__ Rows rows;
    Walk walk(operands, rows);
    float h[N] = {}, sum = 0.0f;
    for (int start = walk.first; start < walk.stop; start += STAGE) {
        walk.stage(start);
#pragma unroll TOGETHER
        for (int t = 0; t < STAGE; t++) {
            const float step = walk.step(start, t).value;
            walk.advance(h, h, step, walk.token(t), t);
            sum += step;
        }
    }
    walk.leave(h, sum);
}

extern "C" __global__ void __launch_bounds__(THREADS) forward(const Operands operands) {
    __shared__ Rows rows;
    Walk walk(operands, rows);
    const int groups = (operands.length + GROUP - 1) / GROUP;
    float h[N] = {};
    walk.enter(h, 0, blockIdx.z, 1);
    for (int start = walk.first; start < walk.stop; start += STAGE) {
        walk.stage(start);
        for (int group = 0; group < STAGE && start + group < walk.stop; group += GROUP) {
            const long long place = (long long)walk.line * groups + (start + group) / GROUP;
            if (walk.exists) {
#pragma unroll
                for (int s = 0; s < N; s++) operands.kept[walk.state_at(place, s)] = h[s];
            }
#pragma unroll
            for (int i = 0; i < GROUP; i++) {
                const int t = group + i;
                const float u = walk.token(t);
                walk.advance(h, h, walk.step(start, t).value, u, t);
                float y = walk.D * u;
#pragma unroll
                for (int s = 0; s < N; s++) y += h[s] * rows.columns[t][N + s];
                if (walk.exists && start + t < walk.stop) operands.y[walk.own_of_path + walk.place(t)] = y;
            }
        }
    }
}

// What leaves each chunk if nothing enters it: the gradient of the states before its first token.
extern "C" __global__ void __launch_bounds__(THREADS) backward_ends(const Operands operands) {
    __shared__ Rows rows;
    Walk walk(operands, rows);
    float leaving[N] = {}, sum = 0.0f;
    for (int start = walk.first; start < walk.stop; start += STAGE) {
        walk.stage(start);
#pragma unroll TOGETHER
        for (int t = 0; t < STAGE; t++) {
            sum += walk.step(start, t).value;
            const float grad = start + t < walk.stop ? walk.grad(t) : 0.0f;
#pragma unroll
            for (int s = 0; s < N; s++) leaving[s] += walk.decay(sum, s) * grad * rows.columns[t][N + s];
        }
    }
    walk.leave(leaving, sum);
}

constexpr int SUMMED = THREADS / 2;                // channels that a thread sums
constexpr int APART = SUMMED % 32 == 0 ? 16 : 0;  // so that two neighbours begin in different banks

struct Shared {
    Rows rows;
    float parts[PART * COLUMNS][THREADS + 1];
};

static_assert(sizeof(Shared) <= 48 * 1024, "a block has 48 KiB of shared memory without asking");

// Sum over channels the gradients of B, C and ranks that each thread has for tokens, and write them.
__device__ __forceinline__ void write_sums(const Walk& walk, Shared& shared, int start, int token) {
    const Operands& operands = walk.operands;
    const long long block = (long long)blockIdx.x * operands.images + walk.image;
    __syncthreads();
    for (int first = 0; first < 2 * PART * COLUMNS; first += THREADS) {
        const int i = first + threadIdx.x;  // two neighbours share a row
        const int row = min(i / 2, PART * COLUMNS - 1), half = i % 2;
        float total = 0.0f;
#pragma unroll
        for (int c = 0; c < SUMMED; c++)
            total += shared.parts[row][half * SUMMED + (c + half * APART) % SUMMED];
        total += __shfl_xor_sync(0xFFFFFFFF, total, 1, 32);
        const int t = token + row / COLUMNS, column = row % COLUMNS;
        const int written = column < 2 * N ? R + column : column - 2 * N;  // ranks come first
        if (half == 0 && i < 2 * PART * COLUMNS && start + t < walk.stop) {
            const long long pixel = block * operands.length + shared.rows.pixels[t];
            operands.grad_projected[(pixel * operands.k + walk.path) * COLUMNS + written] = total;
        }
    }
    __syncthreads();
}

// With g[t] the gradient of h[t], its recurrence runs backward along the path:
// g[t] = grad_y[t] * C[t] + exp(step[t+1] * A) * g[t+1].
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) backward(const Operands operands) {
    __shared__ Shared shared;
    Rows& rows = shared.rows;
    Walk walk(operands, rows);
    const int groups = (operands.length + GROUP - 1) / GROUP;
    float g_after[N] = {};  // exp(step[t+1] * A) * g[t+1]
    float grad_A[N] = {}, grad_weight[R] = {}, grad_bias = 0.0f;
    walk.enter(g_after, operands.chunks - 1, operands.chunks - 1 - blockIdx.z, -1);
    if (!walk.exists) {
#pragma unroll
        for (int s = 0; s < N; s++) g_after[s] = 0.0f;
    }
    for (int start = walk.first + (walk.stop - 1 - walk.first) / STAGE * STAGE; start >= walk.first; start -= STAGE) {
        walk.stage(start);
        for (int group = min(STAGE - 1, walk.stop - 1 - start) / GROUP * GROUP; group >= 0; group -= GROUP) {
            float before[GROUP + 1][N], u[GROUP], grad[GROUP];
            Step step[GROUP];
            const long long place = (long long)walk.line * groups + (start + group) / GROUP;
#pragma unroll
            for (int s = 0; s < N; s++) before[0][s] = operands.kept[walk.state_at(place, s)];
#pragma unroll
            for (int i = 0; i < GROUP; i++) {
                u[i] = walk.token(group + i), grad[i] = walk.grad(group + i);
                if (!walk.exists || start + group + i >= walk.stop) grad[i] = u[i] = 0.0f;
            }
#pragma unroll
            for (int i = 0; i < GROUP; i++) {
                step[i] = walk.step(start, group + i);
                walk.advance(before[i + 1], before[i], step[i].value, u[i], group + i);
            }
#pragma unroll
            for (int i = GROUP - 1; i >= 0; i--) {
                const int t = group + i;
                float(*parts)[THREADS + 1] = shared.parts + i % PART * COLUMNS;
                float entered = 0.0f, exponents = 0.0f;
#pragma unroll
                for (int s = 0; s < N; s++) {
                    const float g = g_after[s] + grad[i] * rows.columns[t][N + s];
                    g_after[s] = walk.decay(step[i].value, s) * g;
                    const float exponent = g_after[s] * before[i][s];  // its gradient, of step * A
                    parts[s][threadIdx.x] = g * (step[i].value * u[i]);
                    parts[N + s][threadIdx.x] = before[i + 1][s] * grad[i];
                    entered += g * rows.columns[t][s];
                    exponents += exponent * walk.A[s];
                    grad_A[s] += exponent * step[i].value;
                }
                const float grad_raw = (u[i] * entered + LN_2 * exponents) * step[i].slope;
                grad_bias += grad_raw;
#pragma unroll
                for (int r = 0; r < R; r++) {
                    parts[2 * N + r][threadIdx.x] = grad_raw * walk.weight[r];
                    grad_weight[r] += grad_raw * rows.columns[t][2 * N + r];
                }
                if (walk.exists && start + t < walk.stop)
                    operands.grad_u[walk.own_of_path + walk.place(t)] = step[i].value * entered + walk.D * grad[i];
                if (i % PART == 0) write_sums(walk, shared, start, t);
            }
        }
    }
    if (walk.exists) {
        const long long place = (long long)walk.line * operands.chunks + blockIdx.z;
        operands.grad_bias[place * operands.channels + walk.channel] = grad_bias;
#pragma unroll
        for (int s = 0; s < N; s++) operands.grad_A[walk.state_at(place, s)] = grad_A[s];
#pragma unroll
        for (int r = 0; r < R; r++)
            operands.grad_weight[(place * R + r) * operands.channels + walk.channel] = grad_weight[r];
    }
}
