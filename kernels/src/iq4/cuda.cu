// IQ4_NL and IQ4_XS as device code: one lane per group of 32 weights.
//
// The reference scales a group's weights by one candidate after the other. Here each weight meets all candidates
// before the next one comes, so that its part in sixteen pairs of sums is found at once; each sum still adds from the
// first weight to the last. All candidates but the first lie within six percent of each other, and entries are so far
// apart that they take a weight to one of three neighbouring entries at most.
#include "superblock.cuh"

constexpr i32 N = 32;

// A group is kept in scratch, because the loop over its weights is rolled.
struct Group {
    const float *x, *w; // weights, and those of their errors
    float max, amax;    // the value of largest magnitude, and that
};

constexpr float VALUES[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Entry k + 1 begins halfway, tie included: near there both differences that `nearest_entry` compares are exact.
TM_FN constexpr float begins(i32 k) { return (VALUES[k - 1] + VALUES[k]) / 2; }
constexpr float NEVER = 3e38f;

// No bin has two thresholds, nor one at its edge: nothing depends on how a quotient is rounded.
constexpr float BIN = 10.25f;
constexpr i32 BINS = 32;

// What a weight in some bin can become. Bins count from zero up, then, for negative ones, from the last down.
struct alignas(16) Bin {
    float threshold, below, above;
    u32 index; // of `below`
};
// An entry and the two after it, then where these begin.
struct alignas(16) Three {
    float of[8];
};
struct Book {
    Bin bins[BINS];
    Three threes[16];
};

TM_FN constexpr Book make_book() {
    Book book = {};
    i32 index = 0;
    for (i32 number = -BINS / 2; number < BINS / 2; number++) {
        Bin &bin = book.bins[(number + BINS) % BINS];
        bin.threshold = NEVER;
        bin.below = VALUES[index];
        bin.index = (u32)index;
        if (index < 15 && begins(index + 1) < ((float)number + 0.5f) * BIN) bin.threshold = begins(++index);
        bin.above = VALUES[index];
    }
    for (i32 i = 0; i < 16; i++) {
        for (i32 k = 0; k < 3; k++) book.threes[i].of[k] = VALUES[i + k < 15 ? i + k : 15];
        for (i32 k = 0; k < 2; k++) book.threes[i].of[3 + k] = i + k < 15 ? begins(i + k + 1) : NEVER;
    }
    return book;
}

TM_CONST Book BOOK = make_book();

// Beyond the last entry nothing changes; NaN counts as the last.
TM_FN Bin bin_of(float &x) {
    x = greater(lesser(x, 130.0f), -130.0f);
    u32 bin[4];
    load_words(&BOOK.bins[bits_of(x * (1.0f / BIN) + 12582912.0f) & (BINS - 1)], bin);
    return Bin{from_bits(bin[0]), from_bits(bin[1]), from_bits(bin[2]), bin[3]};
}
TM_FN u32 nearest_index(float x) {
    Bin bin = bin_of(x);
    return bin.index + (x >= bin.threshold ? 1 : 0);
}
TM_FN float nearest_value(float x) {
    Bin bin = bin_of(x);
    return x >= bin.threshold ? bin.above : bin.below;
}

constexpr i32 TRIALS = 15;

TM_FN float fit(const Group &group) {
    if (group.amax < ZERO_BELOW) return 0.0f;
    float first = 1.0f / (-group.max / -127.0f), trials[TRIALS];
    TM_UNROLL for (i32 t = 0; t < TRIALS; t++) trials[t] = (float)(t - 7 - 127) / group.max;
    float first_qx = 0.0f, first_q2 = 0.0f, sum_qx[TRIALS], sum_q2[TRIALS];
    TM_UNROLL for (i32 t = 0; t < TRIALS; t++) sum_qx[t] = 0.0f, sum_q2[t] = 0.0f;
    TM_ROLLED for (i32 i = 0; i < N; i++) {
        float x = group.x[i], w = group.w[i];
        float q = nearest_value(first * x), wq = w * q;
        first_qx += wq * x;
        first_q2 += wq * q;
        // A product moves with its candidate, rounding included, so the lowest is the first's or the last's. The
        // largest magnitude moves by 14, and three entries take up 23.
        float three[8];
        load_f32(BOOK.threes[nearest_index(lesser(trials[0] * x, trials[TRIALS - 1] * x))].of, three);
        TM_UNROLL for (i32 t = 0; t < TRIALS; t++) {
            float scaled = trials[t] * x;
            float q = scaled >= three[3] ? three[1] : three[0];
            q = scaled >= three[4] ? three[2] : q;
            float wq = w * q;
            sum_qx[t] += wq * x;
            sum_q2[t] += wq * q;
        }
    }

    float scale = first_q2 > 0.0f ? first_qx / first_q2 : 0.0f, best = scale * first_qx;
    TM_UNROLL for (i32 t = 0; t < TRIALS; t++) {
        if (sum_q2[t] > 0.0f && sum_qx[t] * sum_qx[t] > best * sum_q2[t]) {
            scale = sum_qx[t] / sum_q2[t];
            best = scale * sum_qx[t];
        }
    }
    return scale;
}

// Loads a group and keeps it, with its squares, which weigh the errors where there is no importance.
TM_FN Group keep(const Job &job, u64 first, float *kept, float *squares) {
    float x[N];
    load(job, first, x);
    check(job, first, x);
    TM_UNROLL for (i32 i = 0; i < N; i++) {
        kept[i] = x[i];
        squares[i] = x[i] * x[i];
    }
    Group group = {kept, squares, 0.0f, 0.0f};
    signed_max(x, group.max, group.amax);
    return group;
}

// The weights of a group's errors.
TM_FN void weigh(const float *importance, const float *x, float sigma2, float *w) {
    TM_ROLLED for (i32 i = 0; i < N; i += 4) {
        float four[4];
        load_f32(importance + i, four);
        TM_UNROLL for (i32 k = 0; k < 4; k++) w[i + k] = importance_weight(x[i + k], four[k], sigma2);
    }
}

// Nearest indices, as 16 bytes.
template <class F> TM_FN void pack(const float *x, float inverse, F write) {
    TM_ROLLED for (i32 k = 0; k < 4; k++) {
        u32 word = 0;
        TM_UNROLL for (i32 j = 0; j < 4; j++) {
            u32 low = nearest_index(inverse * x[4 * k + j]);
            u32 high = nearest_index(inverse * x[4 * k + j + 16]);
            word |= (low | high << 4) << (8 * j);
        }
        write(4 * k, word);
    }
}

// A size that is odd gives each lane a bank of its own.
struct NlScratch {
    float x[N], w[N], unused;
};

TM_FN void encode_nl(Team<1> team, const Job &job, u64 block, NlScratch &s) {
    team.each(1, [&](i32) {
        Group group = keep(job, block * N, s.x, s.w);
        if (job.importance) {
            float sum = 0.0f;
            TM_UNROLL for (i32 i = 0; i < N; i++) sum += s.w[i];
            weigh(importance_at(job, block * N), s.x, sum * (2.0f / 32.0f), s.w);
        }
        float scale = fit(group);
        u8 *out = job.out + block * 18;
        write_scale(job, out, scale);
        pack(s.x, reciprocal_or_zero(scale), [&](i32 at, u32 word) { write_u32(out + 2 + at, word); });
    });
}

TM_ENCODE(iq4_nl, 1, NlScratch, encode_nl)

// Odd rows do so for the lanes of a team; the size keeps the four teams of a warp apart.
struct XsScratch {
    float x[8][N + 1], w[8][N + 1], scales[8], unused[16];
};

TM_FN void encode_xs(Team<8, true> team, const Job &job, u64 block, XsScratch &s) {
    u64 first = block * WEIGHTS;
    u8 *out = job.out + block * 136;
    team.each(8, [&](i32 j) {
        Group group = keep(job, first + (u64)(32 * j), s.x[j], s.w[j]);
        if (job.importance) {
            float sigma2 = block_sum_of_squares(job, block) * (2.0f / 256.0f);
            weigh(importance_at(job, first) + 32 * j, s.x[j], sigma2, s.w[j]);
        }
        s.scales[j] = fit(group);
    });
    team.each(8, [&](i32 j) {
        float max, amax;
        signed_max(s.scales, max, amax);
        // Levels are found with the scale as it is before it is rounded.
        float d = -max / 32.0f, inverse = reciprocal_or_zero(d);
        u32 levels = 0, low = 0, high = 0;
        TM_UNROLL for (i32 k = 0; k < 8; k++) {
            u32 biased = (u32)(clamp_i32(nearest_int(inverse * s.scales[k]), -32, 31) + 32);
            low |= (biased & 15) << (4 * k);
            high |= biased >> 4 << (2 * k);
            if (k == j) levels = biased;
        }
        float scale = d * (float)((i32)levels - 32);
        pack(s.x[j], reciprocal_or_zero(scale), [&](i32 at, u32 word) { write_word(out + 8 + 16 * j + at, word); });
        if (j != 0) return;
        write_scale(job, out, d);
        write_f16(out + 2, (u16)high);
        write_word(out + 4, low);
    });
}

TM_ENCODE_TOGETHER(iq4_xs, 8, XsScratch, encode_xs)
