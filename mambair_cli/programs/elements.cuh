// Parts that the kernels in CUDA C++ share: powers of 2, types of elements. It is put before their source.

// ---- Replaced by definitions for the CPU in tests, which set TWIN.
#ifndef TWIN
typedef unsigned short Half;

__device__ __forceinline__ float power_of_2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float from_half(Half x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}

__device__ __forceinline__ Half to_half(float x) {
    Half y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float bits_as_float(unsigned x) { return __uint_as_float(x); }
__device__ __forceinline__ unsigned float_as_bits(float x) { return __float_as_uint(x); }
#endif

// ---- Elements of tokens, projections and results.
template <int TYPE>
struct Element;

template <>
struct Element<0> {
    typedef float Stored;
    static __device__ __forceinline__ float load(Stored x) { return x; }
    static __device__ __forceinline__ Stored store(float x) { return x; }
};

template <>
struct Element<1> {
    typedef Half Stored;
    static __device__ __forceinline__ float load(Stored x) { return from_half(x); }
    static __device__ __forceinline__ Stored store(float x) { return to_half(x); }
};

template <>
struct Element<2> {
    typedef unsigned short Stored;
    static __device__ __forceinline__ float load(Stored x) { return bits_as_float((unsigned)x << 16); }
    static __device__ __forceinline__ Stored store(float x) {
        unsigned bits = float_as_bits(x);
        return (Stored)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);  // to the nearest, ties to even
    }
};

template <typename T, int COUNT>
struct alignas(sizeof(T) * COUNT) Pack {
    T at[COUNT];
};

