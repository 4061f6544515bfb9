// IQ2 and IQ3 on a device (`magnitude.rs`): a warp per super-block.
//
// Candidates do not depend on each other, nor do the points of one. So first a lane per group and candidate finds the
// levels of all its points. Where they are no point, and the same for up to four candidates in a row, that is a piece
// of work for one lane: to find the nearest neighbour for all four. Then a lane per group and candidate adds up its
// sums in order; then a lane per group goes through its candidates. A few groups at a time, so that what is kept fits.
//
// Levels that are sure to be the nearest need the shorter lists only: `lanes.rs` says when, and why.
#pragma once
#include "grid/free_levels.cuh"
#include "grid/levels.cuh"
#include "grid/lines.cuh"
#include "grid/queue.cuh"

// Which points are looked up again under the best scale.
enum Refit { ALWAYS, OFF_GRID, ALL_IF_ANY_OFF_GRID };

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
    // Candidates of a row of words, by windows; and rows, of the groups that are searched together.
    static constexpr i32 WINDOW = 4, COLUMNS = (CANDIDATES + WINDOW - 1) / WINDOW * WINDOW;
    static constexpr i32 ROWS = F::TOGETHER * PER_GROUP, PAIRS = F::TOGETHER * COLUMNS;
    // In place of a word where there is no candidate, or none is wanted.
    static constexpr u32 UNWANTED = DOUBTFUL - 1;
    // As many words as are looked at again together, and lanes that share one.
    static constexpr i32 AGAIN = 64, SHARING = D == 8 ? 32 : 4;
    // Marks those whose levels may not be the nearest.
    static constexpr i32 WHOLE = 0x8000;

    struct Trial {
        float inverse, scale;
    };
    struct Search {
        Trial trials[PAIRS];
        alignas(8) u16 words[ROWS][COLUMNS]; // levels, then points
        union {
            Queue<ROWS * COLUMNS> queue;
            Sums sums[PAIRS];
        };
        u32 doubtful;
        u16 again[AGAIN];
        Shared nearest[AGAIN];
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

    static TM_MEMBER Errors<D> errors(const Row<D> &row, float scale) {
        Errors<D> errors;
        TM_UNROLL for (i32 i = 0; i < D; i++) errors.x[i] = row.x[i], errors.weights[i] = row.roots[i];
        errors.scale = scale;
        return errors;
    }

    // The point for levels that are none, or may not be the nearest.
    TM_MEMBER u32 snap(const Row<D> &row, const Trial &trial, u32 word) const {
        bool doubtful = word == DOUBTFUL;
        if (doubtful) word = any_levels<R>(row.x, trial.inverse);
        Place place = tables.place(word);
        return place.on() ? word : nearest(tables.list(place, doubtful), errors(row, trial.scale), ODD);
    }

    // The same for levels that are no point, under `count` of up to SCALES scales. Returns a bit for each whose point
    // is not sure.
    template <i32 SCALES>
    TM_MEMBER u32 snap_all(const Row<D> &row, const Trial *trials, i32 count, u32 word, u16 *out) const {
        float x[D], roots[D], scales[SCALES];
        TM_UNROLL for (i32 i = 0; i < D; i++) x[i] = row.x[i], roots[i] = row.roots[i];
        TM_UNROLL for (i32 j = 0; j < SCALES; j++) scales[j] = trials[j < count ? j : 0].scale;
        Nearest<D, SCALES> found(tables.list(tables.place(word), false), x, roots, scales);
        u32 unsure = 0;
        TM_UNROLL for (i32 j = 0; j < SCALES; j++) {
            if (j >= count) continue;
            if (found.sure(j, scales[j], trials[j].inverse)) {
                out[j] = (u16)found.words[j];
            } else {
                unsure |= 1u << j;
            }
        }
        return unsure;
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

    // Of the groups from `first` on.
    TM_MEMBER void try_candidates(i32 first) const {
        Search &search = s.search;
        const Row<D> *rows = s.rows + first * PER_GROUP;
        team.each(PAIRS, [&](i32 i) {
            i32 g = i / COLUMNS, c = i % COLUMNS;
            const Fit &fit = s.fits[first + g];
            bool wanted = fit.live && c < CANDIDATES;
            float inverse = candidate(fit, c);
            search.trials[i] = {inverse, 1.0f / inverse};
            TM_ROLLED for (i32 p = g * PER_GROUP; p < (g + 1) * PER_GROUP; p++) {
                u32 word = sure_levels<R>(rows[p].x, fit.largest, inverse);
                search.words[p][c] = (u16)(wanted ? word : UNWANTED);
            }
            if (i == 0) search.doubtful = 0;
        });

        // Pieces: a window, where in it they start, and how many words they have but one.
        struct Window {
            i32 number;
            u32 words[WINDOW];
        };
        enqueue<WINDOW>(
            team, ROWS * COLUMNS / WINDOW, search.queue,
            [&](i32 i) -> Window {
                const u32 *pairs = (const u32 *)&search.words[0][0] + 2 * i;
                return {i, {pairs[0] & 0xffffu, pairs[0] >> 16, pairs[1] & 0xffffu, pairs[1] >> 16}};
            },
            [&](const Window &window, i32 j) -> u32 {
                u32 word = window.words[j], entry = (u32)(window.number << 4 | j << 2);
                if (word == UNWANTED) return NOTHING_TO_DO;
                if (word == DOUBTFUL) return (KINDS - 1) << 16 | entry;
                if (j > 0 && word == window.words[j - 1]) return NOTHING_TO_DO;
                Place place = tables.place(word);
                if (place.on()) return NOTHING_TO_DO;
                bool same = true;
                TM_UNROLL for (i32 k = j + 1; k < WINDOW; k++) {
                    same = same && window.words[k] == word;
                    entry += same;
                }
                return place.kind() << 16 | entry;
            });
        team.each(search.queue.size(), [&](i32 i) {
            u32 entry = search.queue.of(i), count = (entry & 3) + 1;
            i32 item = (i32)(entry >> 2), p = item / COLUMNS, c = item % COLUMNS;
            u16 *words = search.words[p] + c;
            const Trial *trials = search.trials + p / PER_GROUP * COLUMNS + c;
            u32 unsure = words[0] == DOUBTFUL ? 1 : snap_all<WINDOW>(rows[p], trials, (i32)count, words[0], words);
            TM_ROLLED for (i32 j = 0; unsure >> j != 0; j++) {
                if ((unsure >> j & 1) == 0) continue;
                u32 number = take_number(&search.doubtful);
                if (number < AGAIN) {
                    search.again[number] = (u16)(item + j);
                } else {
                    words[j] = (u16)snap(rows[p], trials[j], words[j]);
                }
            }
        });
        i32 doubtful = min_i32((i32)search.doubtful, AGAIN);
        team.each(doubtful, [&](i32 i) {
            i32 item = search.again[i], p = item / COLUMNS, c = item % COLUMNS;
            u16 &word = search.words[p][c];
            bool whole = word == DOUBTFUL;
            if (whole) word = (u16)any_levels<R>(rows[p].x, search.trials[p / PER_GROUP * COLUMNS + c].inverse);
            Place place = tables.place(word);
            search.nearest[i].start(place.on() ? word : tables.list(place, whole).first());
            if (whole) search.again[i] |= WHOLE;
        });
        team.each(doubtful * SHARING, [&](i32 i) {
            i32 item = search.again[i / SHARING] & ~WHOLE, p = item / COLUMNS, c = item % COLUMNS;
            Place place = tables.place(search.words[p][c]);
            if (place.on()) return;
            List<D> list = tables.list(place, search.again[i / SHARING] & WHOLE);
            const Trial &trial = search.trials[p / PER_GROUP * COLUMNS + c];
            search.nearest[i / SHARING].template search<SHARING>(list, errors(rows[p], trial.scale), ODD, i % SHARING);
        });
        team.each(doubtful, [&](i32 i) {
            i32 item = search.again[i] & ~WHOLE;
            search.words[item / COLUMNS][item % COLUMNS] = (u16)search.nearest[i].word();
        });

        team.each(PAIRS, [&](i32 i) {
            i32 g = i / COLUMNS, c = i % COLUMNS;
            Sums sums = {0.0f, 0.0f};
            TM_ROLLED for (i32 p = g * PER_GROUP; p < (g + 1) * PER_GROUP; p++) add(sums, rows[p], search.words[p][c]);
            search.sums[i] = sums;
        });
        team.each(F::TOGETHER, [&](i32 g) { choose(s.fits[first + g], search.sums + g * COLUMNS); });
        team.each(ROWS, [&](i32 p) { take(first * PER_GROUP + p, search.words[p]); });
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
        if (some) s.on[p] = tables.place(any_levels<R>(s.rows[p].x, candidate(fit, fit.best))).on();
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
            u32 word = sure_levels<R>(s.rows[p].x, s.fits[g].largest, trial.inverse);
            bool off = word != DOUBTFUL && !tables.place(word).on();
            if (off && snap_all<1>(s.rows[p], &trial, 1, word, s.points + p) == 0) return;
            s.points[p] = (u16)snap(s.rows[p], trial, word);
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
