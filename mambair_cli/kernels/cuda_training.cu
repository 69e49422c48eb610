// The selective scan and its gradient for training, in CUDA C++ without headers, compiled at run time for the card.
//
// A thread holds the N states of a channel in registers, and a block has all channels, so it sums their gradients
// itself. A block walks along one chunk of one path of one image, forward or backward, after a pass that finds what
// each chunk leaves to the next. B and C of STAGE tokens are in shared memory as float32. Forward it keeps the states
// at the start of each stage; backward it computes those of the stage's groups of GROUP tokens anew from them, and
// from these, those of a group's tokens.
//
// Macros set by the caller of the compiler: N; THREADS, the channels and no less, a multiple of 32; GROUP and STAGE,
// a multiple of it; INPUT, the type of u, B and C (0: float32, 1: float16, 2: bfloat16).

#define GROUPS (STAGE / GROUP)
#define COLUMNS (2 * N)

static_assert(STAGE % GROUP == 0, "GROUP divides STAGE");
static_assert(THREADS % 32 == 0, "THREADS is a multiple of 32: warps are whole");

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

constexpr int TOGETHER = GROUP;  // a pragma takes no macro

typedef Element<INPUT> In;

struct Operands {
    const In::Stored* u;          // (b, l, d)
    const float* steps;           // (b, l, k, d)
    const In::Stored* projected;  // B and C, joined, (b, l, k, 2 N)
    const int* paths;             // (k, l) or (b, k, l)
    const float* A;               // (k, d, N)
    const float* D;               // (k, d)
    float* y;                     // (b, l, k, d)
    float* kept;                  // (b, k, stages, N, d): states at the start of each stage
    const float* grad_y;          // (b, l, d)
    float* grad_u;                // (b, l, k, d)
    float* grad_steps;            // (b, l, k, d)
    float* grad_projected;        // (b, l, k, 2 N)
    float* grad_A;                // (b, k, chunks, N, d)
    float* ends;                  // (b, k, chunks, N, d): what leaves each chunk if nothing enters it
    float* sums;                  // (b, k, chunks, d): sum of each chunk's steps
    long long paths_stride;       // of an image's paths; 0 if all images share them
    int k;
    int length;
    int channels;
    int chunk;  // tokens, a multiple of STAGE
    int chunks;
};

struct Rows {
    float columns[STAGE][COLUMNS];
    int pixels[STAGE];
};

// The walk of one thread along one chunk of a path.
struct Walk {
    const Operands& operands;
    Rows& rows;
    const int channel, line, image, path, first, stop;
    const bool exists;
    float A[N], D;  // A times log2(e): decays are powers of 2

    __device__ __forceinline__ Walk(const Operands& given, Rows& shared)
        : operands(given),
          rows(shared),
          channel(min((int)threadIdx.x, given.channels - 1)),
          line(blockIdx.y),
          image(blockIdx.y / given.k),
          path(blockIdx.y % given.k),
          first(blockIdx.z * given.chunk),
          stop(min(first + given.chunk, given.length)),
          exists((int)threadIdx.x < given.channels) {
        const long long row = (long long)path * operands.channels + channel;
        D = operands.D[row];
#pragma unroll
        for (int s = 0; s < N; s++) A[s] = LOG2_E * operands.A[row * N + s];
    }

    // Fill shared memory with the projections and pixels of a stage; past the chunk's end with zeros and a pixel
    // of it.
    __device__ __forceinline__ void stage(int start) {
        const int* pixels = operands.paths + image * operands.paths_stride + (long long)path * operands.length;
        __syncthreads();  // until the stage before has been read
        for (int i = threadIdx.x; i < STAGE; i += THREADS) rows.pixels[i] = pixels[min(start + i, stop - 1)];
        __syncthreads();
        for (int i = threadIdx.x; i < STAGE * COLUMNS; i += THREADS) {
            const int token = i / COLUMNS, column = i % COLUMNS;
            const long long at = token_at(rows.pixels[token]) * COLUMNS + column;
            rows.columns[token][column] = start + token < stop ? In::load(operands.projected[at]) : 0.0f;
        }
        __syncthreads();
    }

    // The place of a pixel among those of all images, and that of its values for this path.
    __device__ __forceinline__ long long pixel_at(int pixel) const {
        return (long long)image * operands.length + pixel;
    }
    __device__ __forceinline__ long long token_at(int pixel) const {
        return pixel_at(pixel) * operands.k + path;
    }
    __device__ __forceinline__ float token(int pixel) const {
        return In::load(operands.u[pixel_at(pixel) * operands.channels + channel]);
    }
    __device__ __forceinline__ float grad(int pixel) const {
        return operands.grad_y[pixel_at(pixel) * operands.channels + channel];
    }
    __device__ __forceinline__ long long value_at(int pixel) const {
        return token_at(pixel) * operands.channels + channel;
    }
    // The step of a token of the stage; 0 past the chunk's end, where states stay as they are.
    __device__ __forceinline__ float step(int start, int token) const {
        const float step = operands.steps[value_at(rows.pixels[token])];
        return start + token < stop ? step : 0.0f;
    }

    __device__ __forceinline__ float decay(float step, int s) const { return power_of_2(step * A[s]); }

    __device__ __forceinline__ void advance(float* h, float step, float enter, int token) const {
#pragma unroll
        for (int s = 0; s < N; s++) h[s] = decay(step, s) * h[s] + enter * rows.columns[token][s];
    }

    __device__ __forceinline__ long long state_at(long long place, int s) const {
        return (place * N + s) * operands.channels + channel;
    }

    // Pass the chunks before this one, or after it from the last on.
    __device__ __forceinline__ void enter(float* state, int from, int to, int by) const {
        for (int chunk = from; chunk != to; chunk += by) {
            const long long place = (long long)line * operands.chunks + chunk;
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
            const float step = walk.step(start, t);
            walk.advance(h, step, step * walk.token(rows.pixels[t]), t);
            sum += step;
        }
    }
    walk.leave(h, sum);
}

extern "C" __global__ void __launch_bounds__(THREADS) forward(const Operands operands) {
    __shared__ Rows rows;
    Walk walk(operands, rows);
    const int stages = (operands.length + STAGE - 1) / STAGE;
    float h[N] = {};
    walk.enter(h, 0, blockIdx.z, 1);
    for (int start = walk.first; start < walk.stop; start += STAGE) {
        walk.stage(start);
        if (walk.exists) {
            const long long place = (long long)walk.line * stages + start / STAGE;
#pragma unroll
            for (int s = 0; s < N; s++) operands.kept[walk.state_at(place, s)] = h[s];
        }
#pragma unroll TOGETHER
        for (int t = 0; t < STAGE; t++) {
            const float step = walk.step(start, t), u = walk.token(rows.pixels[t]);
            walk.advance(h, step, step * u, t);
            float y = walk.D * u;
#pragma unroll
            for (int s = 0; s < N; s++) y += h[s] * rows.columns[t][N + s];
            if (walk.exists && start + t < walk.stop) operands.y[walk.value_at(rows.pixels[t])] = y;
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
            sum += walk.step(start, t);
            const float grad = walk.grad(rows.pixels[t]);
#pragma unroll
            for (int s = 0; s < N; s++) leaving[s] += walk.decay(sum, s) * grad * rows.columns[t][N + s];
        }
    }
    walk.leave(leaving, sum);
}

struct Shared {
    Rows rows;
    float starts[GROUPS][N][THREADS];  // states at the start of each group
    float parts[GROUP * COLUMNS][THREADS + 1];
};

static_assert(sizeof(Shared) <= 48 * 1024, "a block has 48 KiB of shared memory without asking");

// Sum over channels the gradients of B and C that each thread has for a group's tokens, and write them.
__device__ __forceinline__ void write_sums(const Walk& walk, Shared& shared, int start, int group) {
    __syncthreads();
    for (int i = threadIdx.x; i < GROUP * COLUMNS; i += THREADS) {
        float total = 0.0f;
#pragma unroll 8
        for (int channel = 0; channel < THREADS; channel++) total += shared.parts[i][channel];
        const int token = group * GROUP + i / COLUMNS;
        const long long place = walk.token_at(shared.rows.pixels[token]) * COLUMNS + i % COLUMNS;
        if (start + token < walk.stop) walk.operands.grad_projected[place] = total;
    }
    __syncthreads();
}

// With g[t] the gradient of h[t], its recurrence runs backward along the path:
// g[t] = grad_y[t] * C[t] + exp(step[t+1] * A) * g[t+1].
extern "C" __global__ void __launch_bounds__(THREADS) backward(const Operands operands) {
    __shared__ Shared shared;
    Rows& rows = shared.rows;
    Walk walk(operands, rows);
    const int stages = (operands.length + STAGE - 1) / STAGE;
    float g_after[N] = {}, grad_A[N] = {};  // g_after: exp(step[t+1] * A) * g[t+1]
    walk.enter(g_after, operands.chunks - 1, blockIdx.z, -1);
    for (int start = walk.first + (walk.stop - 1 - walk.first) / STAGE * STAGE; start >= walk.first; start -= STAGE) {
        walk.stage(start);
        float h[N];
        const long long place = (long long)walk.line * stages + start / STAGE;
#pragma unroll
        for (int s = 0; s < N; s++) h[s] = operands.kept[walk.state_at(place, s)];
        for (int group = 0; group < GROUPS; group++) {
#pragma unroll
            for (int s = 0; s < N; s++) shared.starts[group][s][threadIdx.x] = h[s];
            if (group == GROUPS - 1) break;
#pragma unroll
            for (int i = 0; i < GROUP; i++) {
                const int t = group * GROUP + i;
                const float step = walk.step(start, t);
                walk.advance(h, step, step * walk.token(rows.pixels[t]), t);
            }
        }
        for (int group = GROUPS - 1; group >= 0; group--) {
            float before[GROUP + 1][N], step[GROUP], u[GROUP], grad[GROUP];
#pragma unroll
            for (int i = 0; i < GROUP; i++) {
                const int t = group * GROUP + i, pixel = rows.pixels[t];
                step[i] = walk.step(start, t), u[i] = walk.token(pixel), grad[i] = walk.grad(pixel);
                if (!walk.exists || start + t >= walk.stop) grad[i] = u[i] = 0.0f;
            }
#pragma unroll
            for (int s = 0; s < N; s++) before[0][s] = shared.starts[group][s][threadIdx.x];
#pragma unroll
            for (int i = 0; i < GROUP; i++) {
#pragma unroll
                for (int s = 0; s < N; s++) before[i + 1][s] = before[i][s];
                walk.advance(before[i + 1], step[i], step[i] * u[i], group * GROUP + i);
            }
#pragma unroll
            for (int i = GROUP - 1; i >= 0; i--) {
                const int t = group * GROUP + i;
                float entered = 0.0f, grad_step = 0.0f;
#pragma unroll
                for (int s = 0; s < N; s++) {
                    const float g = g_after[s] + grad[i] * rows.columns[t][N + s];
                    const float decay = walk.decay(step[i], s);
                    const float exponent = g * decay * before[i][s];  // its gradient, of step * A
                    shared.parts[i * COLUMNS + s][threadIdx.x] = g * step[i] * u[i];
                    shared.parts[i * COLUMNS + N + s][threadIdx.x] = before[i + 1][s] * grad[i];
                    entered += g * rows.columns[t][s];
                    grad_step += exponent * walk.A[s];
                    grad_A[s] += exponent * step[i];
                    g_after[s] = decay * g;
                }
                if (walk.exists && start + t < walk.stop) {
                    const long long at = walk.value_at(rows.pixels[t]);
                    operands.grad_u[at] = step[i] * entered + walk.D * grad[i];
                    operands.grad_steps[at] = u[i] * entered + LN_2 * grad_step;
                }
            }
            write_sums(walk, shared, start, group);
        }
    }
    if (walk.exists) {
        const long long place = (long long)walk.line * operands.chunks + blockIdx.z;
#pragma unroll
        for (int s = 0; s < N; s++) operands.grad_A[walk.state_at(place, s)] = grad_A[s];
    }
}
