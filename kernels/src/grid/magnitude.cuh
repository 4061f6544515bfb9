// IQ2 and IQ3 on a device (`magnitude.rs`): a warp per super-block.
//
// Candidates do not depend on each other, nor do their points. So every point of every candidate is an item of its own:
// first all get their levels; those that are no point are queued and searched, long lists first, so that lanes that
// search together do so for about as long. Then every candidate of every group is an item, whose sums add in order, and
// a lane per group goes through them. Levels that are sure to be the nearest need short lists only: `lanes.rs` says when.
#pragma once
#include "grid/lattice.cuh"

constexpr i32 LANES = 32;
constexpr float BEYOND = 3e38f;

// Which points are looked up again under the best scale.
enum Refit { ALWAYS, OFF_GRID, ALL_IF_ANY_OFF_GRID };

// Items of which something is to be done: `front` from the queue's start, `back` from its end.
struct Queued {
    i32 front, back, capacity;
    TM_MEMBER i32 count() const { return front + back; }
    // Those at the back first.
    TM_MEMBER u32 of(const u16 *queue, i32 i) const { return queue[i < back ? capacity - 1 - i : i - back]; }
};

// Puts each of n items where `kind(i)` says: nowhere (0), to the front (1) or to the back (2).
template <class F> TM_FN Queued enqueue(const Team<LANES> &team, i32 n, u16 *queue, F kind) {
    Queued queued = {0, 0, n};
#ifdef __CUDACC__
    u32 before = (1u << team.rank) - 1;
    for (i32 first = 0; first < n; first += LANES) {
        i32 i = first + (i32)team.rank;
        u32 to = i < n ? kind(i) : 0;
        u32 front = __ballot_sync(team.mask, to == 1), back = __ballot_sync(team.mask, to == 2);
        if (to == 1) queue[queued.front + __popc(front & before)] = (u16)i;
        if (to == 2) queue[n - 1 - queued.back - __popc(back & before)] = (u16)i;
        queued.front += __popc(front);
        queued.back += __popc(back);
    }
    __syncwarp(team.mask);
#else
    (void)team;
    for (i32 i = 0; i < n; i++) {
        u32 to = kind(i);
        if (to == 1) queue[queued.front++] = (u16)i;
        if (to == 2) queue[n - 1 - queued.back++] = (u16)i;
    }
#endif
    return queued;
}

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
    u32 signs;
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

// A lane's errors of each level of each of eight weights, which neighbours share. The first two weights' are added.
constexpr i32 ERRORS = 11 + 6 * 3;
struct ErrorTable {
    float *of; // a column of ERRORS rows of LANES
    TM_MEMBER void make(const float (&x)[8], const float (&weights)[8], float scale, const float (&values)[3]) const {
        float first[3];
        TM_UNROLL for (i32 i = 0; i < 8; i++) {
            TM_UNROLL for (i32 l = 0; l < 3; l++) {
                float diff = scale * values[l] - x[i], error = weights[i] * diff * diff;
                if (i == 0) first[l] = error;
                if (i == 1) TM_UNROLL for (i32 k = 0; k < 3; k++) of[(k + 4 * l) * LANES] = first[k] + error;
                if (i > 1) of[(5 + 3 * i + l) * LANES] = error;
            }
        }
    }
    TM_MEMBER float operator()(u32 word) const {
        float error = of[(word & 15) * LANES];
        TM_UNROLL for (i32 i = 2; i < 8; i++) error += of[(word >> (2 * i) & 3) * LANES + (5 + 3 * i) * LANES];
        return error;
    }
};

// Of four, whose levels are many and whose neighbours are few.
struct Errors {
    float x[4], weights[4], scale;
    TM_MEMBER float operator()(u32 word) const {
        float error = 0.0f;
        TM_UNROLL for (i32 i = 0; i < 4; i++) {
            float diff = scale * odd_of<4>(word, i) - x[i];
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
    static constexpr i32 ITEMS = POINTS * CANDIDATES;
    // In place of a word whose levels may not be the nearest.
    static constexpr u32 DOUBTFUL = 0xffff;

    // Words of levels, then of points, by point, then candidate.
    struct Search {
        u16 words[ITEMS];
        union {
            u16 queue[ITEMS];
            Sums sums[GROUPS * CANDIDATES]; // by group, then candidate
        };
    };
    struct Scratch {
        Row<D> rows[POINTS];
        union {
            PositiveScratch<N> free_levels[F::FROM_FREE_LEVELS ? GROUPS : 1];
            Search search;
        };
        Eight eights[WEIGHTS / 8];
        Fit fits[GROUPS];
        float errors[D == 8 ? ERRORS : 1][LANES];
        u16 points[POINTS]; // words
        u8 on[POINTS];
    };

    const Team<LANES> &team;
    const Job &job;
    u64 block;
    Scratch &s;

    // Signs apart from magnitudes, and the weights of errors.
    TM_MEMBER void prepare_eight(i32 e) const {
        u64 first = block * WEIGHTS + (u64)(8 * e);
        float x[8], w[8], sigma2 = 0.0f;
        load(job, first, x);
        check(job, first, x);
        if (F::ALWAYS_SIGMA || job.importance) sigma2 = F::SIGMA * block_sum_of_squares(job, block) / (float)WEIGHTS;
        if (job.importance) {
            float importance[8];
            load_f32(job.importance + first % job.row_len, importance);
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
        Eight eight = {x[0], 0.0f, 0.0f, signs};
        TM_UNROLL for (i32 i = 0; i < 8; i++) {
            Row<D> &row = s.rows[(8 * e + i) / D];
            row.x[i % D] = x[i];
            row.weights[i % D] = w[i];
            row.roots[i % D] = sqrt_f32(w[i]);
            if (i > 0) eight.max = c_max(eight.max, x[i]);
            eight.largest = greater(eight.largest, abs_f32(x[i]));
            eight.heaviest = greater(eight.heaviest, w[i] >= 0.0f ? w[i] : BEYOND);
            if (F::FROM_FREE_LEVELS) {
                PositiveScratch<N> &free = s.free_levels[8 * e / N];
                free.x[8 * e % N + i] = x[i];
                free.w[8 * e % N + i] = w[i];
            }
        }
        s.eights[e] = eight;
    }

    TM_MEMBER void prepare_group(i32 g) const {
        Eight all = s.eights[g * N / 8];
        for (i32 e = g * N / 8 + 1; e < (g + 1) * N / 8; e++) {
            all.max = c_max(all.max, s.eights[e].max);
            all.largest = greater(all.largest, s.eights[e].largest);
            all.heaviest = greater(all.heaviest, s.eights[e].heaviest);
        }
        // Errors of roots up to 1e15 and differences up to some 1e10 are far from overflow.
        bool sane = all.largest < 1e9f && all.heaviest < 1e30f;
        bool dead = all.max < F::ZERO_BELOW;
        s.fits[g] = {all.max, all.max / F::TOP, sane ? all.largest : BEYOND, -1, 0, !dead};
    }

    // The search starts from the best scale for free levels of 0 to 4, and spreads around three of it.
    TM_MEMBER void start_from_free_levels() const {
        team.each(GROUPS * POSITIVE_CANDIDATES, [&](i32 i) {
            try_positive<4>(s.free_levels[i / POSITIVE_CANDIDATES], i % POSITIVE_CANDIDATES);
        });
        team.each(GROUPS, [&](i32 g) {
            Fit &fit = s.fits[g];
            if (!fit.live) return;
            choose_positive<4>(s.free_levels[g]);
            fit.scale = s.free_levels[g].scale;
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
    static TM_MEMBER u32 sure_levels(const float (&x)[D], const Fit &fit, float inverse) {
        float worst = 0.0f;
        u32 word = 0;
        TM_UNROLL for (i32 i = 0; i < D; i++) {
            float level = lesser(greater(0.5f * (inverse * x[i] - 1.0f), 0.0f), (float)(R - 1));
            float shifted = level + 12582912.0f;
            worst = greater(worst, abs_f32(level - (shifted - 12582912.0f)));
            word += bits_of(shifted) << (BITS<D> * i);
        }
        bool keeps_order = inverse > 1e-8f && inverse < 1e29f && fit.largest * inverse < 1e6f;
        return keeps_order && worst < 0.4999f ? word & ((1u << BITS<D> * D) - 1) : DOUBTFUL;
    }

    // The point for levels, by lane `lane` of the team.
    TM_MEMBER u32 snap(const Row<D> &row, float inverse, float scale, u32 word, i32 lane) const {
        Tables tables = {job.tables};
        bool doubtful = word == DOUBTFUL;
        if (doubtful) word = any_levels(row.x, inverse);
        Place place = tables.place<D>(word);
        if (place.on()) return word;
        List list = tables.list(place, doubtful);
        if constexpr (D == 8) {
            ErrorTable errors = {&s.errors[0][lane]};
            errors.make(row.x, row.roots, scale, {1.0f, 3.0f, 5.0f});
            return nearest(list, errors);
        } else {
            Errors errors;
            TM_UNROLL for (i32 i = 0; i < 4; i++) errors.x[i] = row.x[i], errors.weights[i] = row.roots[i];
            errors.scale = scale;
            return nearest(list, errors);
        }
    }

    // Adds what a point contributes.
    static TM_MEMBER void add(Sums &sums, const Row<D> &row, u32 word) {
        TM_UNROLL for (i32 i = 0; i < D; i++) {
            float q = odd_of<D>(word, i), w = row.weights[i];
            sums.qx += w * row.x[i] * q;
            sums.q2 += w * q * q;
        }
    }

    TM_MEMBER void try_candidates() const {
        Search &search = s.search;
        Queued queued = enqueue(team, ITEMS, search.queue, [&](i32 i) -> u32 {
            i32 p = i / CANDIDATES;
            const Fit &fit = s.fits[p / PER_GROUP];
            if (!fit.live) return 0;
            u32 word = sure_levels(s.rows[p].x, fit, candidate(fit, i % CANDIDATES));
            search.words[i] = (u16)word;
            if (word == DOUBTFUL) return 2;
            Place place = Tables{job.tables}.place<D>(word);
            return place.on() ? 0 : place.fours() <= F::SHORT ? 1 : 2;
        });
        team.each(queued.count(), [&](i32 i) {
            u32 item = queued.of(search.queue, i);
            i32 p = (i32)item / CANDIDATES;
            float inverse = candidate(s.fits[p / PER_GROUP], (i32)item % CANDIDATES);
            search.words[item] = (u16)snap(s.rows[p], inverse, 1.0f / inverse, search.words[item], i % LANES);
        });
        team.each(GROUPS * CANDIDATES, [&](i32 i) {
            i32 g = i / CANDIDATES, c = i % CANDIDATES;
            if (!s.fits[g].live) return;
            Sums sums = {0.0f, 0.0f};
            TM_ROLLED for (i32 p = g * PER_GROUP; p < (g + 1) * PER_GROUP; p++) {
                add(sums, s.rows[p], search.words[p * CANDIDATES + c]);
            }
            search.sums[i] = sums;
        });
        team.each(GROUPS, [&](i32 g) {
            Fit &fit = s.fits[g];
            if (!fit.live) return;
            float scale = fit.scale, best = 0.0f;
            TM_ROLLED for (i32 c = 0; c < CANDIDATES; c++) {
                Sums sums = search.sums[g * CANDIDATES + c];
                if (sums.q2 > 0.0f && sums.qx * sums.qx > best * sums.q2) {
                    scale = sums.qx / sums.q2;
                    best = scale * sums.qx;
                    fit.best = c;
                }
            }
            fit.scale = scale;
        });
    }

    TM_MEMBER bool goes_again(i32 g) const {
        if (!s.fits[g].live || !(s.fits[g].scale > 0.0f)) return false;
        bool all_on = true;
        for (i32 p = g * PER_GROUP; p < (g + 1) * PER_GROUP; p++) all_on = all_on && s.on[p];
        return F::REFIT == ALWAYS || !all_on;
    }

    // The best candidate's points, some of which are looked up again under its scale.
    TM_MEMBER void refit() const {
        team.each(POINTS, [&](i32 p) {
            const Fit &fit = s.fits[p / PER_GROUP];
            if (!fit.live) return;
            // Without a good candidate, ggml counts untouched groups of IQ3_S as off the grid, all others as on it.
            bool on = F::REFIT != ALL_IF_ANY_OFF_GRID;
            s.points[p] = 0;
            if (fit.best >= 0) {
                s.points[p] = s.search.words[p * CANDIDATES + fit.best];
                on = Tables{job.tables}.place<D>(any_levels(s.rows[p].x, candidate(fit, fit.best))).on();
            }
            s.on[p] = on;
        });
        team.each(POINTS, [&](i32 p) {
            i32 g = p / PER_GROUP;
            if (!goes_again(g) || (F::REFIT == OFF_GRID && s.on[p])) return;
            float scale = s.fits[g].scale, inverse = 1.0f / scale;
            u32 word = sure_levels(s.rows[p].x, s.fits[g], inverse);
            s.points[p] = (u16)snap(s.rows[p], inverse, scale, word, p % LANES);
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
        try_candidates();
        refit();
    }

    // --- What was found, for who packs it ---

    TM_MEMBER bool live(i32 g) const { return s.fits[g].live; }
    // Index of a point; zero in a group that counts as zero.
    TM_MEMBER u32 index(i32 p) const {
        return live(p / PER_GROUP) ? Tables{job.tables}.place<D>(s.points[p]).index() : 0;
    }
    // Signs of eight weights.
    TM_MEMBER u32 signs(i32 e) const { return live(8 * e / N) ? s.eights[e].signs ^ s.fits[8 * e / N].turn : 0; }

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
