// Arithmetic as `kernels/src/num.rs` has it; see there for why each line is as it is.
#pragma once
#include "base.cuh"

#ifdef __CUDACC__
TM_FN u32 bits_of(float x) { return __float_as_uint(x); }
TM_FN float from_bits(u32 b) { return __uint_as_float(b); }
TM_FN float abs_f32(float x) { return fabsf(x); }
TM_FN float sqrt_f32(float x) { return __fsqrt_rn(x); }
TM_FN void note_bad(u64 *bad, u64 index) { atomicMin(bad, index); }
// Of two numbers; a NaN gives way to the number.
TM_FN float lesser(float a, float b) { return fminf(a, b); }
TM_FN float greater(float a, float b) { return fmaxf(a, b); }
// Zero while everything that was added is finite, NaN from then on.
TM_FN float add_nothing(float sum, float x) { return __fmaf_rn(x, 0.0f, sum); }
#else
TM_FN u32 bits_of(float x) { u32 b; __builtin_memcpy(&b, &x, 4); return b; }
TM_FN float from_bits(u32 b) { float x; __builtin_memcpy(&x, &b, 4); return x; }
TM_FN float abs_f32(float x) { return __builtin_fabsf(x); }
TM_FN float sqrt_f32(float x) { return __builtin_sqrtf(x); }
TM_FN void note_bad(u64 *bad, u64 index) { if (index < *bad) *bad = index; }
TM_FN float lesser(float a, float b) { return a < b || b != b ? a : b; }
TM_FN float greater(float a, float b) { return a > b || b != b ? a : b; }
TM_FN float add_nothing(float sum, float x) { return sum + x * 0.0f; }
#endif

TM_FN bool is_finite(float x) { return (bits_of(x) & 0x7f800000u) != 0x7f800000u; }
// `if a > b`, as C's MAX: the second operand where the comparison is false.
TM_FN float c_max(float a, float b) { return a > b ? a : b; }
TM_FN i32 min_i32(i32 a, i32 b) { return a < b ? a : b; }
TM_FN i32 max_i32(i32 a, i32 b) { return a > b ? a : b; }
TM_FN i32 clamp_i32(i32 x, i32 low, i32 high) { return max_i32(min_i32(x, high), low); }

// The other sign, of a NaN too, which an addition would make canonical.
TM_FN float negate(float x) { return from_bits(bits_of(x) ^ 0x80000000u); }

// Binary32 to binary16, nearest even. Of a NaN see `scale_bits`.
TM_FN u16 f16_bits(float x) {
#ifdef __CUDACC__
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
#else
    u32 sign = bits_of(x) >> 16 & 0x8000u, magnitude = bits_of(x) & 0x7fffffffu;
    u32 rounded;
    if (magnitude > 0x7f800000u) {
        rounded = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {
        rounded = 0x7c00u;
    } else if (magnitude < 0x38800000u) {
        rounded = bits_of(from_bits(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        rounded = (magnitude - (112u << 23) + 0x0fffu + (magnitude >> 13 & 1)) >> 13;
    }
    return (u16)(sign ^ rounded);
#endif
}

// Binary16 to binary32; exact.
TM_FN float f16_value(u16 bits) {
#ifdef __CUDACC__
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
#else
    u32 sign = (u32)(bits & 0x8000u) << 16, exponent = bits >> 10 & 0x1fu, mantissa = bits & 0x3ffu, magnitude;
    if (exponent == 0) {
        magnitude = bits_of((float)mantissa * from_bits((127u - 24u) << 23));
    } else if (exponent == 31) {
        magnitude = 0x7f800000u | mantissa << 13;
    } else {
        magnitude = (exponent + 112u) << 23 | mantissa << 13;
    }
    return from_bits(sign | magnitude);
#endif
}

// Little-endian stores: blocks of every format start at even addresses, and so do their fields that are stored so.
TM_FN void write_f16(u8 *out, u16 bits) { *(u16 *)out = bits; }
TM_FN void write_u32(u8 *out, u32 word) {
    write_f16(out, (u16)word);
    write_f16(out + 2, (u16)(word >> 16));
}
// The same where the address divides by four.
TM_FN void write_word(u8 *out, u32 word) { *(u32 *)out = word; }

// Binary16 of a scale that is stored. Devices make every NaN canonical and forget its sign, which processors keep and
// the reference stores: where a scale is NaN (sums over importance or weights whose squares overflow), the job says so,
// and the processor encodes it again.
TM_FN u16 scale_bits(const Job &job, float x) {
    if (x != x) *job.odd = 1;
    return f16_bits(x);
}

TM_FN void write_scale(const Job &job, u8 *out, float x) { write_f16(out, scale_bits(job, x)); }

// NaN gives zero, as the bits of the NaN that x86-64 makes do; a device's NaN has others.
TM_FN i32 nearest_int(float x) {
    i32 n = (i32)(bits_of(x + 12582912.0f) & 0x007fffffu) - 0x00400000;
    return x == x ? n : 0;
}

TM_FN i32 truncate(float x) { return abs_f32(x) < 2147483648.0f ? (i32)x : (i32)0x80000000; }

// The largest number below one half, with the sign of `x`: what `round_away` adds.
TM_FN float below_half(float x) { return from_bits(0x3effffffu | (bits_of(x) & 0x80000000u)); }

TM_FN i32 round_away(float x) { return truncate(x + below_half(x)); }

TM_FN float reciprocal_or_zero(float x) { return x == 0.0f ? 0.0f : 1.0f / x; }

// Weight `i` of the job.
TM_FN float weight(const Job &job, u64 i) {
    if (job.input == 0) return ((const float *)job.x)[i];
    u16 half = ((const u16 *)job.x)[i];
    return job.input == 1 ? f16_value(half) : from_bits((u32)half << 16);
}

// Copies N words of four bytes each from an address that is aligned to 16 bytes, or to 8 where N is 2.
template <int N> TM_FN void load_words(const void *from, u32 (&words)[N]) {
#ifdef __CUDACC__
    if constexpr (N % 4 == 0) {
        TM_UNROLL for (i32 i = 0; i < N / 4; i++) {
            uint4 w = __ldg((const uint4 *)from + i);
            words[4 * i] = w.x, words[4 * i + 1] = w.y, words[4 * i + 2] = w.z, words[4 * i + 3] = w.w;
        }
    } else {
        static_assert(N == 2, "words come in pairs or fours");
        uint2 w = __ldg((const uint2 *)from);
        words[0] = w.x, words[1] = w.y;
    }
#else
    __builtin_memcpy(words, from, sizeof(words));
#endif
}

// Importance of the columns from that of weight `first` on, where there is some.
TM_FN const float *importance_at(const Job &job, u64 first) { return job.importance + first % job.row_len; }

// Loads N values of importance.
template <int N> TM_FN void load_f32(const float *from, float (&x)[N]) {
    u32 words[N];
    load_words(from, words);
    TM_UNROLL for (i32 i = 0; i < N; i++) x[i] = from_bits(words[i]);
}

// Loads N weights of two bytes.
template <int N> TM_FN void load_halves(const Job &job, u64 first, float (&x)[N]) {
    u32 pairs[N / 2];
    load_words((const u16 *)job.x + first, pairs);
    TM_UNROLL for (i32 i = 0; i < N / 2; i++) {
        u32 low = pairs[i] & 0xffffu, high = pairs[i] >> 16;
        x[2 * i] = job.input == 1 ? f16_value((u16)low) : from_bits(low << 16);
        x[2 * i + 1] = job.input == 1 ? f16_value((u16)high) : from_bits(high << 16);
    }
}

// Loads N weights that start at weight `first`; N and `first` divide by 8, or by 4 where N is 4.
template <int N> TM_FN void load(const Job &job, u64 first, float (&x)[N]) {
    if (job.input == 0) {
        load_f32((const float *)job.x + first, x);
    } else {
        load_halves(job, first, x);
    }
}

// Notes the first weight that is NaN or infinite.
template <int N> TM_FN void check(const Job &job, u64 first, const float (&x)[N]) {
    float nothing = 0.0f;
    TM_UNROLL for (i32 i = 0; i < N; i++) nothing = add_nothing(nothing, x[i]);
    if (nothing == 0.0f) return;
    TM_ROLLED for (i32 i = 0; i < N; i++) {
        if (!is_finite(weight(job, first + i))) return note_bad(job.bad, first + i);
    }
}

// Sum of squares of N values, first to last.
template <int N> TM_FN float sum_of_squares(const float (&x)[N]) {
    float sum = 0.0f;
    TM_UNROLL for (i32 i = 0; i < N; i++) sum += x[i] * x[i];
    return sum;
}
