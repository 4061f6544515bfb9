// What device code stands on: names of types, teams of lanes, the job of a kernel.
//
// The same text compiles for a device (NVRTC; no header of the toolkit is needed) and as plain C++
// (`kernels/tests/cuda_source.rs`), where lanes run one after the other. It must give the bytes of the scalar reference: one operation of the reference is
// one operation here, in the same order; nothing is fused (`--fmad=false`, `-ffp-contract=off`), nothing is
// approximate (`/` and `sqrt_f32` are IEEE's), subnormals live.
#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;

#ifdef __CUDACC__
#define TM_FN __device__ __forceinline__
#define TM_MEMBER __device__ __forceinline__
#define TM_CONST __device__ const
#define TM_UNROLL _Pragma("unroll")
#define TM_ROLLED _Pragma("unroll 1")
#define TM_UNROLL_4 _Pragma("unroll 4")
#else
#define TM_FN static inline
#define TM_MEMBER inline
#define TM_CONST static const
#define TM_UNROLL
#define TM_ROLLED
#define TM_UNROLL_4
#endif

// What a kernel works on: rows of `row_len` weights, one after the other, whose blocks are numbered throughout. All
// pointers are the device's, those to weights, importance and blocks aligned to 16 bytes. `kernels/src/cuda/mod.rs` has
// the same fields.
struct Job {
    const void *x;           // weights, as `input` says
    const float *importance; // one per column, or null
    const float *row_means;  // mean square of each row, or null where the format needs none
    u8 *out;                 // blocks
    u64 *bad;                // smallest index of a weight that is NaN or infinite; starts as all ones
    u32 *odd;                // set where the processor has to encode the job again; starts as zero
    const u8 *tables;        // what `mod.rs` made for the format, or null
    u64 row_len;             // weights in a row; whole blocks
    u64 blocks;              // blocks in all rows
    u32 input;               // 0: f32, 1: f16, 2: bf16
    u32 reserved;
};

// Lanes that encode one block together. A stage (`each`) gives every lane some of the indices; what one stage leaves in
// the team's scratch, the next one sees. Inside a stage no index may read what another one writes: on the processor
// stages run in any order of indices, and tests run several. TOGETHER: which stages there are depends on the job alone,
// never on weights, so that the teams of a warp wait as one, which costs less than each for itself.
template <int LANES, bool TOGETHER = false> struct Team {
#ifdef __CUDACC__
    u32 rank, mask;
    template <class F> TM_MEMBER void each(i32 n, F f) const {
        if (n <= LANES) {
            // No loop, so that what lanes keep stays in registers.
            if ((i32)rank < n) f((i32)rank);
        } else {
            for (i32 i = (i32)rank; i < n; i += LANES) f(i);
        }
        __syncwarp(TOGETHER ? 0xffffffffu : mask);
    }
#else
    u32 order; // 0: first to last, 1: last to first, else: a scattered order
    template <class F> void each(i32 n, F f) const {
        for (i32 k = 0; k < n; k++) {
            // A prime that does not divide n: a permutation, as long as n does not divide by both.
            i32 step = n % 61 == 0 ? 59 : 61;
            i32 i = order == 0 ? k : order == 1 ? n - 1 - k : (i32)(((long long)k * step + order) % n);
            f(i);
        }
    }
#endif
};

// What a lane keeps from one stage to the next: registers of the device. Only for stages whose indices are the lanes'
// numbers, `each(LANES, ...)` or fewer.
template <class T, int LANES> struct PerLane {
#ifdef __CUDACC__
    T value;
    TM_MEMBER T &operator[](i32) { return value; }
#else
    T values[LANES];
    T &operator[](i32 lane) { return values[lane]; }
#endif
};

// The scratch of teams that need none.
struct NoScratch {};

// Defines the kernel `encode_NAME`: `FN(team, job, block, scratch)` for every block, with teams of LANES lanes (a
// power of two up to 32) and a SCRATCH for each.
#define TM_ENCODE(NAME, LANES, SCRATCH, FN) TM_KERNEL(encode_##NAME, Team<LANES>, LANES, SCRATCH, FN)
#define TM_ENCODE_TOGETHER(NAME, LANES, SCRATCH, FN)                                                                   \
    TM_KERNEL(encode_##NAME, TM_ARG(Team<LANES, true>), LANES, SCRATCH, FN)
#define TM_ARG(...) __VA_ARGS__
#ifdef __CUDACC__
#define TM_THREADS 128
#define TM_KERNEL(NAME, TEAM, LANES, SCRATCH, FN)                                                                      \
    extern "C" __global__ void __launch_bounds__(TM_THREADS) NAME(Job job) {                                           \
        __shared__ SCRATCH scratch[TM_THREADS / LANES];                                                                \
        u32 team = threadIdx.x / LANES, first = threadIdx.x % 32 / LANES * LANES;                                      \
        u64 block = (u64)blockIdx.x * (TM_THREADS / LANES) + team;                                                     \
        if (block >= job.blocks) return;                                                                               \
        TEAM lanes = {threadIdx.x % LANES, (u32)(((1ull << LANES) - 1) << first)};                                     \
        FN(lanes, job, block, scratch[team]);                                                                          \
    }
#else
#define TM_KERNEL(NAME, TEAM, LANES, SCRATCH, FN)                                                                      \
    extern "C" void NAME(const Job *job, u32 order) {                                                                  \
        SCRATCH scratch;                                                                                               \
        for (u64 block = 0; block < job->blocks; block++) FN(TEAM{order}, *job, block, scratch);                       \
    }
#endif
