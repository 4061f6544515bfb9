// Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 as device code.
//
// Q4_0, Q5_0 and Q8_0: four lanes per block. Lane i has weights 4i to 4i + 3 of each half, so that reads fall together
// and each lane makes four bytes of nibbles. Which weight is largest does not depend on how quads are compared, as long
// as the first one wins a tie; with importance, lanes share the candidates, which do not depend on each other.
//
// Q4_1 and Q5_1: one lane per block, because each accepted candidate changes the later ones.
#include "search.cuh"

// Four levels as bytes, from the function of their index.
template <class F> TM_FN u32 four_levels(F level) {
    u32 word = 0;
    TM_UNROLL for (i32 i = 0; i < 4; i++) word |= ((u32)level(i) & 0xffu) << (8 * i);
    return word;
}

// The fifth bits of four levels: bits 0 to 3.
TM_FN u32 fifth_bits(u32 levels) {
    u32 bits = levels >> 4 & 0x01010101u;
    return (bits | bits >> 7 | bits >> 14 | bits >> 21) & 15u;
}

TM_FN u32 nibbles(u32 low, u32 high) { return (low & 0x0f0f0f0fu) | (high & 0x0f0f0f0fu) << 4; }

// Lane i's weights of both halves: x[0..4] and x[4..8].
TM_FN void load_quads(const Job &job, u64 block, i32 i, float (&x)[8]) {
    u64 first = block * 32 + 4 * i;
    float low[4], high[4], nothing = 0.0f;
    if (job.input == 0) {
        load_f32((const float *)job.x + first, low);
        load_f32((const float *)job.x + first + 16, high);
    } else {
        load_halves(job, first, low);
        load_halves(job, first + 16, high);
    }
    TM_UNROLL for (i32 k = 0; k < 4; k++) x[k] = low[k], x[4 + k] = high[k];
    TM_UNROLL for (i32 k = 0; k < 8; k++) nothing = add_nothing(nothing, x[k]);
    if (nothing != 0.0f) {
        check(job, first, low);
        check(job, first + 16, high);
    }
}

// Whether products of an inverse and weights can be taken for small numbers: where 1 / scale is no number, nothing is
// known about them.
TM_FN bool tame(float inverse) { return abs_f32(inverse) < 1e38f; }

// --- Q4_0 and Q5_0 -------------------------------------------------------------------------------------------------------

struct Symmetric32 {
    // The largest weight of each quad of weights, with its sign.
    float max[8];
    u32 fifth[4];
    SymmetricScratch<32> fit;
};

template <int BITS> TM_FN void encode_symmetric(const Team<4, true> &team, const Job &job, u64 block, Symmetric32 &s) {
    constexpr i32 HALF = 1 << (BITS - 1), HEAD = BITS == 5 ? 6 : 2;
    u8 *out = job.out + block * (HEAD + 16);
    PerLane<float[8], 4> xs;
    team.each(4, [&](i32 i) {
        float(&x)[8] = xs[i];
        load_quads(job, block, i, x);
        if (job.importance) {
            float sigma2 = job.row_means[block * 32 / job.row_len], importance[4];
            const float *from = importance_at(job, block * 32);
            TM_UNROLL for (i32 half = 0; half < 2; half++) {
                i32 first = 16 * half + 4 * i;
                load_f32(from + first, importance);
                TM_UNROLL for (i32 k = 0; k < 4; k++) {
                    s.fit.x[first + k] = x[4 * half + k];
                    s.fit.w[first + k] = importance_weight(x[4 * half + k], importance[k], sigma2);
                }
            }
        } else {
            float low[4] = {x[0], x[1], x[2], x[3]}, high[4] = {x[4], x[5], x[6], x[7]}, amax;
            signed_max(low, s.max[i], amax);
            signed_max(high, s.max[4 + i], amax);
        }
    });
    if (job.importance) {
        team.each(SYMMETRIC_CANDIDATES, [&](i32 c) { try_symmetric<HALF, true>(s.fit, c); });
    }
    team.each(4, [&](i32 i) {
        float(&x)[8] = xs[i];
        float scale;
        u32 low, high;
        if (job.importance) {
            Symmetric fit = choose_symmetric<HALF>(s.fit);
            scale = fit.scale;
            low = four_levels([&](i32 k) { return fit.template level<HALF>(x[k]); });
            high = four_levels([&](i32 k) { return fit.template level<HALF>(x[4 + k]); });
        } else {
            float max, amax;
            signed_max(s.max, max, amax);
            scale = max / (float)-HALF;
            float inverse = reciprocal_or_zero(scale);
            if (tame(inverse)) {
                // Not above 2 * HALF + 1/2, and not below 0.
                auto level = [&](float v) { return (i32)lesser(v * inverse + ((float)HALF + 0.5f), 2.0f * HALF - 1.0f); };
                low = four_levels([&](i32 k) { return level(x[k]); });
                high = four_levels([&](i32 k) { return level(x[4 + k]); });
            } else {
                auto level = [&](float v) {
                    return min_i32((i8)truncate(v * inverse + ((float)HALF + 0.5f)), 2 * HALF - 1);
                };
                low = four_levels([&](i32 k) { return level(x[k]); });
                high = four_levels([&](i32 k) { return level(x[4 + k]); });
            }
        }
        if (i == 0) write_scale(job, out, scale);
        write_u32(out + HEAD + 4 * i, nibbles(low, high));
        if (BITS == 5) s.fifth[i] = fifth_bits(low) << 4 * i | fifth_bits(high) << (16 + 4 * i);
    });
    if (BITS == 5) {
        team.each(1, [&](i32) { write_u32(out + 2, s.fifth[0] | s.fifth[1] | s.fifth[2] | s.fifth[3]); });
    }
}

TM_ENCODE_TOGETHER(q4_0, 4, Symmetric32, encode_symmetric<4>)
TM_ENCODE_TOGETHER(q5_0, 4, Symmetric32, encode_symmetric<5>)

// --- Q4_1 and Q5_1 -------------------------------------------------------------------------------------------------------

template <int BITS> TM_FN void encode_affine(const Team<1> &team, const Job &job, u64 block, NoScratch &) {
    constexpr i32 TOP = (1 << BITS) - 1, HEAD = BITS == 5 ? 8 : 4;
    team.each(1, [&](i32) {
        u8 *out = job.out + block * (HEAD + 16);
        u64 first = block * 32;
        float x[32], scale, min;
        u32 levels[8];
        load(job, first, x);
        check(job, first, x);
        if (job.importance) {
            float importance[32], w[32];
            load_f32(importance_at(job, first), importance);
            importance_weights(x, importance, job.row_means[first / job.row_len], w);
            Affine fit = fit_affine<TOP, false>(x, w, WITH_IMPORTANCE);
            scale = fit.scale;
            min = negate(fit.offset);
            TM_UNROLL for (i32 k = 0; k < 8; k++) {
                levels[k] = four_levels([&](i32 i) { return fit.template level<TOP>(x[4 * k + i]); });
            }
        } else {
            float max = x[0];
            min = x[0];
            TM_UNROLL for (i32 i = 1; i < 32; i++) {
                if (x[i] < min) min = x[i];
                if (x[i] > max) max = x[i];
            }
            scale = (max - min) / (float)TOP;
            float inverse = reciprocal_or_zero(scale);
            TM_UNROLL for (i32 k = 0; k < 8; k++) {
                levels[k] = four_levels([&](i32 i) {
                    i32 cut = truncate((x[4 * k + i] - min) * inverse + 0.5f);
                    // Five bits are only masked, when packed; four are clamped as a signed byte.
                    return BITS == 5 ? cut : min_i32((i8)cut, 15);
                });
            }
        }
        write_word(out, (u32)scale_bits(job, scale) | (u32)scale_bits(job, min) << 16);
        if (BITS == 5) {
            u32 fifth = 0;
            TM_UNROLL for (i32 k = 0; k < 8; k++) fifth |= fifth_bits(levels[k]) << 4 * k;
            write_word(out + 4, fifth);
        }
        TM_UNROLL for (i32 k = 0; k < 4; k++) write_word(out + HEAD + 4 * k, nibbles(levels[k], levels[k + 4]));
    });
}

TM_ENCODE(q4_1, 1, NoScratch, encode_affine<4>)
TM_ENCODE(q5_1, 1, NoScratch, encode_affine<5>)

// --- Q8_0 ----------------------------------------------------------------------------------------------------------------

struct Largest {
    float amax[4];
};

TM_FN void encode_q8(const Team<4, true> &team, const Job &job, u64 block, Largest &s) {
    u8 *out = job.out + block * 34;
    PerLane<float[8], 4> xs;
    team.each(4, [&](i32 i) {
        float(&x)[8] = xs[i];
        load_quads(job, block, i, x);
        float amax = 0.0f;
        TM_UNROLL for (i32 k = 0; k < 8; k++) amax = greater(amax, abs_f32(x[k]));
        s.amax[i] = amax;
    });
    team.each(4, [&](i32 i) {
        float(&x)[8] = xs[i];
        float amax = greater(greater(s.amax[0], s.amax[1]), greater(s.amax[2], s.amax[3]));
        float scale = amax / 127.0f, inverse = reciprocal_or_zero(scale);
        u32 low, high;
        if (tame(inverse)) {
            auto level = [&](float v) { return (i32)(v * inverse + below_half(v * inverse)); };
            low = four_levels([&](i32 k) { return level(x[k]); });
            high = four_levels([&](i32 k) { return level(x[4 + k]); });
        } else {
            low = four_levels([&](i32 k) { return round_away(x[k] * inverse); });
            high = four_levels([&](i32 k) { return round_away(x[4 + k] * inverse); });
        }
        if (i == 0) write_f16(out, f16_bits(scale));
        write_u32(out + 2 + 4 * i, low);
        write_u32(out + 18 + 4 * i, high);
    });
}

TM_ENCODE_TOGETHER(q8_0, 4, Largest, encode_q8)
