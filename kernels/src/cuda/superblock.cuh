// What the K-quants share (`kernels/src/superblock.rs`): one lane per group, levels as four bytes in a word, planes of
// bits, and the whole of Q4_K and Q5_K except how they pack levels.
#pragma once
#include "search.cuh"

// Weights in one super-block.
constexpr i32 WEIGHTS = 256;

// Sum of the squares of a super-block, first to last, which every lane that needs it takes for itself: the reads of a
// team fall together.
TM_FN float block_sum_of_squares(const Job &job, u64 block) {
    float sum = 0.0f;
    TM_ROLLED for (i32 i = 0; i < WEIGHTS; i += 32) {
        float x[32];
        load(job, block * WEIGHTS + i, x);
        TM_UNROLL for (i32 j = 0; j < 32; j++) sum += x[j] * x[j];
    }
    return sum;
}

// Levels of one group, four to a word.
template <int N, class F> TM_FN void write_levels(u32 *words, F level) {
    TM_UNROLL for (i32 k = 0; k < N / 4; k++) {
        u32 word = 0;
        TM_UNROLL for (i32 b = 0; b < 4; b++) word |= level(4 * k + b) << (8 * b);
        words[k] = word;
    }
}

// Levels of quotients: LOW to HIGH, stored from zero. Products with the reciprocal are a few units in the last place
// off, which is nothing unless they lie near a tie; then, and out of reach of that argument, the division decides.
template <int LOW, int HIGH, int N, class F> TM_FN void divide_levels(u32 *words, float divisor, F dividend) {
    float reciprocal = 1.0f / divisor;
    TM_UNROLL for (i32 k = 0; k < N / 4; k++) {
        u32 word = 0;
        bool sure = true;
        TM_UNROLL for (i32 b = 0; b < 4; b++) {
            float q = dividend(4 * k + b) * reciprocal, nearest = (q + 12582912.0f) - 12582912.0f;
            sure = sure && abs_f32(q) < 256.0f && abs_f32(q - nearest) < 0.4999f;
            float level = lesser(greater(nearest, (float)LOW), (float)HIGH);
            // The low byte of the sum is the level from zero.
            word |= (bits_of(level + (12582912.0f - (float)LOW)) & 0xffu) << (8 * b);
        }
        if (!sure) {
            word = 0;
            TM_UNROLL for (i32 b = 0; b < 4; b++) {
                word |= (u32)(any_level(dividend(4 * k + b) / divisor, LOW, HIGH) - LOW) << (8 * b);
            }
        }
        words[k] = word;
    }
}

// Levels again, now that the scale and offset they will be decoded with are known; those of the search where the scale
// vanished. Scales are products of a binary16 and a small integer.
template <int MAX, int N>
TM_FN void requantize_affine(const float (&x)[N], const Affine &fit, float scale, float offset, u32 *words) {
    if (scale == 0.0f) {
        write_levels<N>(words, [&](i32 i) { return fit.template level<MAX>(x[i]); });
    } else {
        divide_levels<0, MAX, N>(words, scale, [&](i32 i) { return x[i] + offset; });
    }
}

// The same for symmetric groups; `words` hold the levels of the search already.
template <int HALF, int N> TM_FN void requantize_symmetric(const float (&x)[N], float scale, u32 *words) {
    if (scale == 0.0f) return;
    divide_levels<-HALF, HALF - 1, N>(words, scale, [&](i32 i) { return x[i]; });
}

// Four bytes as a word.
TM_FN u32 word_of(const u8 *p) { return (u32)p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24; }

// Word k (0 to 15) of 2-bit levels: byte l of each half holds weights l, l + 32, l + 64 and l + 96, lowest bits first.
TM_FN u32 two_bit_word(const u32 *levels, i32 k) {
    const u32 *w = levels + k / 8 * 32 + k % 8;
    u32 mask = 0x03030303u;
    return (w[0] & mask) | (w[8] & mask) << 2 | (w[16] & mask) << 4 | (w[24] & mask) << 6;
}

// --- Scales and offsets of groups ----------------------------------------------------------------------------------------

// Of scales (0) and offsets (1).
template <int GROUPS> struct AffineScratch {
    PositiveScratch<GROUPS> of[2];
    u32 levels[WEIGHTS / 4];
    u8 packed[16];
};

// With importance.
template <int TOP, class T, int GROUPS> TM_FN void fit_scales(const T &team, AffineScratch<GROUPS> &s) {
    team.each(2 * POSITIVE_CANDIDATES, [&](i32 i) {
        try_positive<TOP>(s.of[i / POSITIVE_CANDIDATES], i % POSITIVE_CANDIDATES);
    });
    team.each(2, [&](i32 i) { choose_positive<TOP>(s.of[i]); });
}

// Without: the largest one gets level TOP, or what CAP says.
template <int TOP, int CAP, class T, int GROUPS> TM_FN void spread_scales(const T &team, AffineScratch<GROUPS> &s) {
    team.each(2 * GROUPS, [&](i32 i) {
        PositiveScratch<GROUPS> &of = s.of[i / GROUPS];
        float max = 0.0f;
        TM_UNROLL for (i32 j = 0; j < GROUPS; j++) {
            if (of.x[j] > max) max = of.x[j];
        }
        i32 level = (u8)nearest_int((max > 0.0f ? (float)TOP / max : 0.0f) * of.x[i % GROUPS]);
        of.levels[i % GROUPS] = (u8)min_i32(level, CAP);
        if (i % GROUPS == 0) of.scale = max / (float)TOP;
    });
}

// --- Q4_K and Q5_K -------------------------------------------------------------------------------------------------------

// Eight scales and eight offsets of six bits in twelve bytes; byte i of them. Wrapped levels spill, as in ggml.
TM_FN u8 six_bit_byte(const u8 *scales, const u8 *offsets, i32 i) {
    if (i < 4) return (u8)(scales[i] | scales[i + 4] >> 4 << 6);
    if (i < 8) return (u8)(offsets[i - 4] | offsets[i] >> 4 << 6);
    return (u8)((scales[i - 4] & 15) | offsets[i - 4] << 4);
}

// Scale and offset of group j.
TM_FN void six_bits(const u8 *packed, i32 j, i32 &scale, i32 &offset) {
    if (j < 4) {
        scale = packed[j] & 63;
        offset = packed[j + 4] & 63;
    } else {
        scale = (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
        offset = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
    }
}

// Encodes eight groups of 32 under 6-bit scales and offsets: writes the first 16 bytes of the block, and leaves levels
// in scratch. K is as `AffineKind`; FIRST, STEP and LAST are its
// candidates.
template <class K, class T>
TM_FN void encode_affine(const T &team, const Job &job, u64 block, u8 *out, AffineScratch<8> &s) {
    PerLane<float[32], 8> xs;
    PerLane<Affine, 8> fits;
    u64 first = block * WEIGHTS;
    team.each(8, [&](i32 j) {
        float(&x)[32] = xs[j];
        float w[32];
        float sigma2 = job.importance ? 2.0f * block_sum_of_squares(job, block) / (float)WEIGHTS : 0.0f;
        load(job, first + 32 * j, x);
        check(job, first + 32 * j, x);
        if (job.importance) {
            float importance[32];
            load_f32(importance_at(job, first) + 32 * j, importance);
            importance_weights(x, importance, sigma2, w);
            s.of[0].w[j] = s.of[1].w[j] = total(w);
        } else {
            float mean = sqrt_f32(sum_of_squares(x) / 32.0f);
            TM_UNROLL for (i32 i = 0; i < 32; i++) w[i] = mean + abs_f32(x[i]);
        }
        fits[j] = fit_affine<K::MAX, false>(x, w, job.importance ? WITH_IMPORTANCE : Candidates{K::FIRST, K::STEP, K::LAST});
        s.of[0].x[j] = fits[j].scale;
        s.of[1].x[j] = fits[j].offset;
    });
    if (job.importance) {
        fit_scales<63>(team, s);
        if (K::CLAMP) {
            team.each(8, [&](i32 j) {
                s.of[0].levels[j] = (u8)min_i32(s.of[0].levels[j], 63);
                s.of[1].levels[j] = (u8)min_i32(s.of[1].levels[j], 63);
            });
        }
    } else {
        spread_scales<63, 63>(team, s);
    }
    team.each(12, [&](i32 i) { s.packed[i] = six_bit_byte(s.of[0].levels, s.of[1].levels, i); });
    team.each(8, [&](i32 j) {
        u16 d = scale_bits(job, s.of[0].scale), dmin = scale_bits(job, s.of[1].scale);
        i32 scale, offset;
        six_bits(s.packed, j, scale, offset);
        requantize_affine<K::MAX>(xs[j], fits[j], f16_value(d) * (float)scale, f16_value(dmin) * (float)offset,
                                  s.levels + 8 * j);
        if (j == 0) write_word(out, (u32)d | (u32)dmin << 16);
        if (j < 3) write_word(out + 4 + 4 * j, word_of(s.packed + 4 * j));
    });
}

// Word k (0 to 31) of the low nibbles: 4 x 32 bytes, groups 2i (low) and 2i + 1 (high nibble).
TM_FN u32 nibble_word(const u32 *levels, i32 k) {
    const u32 *w = levels + k / 8 * 16 + k % 8;
    return (w[0] & 0x0f0f0f0fu) | (w[8] & 0x0f0f0f0fu) << 4;
}
