// IQ2 and IQ3 on a device (`magnitude.rs`): a warp per super-block.
//
// Candidates do not depend on each other, nor do the points of one. So first a lane per group and candidate finds the
// levels of all its points, and queues those that are no point; then a lane per queued point searches its neighbours;
// then a lane per group and candidate adds up its sums in order; then a lane per group goes through its candidates. A
// few groups at a time, so that what is kept fits. Levels that are sure to be the nearest need the shorter lists only:
// `lanes.rs` says when, and why.
#pragma once
#include "grid/free_levels.cuh"
#include "grid/lattice.cuh"
#include "grid/queue.cuh"

constexpr float BEYOND = 3e38f;

// Which points are looked up again under the best scale.
enum Refit { ALWAYS, OFF_GRID, ALL_IF_ANY_OFF_GRID };

// D weights: magnitudes, with the exception of `split_even_signs`; their errors' weights, and the roots of those. Eight
// lanes that read eight rows one after the other share no bank.
template <i32 D> struct alignas(16) Row {
    float x[D], roots[D], weights[D], unused[4];
};
template <> struct alignas(16) Row<4> {
    float x[4], roots[4], weights[4];
};

// What eight weights have.
struct Eight {
    float max, largest, heaviest; // largest: magnitude; heaviest: BEYOND if a weight is negative, or NaN
};

struct Sums {
    float qx, q2;
};

// A group, and what was found for it.
struct Fit {
    float range;   // what has the top level under the middle candidate
    float scale;   // at first the one to keep when no candidate is any good
    float largest; // magnitude; BEYOND where errors may lose their order
    i32 best;      // candidate; -1: none
    u32 turn;      // all ones in the byte of signs if the scale came out negative
    bool live;     // does not count as zero
};

// A product that compilers take for one, so that it becomes a single instruction with the addition that follows. A shift
// would not.
TM_FN u32 times(u32 a, u32 b) {
#ifdef __CUDACC__
    u32 product;
    asm("mul.lo.u32 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
#else
    return a * b;
#endif
}

// A lane's errors of each level of each of eight weights, which neighbours share. The first two weights' are added.
constexpr i32 ERRORS = 11 + 6 * 3;
struct ErrorTable {
    float *of; // a column of ERRORS rows of a warp
    TM_MEMBER ErrorTable(float *of, const float (&x)[8], const float (&weights)[8], float scale) : of(of) {
        float first[3];
        TM_UNROLL for (i32 i = 0; i < 8; i++) {
            TM_UNROLL for (i32 l = 0; l < 3; l++) {
                float diff = scale * (float)(2 * l + 1) - x[i], error = weights[i] * diff * diff;
                if (i == 0) first[l] = error;
                if (i == 1) TM_UNROLL for (i32 k = 0; k < 3; k++) of[(k + 4 * l) * WARP] = first[k] + error;
                if (i > 1) of[(5 + 3 * i + l) * WARP] = error;
            }
        }
    }
    TM_MEMBER float operator()(u32 word) const {
        const u8 *bytes = (const u8 *)of;
        constexpr u32 ROW = WARP * 4;
        float error = *(const float *)(bytes + times(word & 15, ROW));
        u32 half = word;
        TM_UNROLL for (i32 i = 2; i < 8; i++) {
            if (i == 4) half = word >> 8;
            u32 shift = 2 * (i % 4);
            error += *(const float *)(bytes + times(half & 3u << shift, ROW >> shift) + (5 + 3 * i) * ROW);
        }
        return error;
    }
};

// Of four weights, whose levels are many and whose neighbours are few.
struct Errors {
    const float (&x)[4], (&weights)[4];
    float scale;
    TM_MEMBER Errors(float *, const float (&x)[4], const float (&weights)[4], float scale)
        : x(x), weights(weights), scale(scale) {}
    TM_MEMBER float operator()(u32 word) const {
        float values[4], error = 0.0f;
        ODD.of_word(word, values);
        TM_UNROLL for (i32 i = 0; i < 4; i++) {
            float diff = scale * values[i] - x[i];
            error += weights[i] * diff * diff;
        }
        return error;
    }
};

// What spans the scales of a super-block: whether one is not zero, and a part of 31 of the largest.
struct Scales {
    bool any;
    float part;
    TM_MEMBER u16 f16(float fudge) const { return any ? f16_bits(part * fudge) : 0; }
};

// F says how a format searches; see `iq2.cu`.
template <class F> struct Magnitudes {
    static constexpr i32 D = F::D, R = F::R, N = F::N, GROUPS = WEIGHTS / N;
    static constexpr i32 POINTS = WEIGHTS / D, PER_GROUP = N / D, CANDIDATES = 2 * F::REACH + 1;
    // Of the groups that are searched together.
    static constexpr i32 PAIRS = F::TOGETHER * CANDIDATES, ITEMS = PAIRS * PER_GROUP;
    // In place of a word whose levels may not be the nearest.
    static constexpr u32 DOUBTFUL = 0xffff;

    struct Trial {
        float inverse, scale;
    };
    struct Search {
        Trial trials[PAIRS];
        u16 words[ITEMS]; // levels, then points: by point, then candidate
        union {
            Queue<ITEMS> queue;
            Sums sums[PAIRS];
        };
    };
    struct Scratch {
        Row<D> rows[POINTS];
        union {
            struct {
                Eight eights[WEIGHTS / 8];
                FreeLevels<N, F::FROM_FREE_LEVELS ? GROUPS : 1> free_levels;
            } prepared;
            Search search;
        };
        float errors[D == 8 ? ERRORS : 1][WARP];
        Fit fits[GROUPS];
        u16 points[POINTS]; // words
        u8 on[POINTS], signs[WEIGHTS / 8];
    };

    const Team<WARP> &team;
    const Job &job;
    u64 block;
    Scratch &s;
    Tables<D> tables;

    // Signs apart from magnitudes, and the weights of errors.
    TM_MEMBER void prepare_eight(i32 e) const {
        u64 first = block * WEIGHTS + (u64)(8 * e);
        float x[8], w[8], sigma2 = 0.0f;
        load(job, first, x);
        check(job, first, x);
        if (F::ALWAYS_SIGMA || job.importance) sigma2 = F::SIGMA * block_sum_of_squares(job, block) / (float)WEIGHTS;
        if (job.importance) {
            float importance[8];
            load_f32(importance_at(job, first), importance);
            importance_weights(x, importance, sigma2, w);
        } else {
            TM_UNROLL for (i32 i = 0; i < 8; i++) w[i] = F::weight_without(x[i], sigma2);
        }
        u32 signs = 0;
        bool odd = false;
        i32 least = 0;
        float min = w[0] * x[0] * x[0];
        TM_UNROLL for (i32 i = 0; i < 8; i++) {
            if (x[i] < 0.0f) signs |= 1u << i, odd = !odd;
            float cost = w[i] * x[i] * x[i];
            if (cost < min) min = cost, least = i;
            x[i] = x[i] < 0.0f ? -x[i] : x[i];
        }
        if (F::EVEN_SIGNS && odd) {
            TM_UNROLL for (i32 i = 0; i < 8; i++) x[i] = i == least ? -x[i] : x[i];
            signs ^= 1u << least;
        }
        if (F::EVEN_SIGNS) signs &= 127;
        Eight eight = {x[0], 0.0f, 0.0f};
        TM_UNROLL for (i32 i = 0; i < 8; i++) {
            Row<D> &row = s.rows[(8 * e + i) / D];
            row.x[i % D] = x[i];
            row.weights[i % D] = w[i];
            row.roots[i % D] = sqrt_f32(w[i]);
            if (i > 0) eight.max = c_max(eight.max, x[i]);
            eight.largest = greater(eight.largest, abs_f32(x[i]));
            eight.heaviest = greater(eight.heaviest, w[i] >= 0.0f ? w[i] : BEYOND);
            if (F::FROM_FREE_LEVELS) {
                PositiveScratch<N> &free = s.prepared.free_levels.groups[8 * e / N];
                free.x[8 * e % N + i] = x[i];
                free.w[8 * e % N + i] = w[i];
            }
        }
        s.prepared.eights[e] = eight;
        s.signs[e] = (u8)signs;
    }

    TM_MEMBER void prepare_group(i32 g) const {
        Eight all = s.prepared.eights[g * N / 8];
        for (i32 e = g * N / 8 + 1; e < (g + 1) * N / 8; e++) {
            all.max = c_max(all.max, s.prepared.eights[e].max);
            all.largest = greater(all.largest, s.prepared.eights[e].largest);
            all.heaviest = greater(all.heaviest, s.prepared.eights[e].heaviest);
        }
        // Errors of roots up to 1e15 and differences up to some 1e10 are far from overflow.
        bool sane = all.largest < 1e9f && all.heaviest < 1e30f;
        bool dead = all.max < F::ZERO_BELOW;
        s.fits[g] = {all.max, all.max / F::TOP, sane ? all.largest : BEYOND, -1, 0, !dead};
    }

    // The search starts from the best scale for free levels of 0 to 4, and spreads around three of it.
    TM_MEMBER void start_from_free_levels() const {
        s.prepared.free_levels.fit(team);
        team.each(GROUPS, [&](i32 g) {
            Fit &fit = s.fits[g];
            if (!fit.live) return;
            fit.scale = s.prepared.free_levels.groups[g].scale;
            fit.range = fit.scale * 3.0f;
            // Not `range > 0`: a NaN goes on.
            if (fit.range <= 0.0f) fit.live = false;
        });
    }

    static TM_MEMBER float candidate(const Fit &fit, i32 c) {
        return ((float)(2 * R - 1) + (float)(c - F::REACH) * F::STEP) / fit.range;
    }

    // Levels as a word.
    static TM_MEMBER u32 any_levels(const float (&x)[D], float inverse) {
        u32 word = 0;
        TM_UNROLL for (i32 i = 0; i < D; i++) {
            i32 level = max_i32(min_i32(nearest_int(0.5f * (inverse * x[i] - 1.0f)), R - 1), 0);
            word |= (u32)level << (BITS<D> * i);
        }
        return word;
    }

    // The same, unless rounding might make another level's error less, or errors lose their order.
    static TM_MEMBER u32 sure_levels(const float (&x)[D], float largest, float inverse) {
        float worst = 0.0f;
        u32 word = 0;
        TM_UNROLL for (i32 i = 0; i < D; i++) {
            float level = lesser(greater(0.5f * (inverse * x[i] - 1.0f), 0.0f), (float)(R - 1));
            float shifted = level + 12582912.0f;
            worst = greater(worst, abs_f32(level - (shifted - 12582912.0f)));
            word += bits_of(shifted) << (BITS<D> * i);
        }
        bool keeps_order = inverse > 1e-8f && inverse < 1e29f && largest * inverse < 1e6f;
        return keeps_order && worst < 0.4999f ? word & 0xffffu : DOUBTFUL;
    }

    // The point for levels, by lane `lane` of the team.
    TM_MEMBER u32 snap(const Row<D> &row, const Trial &trial, u32 word, i32 lane) const {
        bool doubtful = word == DOUBTFUL;
        if (doubtful) word = any_levels(row.x, trial.inverse);
        Place place = tables.place(word);
        if (place.on()) return word;
        List<D> list = doubtful ? tables.all(place) : tables.near(place);
        float x[D], roots[D];
        TM_UNROLL for (i32 i = 0; i < D; i++) x[i] = row.x[i], roots[i] = row.roots[i];
        if constexpr (D == 8) {
            return nearest(list, ErrorTable(&s.errors[0][lane], x, roots, trial.scale));
        } else {
            return nearest(list, Errors(nullptr, x, roots, trial.scale));
        }
    }

    // Adds what a point contributes.
    static TM_MEMBER void add(Sums &sums, const Row<D> &row, u32 word) {
        float values[D];
        ODD.of_word(word, values);
        TM_UNROLL for (i32 i = 0; i < D; i++) {
            float q = values[i], w = row.weights[i];
            sums.qx += w * row.x[i] * q;
            sums.q2 += w * q * q;
        }
    }

    // Items of the groups from `first` on: pairs of a group and a candidate, and what each of a pair's points has.
    TM_MEMBER void try_candidates(i32 first) const {
        Search &search = s.search;
        team.each(PAIRS, [&](i32 i) {
            float inverse = candidate(s.fits[first + i / CANDIDATES], i % CANDIDATES);
            search.trials[i] = {inverse, 1.0f / inverse};
        });
        struct Pair {
            i32 p, c; // the group's first point, and the candidate
            float inverse, largest;
            bool live;
        };
        i32 counts[KINDS];
        enqueue(
            team, PAIRS, PER_GROUP, search.queue, counts,
            [&](i32 i) -> Pair {
                i32 g = i / CANDIDATES;
                const Fit &fit = s.fits[first + g];
                return {g * PER_GROUP, i % CANDIDATES, search.trials[i].inverse, fit.largest, fit.live};
            },
            [&](const Pair &pair, i32 k) -> u32 {
                i32 p = pair.p + k;
                u32 word = sure_levels(s.rows[first * PER_GROUP + p].x, pair.largest, pair.inverse);
                search.words[p * CANDIDATES + pair.c] = (u16)word;
                u32 entry = (u32)(p << 5 | pair.c);
                if (word == DOUBTFUL) return pair.live ? 3 << 16 | entry : NOTHING_TO_DO;
                Place place = tables.place(word);
                return place.on() || !pair.live ? NOTHING_TO_DO : place.kind() << 16 | entry;
            });
        team.each(counts[0] + counts[1] + counts[2] + counts[3], [&](i32 i) {
            i32 entry = (i32)search.queue.of(counts, i), p = entry >> 5, c = entry & 31;
            u16 &word = search.words[p * CANDIDATES + c];
            const Trial &trial = search.trials[p / PER_GROUP * CANDIDATES + c];
            word = (u16)snap(s.rows[first * PER_GROUP + p], trial, word, i % WARP);
        });
        team.each(PAIRS, [&](i32 i) {
            i32 p = i / CANDIDATES * PER_GROUP, c = i % CANDIDATES;
            Sums sums = {0.0f, 0.0f};
            TM_ROLLED for (i32 k = 0; k < PER_GROUP; k++) {
                add(sums, s.rows[first * PER_GROUP + p + k], search.words[(p + k) * CANDIDATES + c]);
            }
            search.sums[i] = sums;
        });
        team.each(F::TOGETHER, [&](i32 g) { choose(s.fits[first + g], search.sums + g * CANDIDATES); });
        team.each(F::TOGETHER * PER_GROUP, [&](i32 p) { take(first * PER_GROUP + p, search.words + p * CANDIDATES); });
    }

    // The best candidate.
    static TM_MEMBER void choose(Fit &fit, const Sums *sums) {
        if (!fit.live) return;
        float scale = fit.scale, best = 0.0f;
        i32 chosen = -1;
        TM_ROLLED for (i32 c = 0; c < CANDIDATES; c++) {
            float qx = sums[c].qx, q2 = sums[c].q2;
            if (q2 > 0.0f && qx * qx > best * q2) {
                scale = qx / q2;
                best = scale * qx;
                chosen = c;
            }
        }
        fit.scale = scale;
        fit.best = chosen;
    }

    // Its point, and whether the levels are one. Without a good candidate, ggml counts untouched groups of IQ3_S as off
    // the grid, all others as on it.
    TM_MEMBER void take(i32 p, const u16 *words) const {
        const Fit &fit = s.fits[p / PER_GROUP];
        bool some = fit.live && fit.best >= 0;
        s.points[p] = some ? words[fit.best] : 0;
        s.on[p] = F::REFIT != ALL_IF_ANY_OFF_GRID;
        if (some) s.on[p] = tables.place(any_levels(s.rows[p].x, candidate(fit, fit.best))).on();
    }

    TM_MEMBER bool goes_again(i32 g) const {
        if (!s.fits[g].live || !(s.fits[g].scale > 0.0f)) return false;
        bool all_on = true;
        for (i32 p = g * PER_GROUP; p < (g + 1) * PER_GROUP; p++) all_on = all_on && s.on[p];
        return F::REFIT == ALWAYS || !all_on;
    }

    // Some points are looked up again under the best scale.
    TM_MEMBER void refit() const {
        team.each(POINTS, [&](i32 p) {
            i32 g = p / PER_GROUP;
            if (!goes_again(g) || (F::REFIT == OFF_GRID && s.on[p])) return;
            Trial trial = {1.0f / s.fits[g].scale, s.fits[g].scale};
            u32 word = sure_levels(s.rows[p].x, s.fits[g].largest, trial.inverse);
            s.points[p] = (u16)snap(s.rows[p], trial, word, p % WARP);
        });
        team.each(GROUPS, [&](i32 g) {
            Fit &fit = s.fits[g];
            float scale = fit.live ? fit.scale : 0.0f;
            if (goes_again(g)) {
                Sums sums = {0.0f, 0.0f};
                TM_ROLLED for (i32 p = g * PER_GROUP; p < (g + 1) * PER_GROUP; p++) add(sums, s.rows[p], s.points[p]);
                if (sums.q2 > 0.0f) scale = sums.qx / sums.q2;
            }
            fit.turn = scale < 0.0f ? 255 : 0;
            fit.scale = scale != scale ? 0.0f : abs_f32(scale);
        });
    }

    TM_MEMBER void fit() const {
        team.each(WEIGHTS / 8, [&](i32 e) { prepare_eight(e); });
        team.each(GROUPS, [&](i32 g) { prepare_group(g); });
        if constexpr (F::FROM_FREE_LEVELS) start_from_free_levels();
        TM_ROLLED for (i32 first = 0; first < GROUPS; first += F::TOGETHER) try_candidates(first);
        refit();
    }

    // --- What was found, for who packs it ---

    TM_MEMBER bool live(i32 g) const { return s.fits[g].live; }
    // Index of a point; in a group that counts as zero, of the one of zeros, which comes first.
    TM_MEMBER u32 index(i32 p) const {
        return tables.place(s.points[p]).index();
    }
    // Signs of eight weights.
    TM_MEMBER u32 signs(i32 e) const { return live(8 * e / N) ? s.signs[e] ^ s.fits[8 * e / N].turn : 0; }

    TM_MEMBER Scales scales() const {
        float max = 0.0f;
        TM_UNROLL for (i32 g = 0; g < GROUPS; g++) max = c_max(max, s.fits[g].scale);
        return {max != 0.0f, max / 31.0f};
    }
    // The 4-bit level of a scale: level l stands for 2 l + 1 parts.
    TM_MEMBER u32 level(i32 g, const Scales &scales) const {
        float inverse = 1.0f / scales.part;
        return (u32)clamp_i32(nearest_int(0.5f * (inverse * s.fits[g].scale - 1.0f)), 0, 15);
    }
    // Two 4-bit levels to a byte, the first in the low nibble.
    TM_MEMBER u8 levels(i32 byte, const Scales &scales) const {
        return scales.any ? (u8)(level(2 * byte, scales) | level(2 * byte + 1, scales) << 4) : 0;
    }
};
