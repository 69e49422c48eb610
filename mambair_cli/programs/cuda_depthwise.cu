// Depthwise convolution of channels-last images with an activation, in CUDA C++ without headers.
//
// One thread computes WIDTH by HEIGHT pixels of CHANNELS channels, and neighbouring threads neighbouring channels:
// each row of the input is read once for all outputs that need it, and weights stay in registers.
//
// Macros set by the caller of the compiler: SIDE, DILATION, ACTIVATION (see cuda_depthwise.ACTIVATIONS), ELEMENT,
// the type of x, own and y (0: float32, 1: float16, 2: bfloat16), STRIDE, the elements from a pixel of x or own to
// the next, CHANNELS, WIDTH, HEIGHT, THREADS, BLOCKS.

#define REACH (SIDE / 2 * DILATION)
#define COLUMNS_READ (WIDTH + 2 * REACH)
#define ROWS_READ (HEIGHT + 2 * REACH)

typedef Element<ELEMENT> Value;
typedef Pack<Value::Stored, CHANNELS> Values;

struct Operands {
    const Value::Stored* x;    // (b, h, w, channels), its pixels STRIDE apart
    const float* weight;       // (SIDE * SIDE, channels)
    const float* bias;         // (channels,)
    const Value::Stored* own;  // second operand of the activation, with the strides of x
    Value::Stored* y;          // (b, h, w, channels)
    int height;
    int width;
    int channels;
};

__device__ __forceinline__ float sigmoid(float v) { return reciprocal(1.0f + power_of_2(-1.4426950408889634f * v)); }

// Gaussian error linear unit; for 16 bits by a logistic function with a fitted exponent, error 4e-6.
__device__ __forceinline__ float gelu(float v) {
    if (ELEMENT == 0) return 0.5f * v * (1.0f + erff(0.7071067811865476f * v));
    const float s = v * v;
    const float p = (((3.2290532e-06f * s - 8.823919e-05f) * s - 3.6026954e-04f) * s + 0.10522669f) * s + 2.3020453f;
    return v * reciprocal(1.0f + power_of_2(-v * p));
}

// Read the values at an address, or zeros if they are not wanted.
__device__ __forceinline__ void read_where(bool wanted, const Values* place, float (&values)[CHANNELS]) {
#ifndef TWIN
    if constexpr (ELEMENT == 1 && CHANNELS == 2) {  // in one word, since the card can convert either half
        asm("{ .reg .pred p; .reg .b32 word; .reg .b16 low, high; setp.ne.s32 p, %2, 0; mov.b32 word, 0;"
            "@p ld.global.nc.b32 word, [%3]; mov.b32 {low, high}, word; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high; }"
            : "=f"(values[0]), "=f"(values[1])
            : "r"((int)wanted), "l"(place));
        return;
    }
#endif
    Values read = {};
    if (wanted) read = *place;
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) values[c] = Value::load(read.at[c]);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) depthwise(const Operands operands) {
    const int packs = operands.channels / CHANNELS;
    const int item = blockIdx.x * THREADS + threadIdx.x;
    const int left = item / packs * WIDTH, top = blockIdx.y * HEIGHT;
    const int channel = item % packs * CHANNELS;
    if (left >= operands.width) return;
    const long long image = (long long)blockIdx.z * operands.height * operands.width;

    float weight[SIDE * SIDE][CHANNELS], total[HEIGHT][WIDTH][CHANNELS];
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
#pragma unroll
        for (int tap = 0; tap < SIDE * SIDE; tap++)
            weight[tap][c] = operands.weight[tap * operands.channels + channel + c];
        float bias = operands.bias[channel + c];
#pragma unroll
        for (int i = 0; i < HEIGHT; i++)
#pragma unroll
            for (int j = 0; j < WIDTH; j++) total[i][j][c] = bias;
    }

#pragma unroll
    for (int i = 0; i < ROWS_READ; i++) {
        const int row = top - REACH + i;
        const bool row_exists = row >= 0 && row < operands.height;
        const Value::Stored* place =
            operands.x + (image + (long long)row * operands.width + left - REACH) * STRIDE + channel;
        float seen[COLUMNS_READ][CHANNELS];
#pragma unroll
        for (int j = 0; j < COLUMNS_READ; j++) {
            const int column = left - REACH + j;
            const bool exists = row_exists && column >= 0 && column < operands.width;
            read_where(exists, (const Values*)(place + j * STRIDE), seen[j]);
        }
#pragma unroll
        for (int j = 0; j < COLUMNS_READ; j++)
#pragma unroll
            for (int c = 0; c < CHANNELS; c++) {
                const float value = seen[j][c];
#pragma unroll
                for (int y = 0; y < SIDE; y++)
#pragma unroll
                    for (int x = 0; x < SIDE; x++) {
                        const int down = i - y * DILATION, across = j - x * DILATION;  // output of this tap
                        if (down >= 0 && down < HEIGHT && across >= 0 && across < WIDTH)
                            total[down][across][c] += value * weight[y * SIDE + x][c];
                    }
            }
    }

#pragma unroll
    for (int i = 0; i < HEIGHT; i++)
#pragma unroll
        for (int j = 0; j < WIDTH; j++) {
            if (top + i >= operands.height || left + j >= operands.width) continue;
            const long long pixel = image + (long long)(top + i) * operands.width + left + j;
            Values result;
            float own[CHANNELS];
            read_where(ACTIVATION >= 2, (const Values*)(operands.own + pixel * STRIDE + channel), own);
#pragma unroll
            for (int c = 0; c < CHANNELS; c++) {
                const float v = total[i][j][c], x = own[c];
                float y = v;
                if (ACTIVATION == 1) y = v * sigmoid(v);
                if (ACTIVATION == 2) y = x * sigmoid(v);
                if (ACTIVATION == 3) y = x + gelu(v);
                if (ACTIVATION == 4) y = x * v;
                result.at[c] = Value::store(y);
            }
            *(Values*)(operands.y + pixel * operands.channels + channel) = result;
        }
}
