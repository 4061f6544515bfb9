// The searches of `kernels/src/search`, and how their work is divided: a search over weights belongs to one lane, which
// keeps its group in registers; a search over the scales of a super-block is divided among lanes by candidates, which do
// not depend on each other. Levels are not kept: what they were made from is, and it makes them again.
#pragma once
#include "num.cuh"

// Groups whose largest magnitude lies below this count as zero.
constexpr float ZERO_BELOW = 1e-15f;

// The value of largest magnitude with its sign, and that magnitude; the first one on a tie.
TM_FN void take_larger(float x, float &max, float &amax) {
    if (abs_f32(x) > amax) {
        amax = abs_f32(x);
        max = x;
    }
}

template <int N> TM_FN void signed_max(const float (&x)[N], float &max, float &amax) {
    max = 0.0f, amax = 0.0f;
    TM_UNROLL for (i32 i = 0; i < N; i++) take_larger(x[i], max, amax);
}

// The same of values in scratch, which need no registers.
template <int N> TM_FN void signed_max_in_scratch(const float (&x)[N], float &max, float &amax) {
    max = 0.0f, amax = 0.0f;
    TM_UNROLL_4 for (i32 i = 0; i < N; i++) take_larger(x[i], max, amax);
}

// `nearest_int` between two bounds, as a float: two additions where integers would have to be made floats again. Right
// for magnitudes below 2^21, and for NaN where `low` is zero.
TM_FN float near_level(float x, float low, float high) {
    return lesser(greater((x + 12582912.0f) - 12582912.0f, low), high);
}

// The same where `high` is out of reach.
TM_FN float near_level(float x, float low) { return greater((x + 12582912.0f) - 12582912.0f, low); }

// The same for any `x`.
TM_FN i32 any_level(float x, i32 low, i32 high) { return max_i32(min_i32(nearest_int(x), high), low); }

// The weights of errors with importance, and their sum.
TM_FN float importance_weight(float x, float importance, float sigma2) { return importance * sqrt_f32(sigma2 + x * x); }

template <int N>
TM_FN void importance_weights(const float (&x)[N], const float (&importance)[N], float sigma2, float (&w)[N]) {
    TM_UNROLL for (i32 i = 0; i < N; i++) w[i] = importance_weight(x[i], importance[i], sigma2);
}

template <int N> TM_FN float total(const float (&w)[N]) {
    float sum = 0.0f;
    TM_UNROLL for (i32 i = 0; i < N; i++) sum += w[i];
    return sum;
}

// --- search/symmetric.rs: x ~ scale * (level - HALF) -----------------------------------------------------------------

// What a search left; a group that counts as zero has levels of zero.
struct Symmetric {
    float scale, inverse;
    bool zero;
    template <int HALF> TM_MEMBER u32 level(float x) const {
        return zero ? 0 : (u32)(HALF + any_level(inverse * x, -HALF, HALF - 1));
    }
};

// Candidates in their order: the first, then steps -9 to 9 without 0.
constexpr i32 SYMMETRIC_CANDIDATES = 19;
template <int HALF> TM_FN float symmetric_candidate(i32 i, float max) {
    float step = (float)(i < 10 ? i - 10 : i - 9);
    return (i == 0 ? (float)-HALF : -((float)HALF + 0.1f * step)) / max;
}

// What decides among candidates, in their order.
struct SymmetricChoice {
    float scale, inverse, best;
    TM_MEMBER void next(i32 i, float candidate, float sum_lx, float sum_l2) {
        // The C code tests the first for non-zero, so that a NaN sum takes the division.
        bool better = i == 0 ? sum_l2 != 0.0f : sum_l2 > 0.0f && sum_lx * sum_lx > best * sum_l2;
        if (i == 0) inverse = candidate, scale = 0.0f, best = 0.0f * sum_lx;
        if (better) {
            inverse = candidate;
            scale = sum_lx / sum_l2;
            best = scale * sum_lx;
        }
    }
};

// By one lane. x is finite, so that no candidate takes it beyond HALF + 1.
template <int HALF, int N> TM_FN Symmetric fit_symmetric(const float (&x)[N], const float (&w)[N]) {
    float max, amax;
    signed_max(x, max, amax);
    if (amax < ZERO_BELOW) return {0.0f, 0.0f, true};
    float wx[N];
    TM_UNROLL for (i32 i = 0; i < N; i++) wx[i] = w[i] * x[i];
    SymmetricChoice choice = {};
    TM_ROLLED for (i32 c = 0; c < SYMMETRIC_CANDIDATES; c++) {
        float inverse = symmetric_candidate<HALF>(c, max), sum_lx = 0.0f, sum_l2 = 0.0f;
        TM_UNROLL for (i32 i = 0; i < N; i++) {
            float l = near_level(inverse * x[i], (float)-HALF, (float)(HALF - 1));
            sum_lx += wx[i] * l;
            sum_l2 += w[i] * l * l;
        }
        choice.next(c, inverse, sum_lx, sum_l2);
    }
    return {choice.scale, choice.inverse, false};
}

// By the lanes of a team, one candidate each.
template <int N> struct SymmetricScratch {
    float x[N], w[N];
    float sum_lx[SYMMETRIC_CANDIDATES], sum_l2[SYMMETRIC_CANDIDATES];
};

// FINITE says that x is, as above.
template <int HALF, bool FINITE, int N> TM_FN void try_symmetric(SymmetricScratch<N> &s, i32 candidate) {
    float max, amax;
    signed_max_in_scratch(s.x, max, amax);
    float inverse = symmetric_candidate<HALF>(candidate, max), sum_lx = 0.0f, sum_l2 = 0.0f;
    TM_UNROLL_4 for (i32 i = 0; i < N; i++) {
        float x = s.x[i], w = s.w[i];
        float l = FINITE ? near_level(inverse * x, (float)-HALF, (float)(HALF - 1))
                         : (float)any_level(inverse * x, -HALF, HALF - 1);
        sum_lx += w * x * l;
        sum_l2 += w * l * l;
    }
    s.sum_lx[candidate] = sum_lx;
    s.sum_l2[candidate] = sum_l2;
}

template <int HALF, int N> TM_FN Symmetric choose_symmetric(const SymmetricScratch<N> &s) {
    float max, amax;
    signed_max_in_scratch(s.x, max, amax);
    if (amax < ZERO_BELOW) return {0.0f, 0.0f, true};
    SymmetricChoice choice = {};
    TM_ROLLED for (i32 c = 0; c < SYMMETRIC_CANDIDATES; c++) {
        choice.next(c, symmetric_candidate<HALF>(c, max), s.sum_lx[c], s.sum_l2[c]);
    }
    return {choice.scale, choice.inverse, false};
}

// --- search/affine.rs: x ~ scale * level - offset ----------------------------------------------------------------------

// What a search left; the levels are those of `inverse` and `min`.
struct Affine {
    float scale, offset, inverse, min;
    template <int MAX> TM_MEMBER u32 level(float x) const { return (u32)any_level(inverse * (x - min), 0, MAX); }
};

// The level ranges to try: MAX + first + step * i for i in 0..=last.
struct Candidates {
    float first, step;
    i32 last;
};
constexpr Candidates WITH_IMPORTANCE = {-0.9f, 0.05f, 36};

template <bool ABSOLUTE, int N>
TM_FN float affine_error(const float (&x)[N], const float (&w)[N], const float (&l)[N], float scale, float min) {
    float sum = 0.0f;
    TM_UNROLL for (i32 i = 0; i < N; i++) {
        float diff = scale * l[i] + min - x[i];
        sum += w[i] * (ABSOLUTE ? abs_f32(diff) : diff * diff);
    }
    return sum;
}

// By one lane: an accepted candidate moves `min` for all later ones. ABSOLUTE: errors count by magnitude, else squared.
template <int MAX, bool ABSOLUTE, int N>
TM_FN Affine fit_affine(const float (&x)[N], const float (&w)[N], Candidates candidates) {
    float low = x[0], max = x[0], sum_w = w[0], sum_x = sum_w * x[0];
    TM_UNROLL for (i32 i = 1; i < N; i++) {
        if (x[i] < low) low = x[i];
        if (x[i] > max) max = x[i];
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    float min = low > 0.0f ? 0.0f : low;
    if (max <= min) return {0.0f, -min, 0.0f, 0.0f};

    float l[N];
    Affine fit = {};
    float best = 0.0f;
    // The first fit is candidate -1.
    TM_ROLLED for (i32 c = -1; c <= candidates.last; c++) {
        float range = c < 0 ? (float)MAX : candidates.first + candidates.step * (float)c + (float)MAX;
        float inverse = range / (max - min);
        // Levels grow or fall with x, so those of the extremes bound all.
        float of_low = inverse * (low - min), of_max = inverse * (max - min);
        bool near = abs_f32(of_low) < 2097152.0f && abs_f32(of_max) < 2097152.0f;
        if (near && greater(of_low, of_max) < (float)MAX + 0.25f) {
            TM_UNROLL for (i32 i = 0; i < N; i++) l[i] = near_level(inverse * (x[i] - min), 0.0f);
        } else if (near) {
            TM_UNROLL for (i32 i = 0; i < N; i++) l[i] = near_level(inverse * (x[i] - min), 0.0f, (float)MAX);
        } else {
            TM_UNROLL for (i32 i = 0; i < N; i++) l[i] = (float)any_level(inverse * (x[i] - min), 0, MAX);
        }
        float trial_scale, trial_min;
        if (c < 0) {
            trial_scale = 1.0f / inverse;
            trial_min = min;
        } else {
            float sum_l = 0.0f, sum_l2 = 0.0f, sum_xl = 0.0f;
            TM_UNROLL for (i32 i = 0; i < N; i++) {
                float wl = w[i] * l[i];
                sum_l += wl;
                sum_l2 += wl * l[i];
                sum_xl += wl * x[i];
            }
            float determinant = sum_w * sum_l2 - sum_l * sum_l;
            if (!(determinant > 0.0f)) continue;
            trial_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            trial_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if (trial_min > 0.0f) {
                trial_min = 0.0f;
                trial_scale = sum_xl / sum_l2;
            }
        }
        float error = affine_error<ABSOLUTE>(x, w, l, trial_scale, trial_min);
        if (c < 0 || error < best) {
            best = error;
            fit = {trial_scale, 0.0f, inverse, min};
            min = trial_min;
        }
    }
    fit.offset = -min;
    return fit;
}

// --- search/descent.rs: x ~ scale * (level - HALF), by descent ---------------------------------------------------------

// By one lane; leaves the signed levels, too.
template <int HALF, int N> TM_FN float fit_by_descent(const float (&x)[N], float (&l)[N], bool &zero) {
    float max, amax;
    signed_max(x, max, amax);
    zero = amax < ZERO_BELOW;
    if (zero) return 0.0f;
    float inverse = (float)-HALF / max, sum_lx = 0.0f, sum_l2 = 0.0f;
    TM_UNROLL for (i32 i = 0; i < N; i++) {
        float w = x[i] * x[i];
        l[i] = near_level(inverse * x[i], (float)-HALF, (float)(HALF - 1));
        sum_lx += w * x[i] * l[i];
        sum_l2 += w * l[i] * l[i];
    }
    TM_ROLLED for (i32 pass = 0; pass < 5; pass++) {
        bool changed = false;
        TM_UNROLL for (i32 i = 0; i < N; i++) {
            float w = x[i] * x[i], rest_lx = sum_lx - w * x[i] * l[i];
            if (rest_lx > 0.0f) {
                float rest_l2 = sum_l2 - w * l[i] * l[i];
                float next = (float)any_level(x[i] * rest_l2 / rest_lx, -HALF, HALF - 1);
                if (next != l[i]) {
                    rest_lx += w * x[i] * next;
                    rest_l2 += w * next * next;
                    if (rest_l2 > 0.0f && rest_lx * rest_lx * sum_l2 > sum_lx * sum_lx * rest_l2) {
                        l[i] = next;
                        sum_lx = rest_lx;
                        sum_l2 = rest_l2;
                        changed = true;
                    }
                }
            }
        }
        if (!changed) break;
    }
    return sum_l2 > 0.0f ? sum_lx / sum_l2 : 0.0f;
}

// --- search/positive.rs: x ~ scale * level, for the scales and offsets of a super-block --------------------------------

// By the lanes of a team: one candidate each, then one lane for what depends on all.
constexpr i32 POSITIVE_CANDIDATES = 9;
template <int N> struct PositiveScratch {
    float x[N], w[N], errors[POSITIVE_CANDIDATES], scale;
    u8 levels[N];
};

// Candidates in their order: the first, then steps -4 to 4 without 0.
template <int MAX> TM_FN float positive_candidate(i32 i, float max) {
    float step = (float)(i < 5 ? i - 5 : i - 4);
    return (i == 0 ? (float)MAX : 0.1f * step + (float)MAX) / max;
}

template <int N> TM_FN float positive_max(const PositiveScratch<N> &s) {
    float max = 0.0f;
    TM_UNROLL for (i32 i = 0; i < N; i++) max = c_max(max, s.x[i]);
    return max;
}

template <int MAX, int N> TM_FN void try_positive(PositiveScratch<N> &s, i32 candidate) {
    float inverse = positive_candidate<MAX>(candidate, positive_max(s)), scale = 1.0f / inverse, sum = 0.0f;
    TM_UNROLL for (i32 i = 0; i < N; i++) {
        i32 level = nearest_int(inverse * s.x[i]);
        // The first wraps what is negative, later ones only bound it.
        level = candidate == 0 ? (u8)level : min_i32(level, MAX);
        float diff = s.x[i] - scale * (float)level;
        sum += s.w[i] * diff * diff;
    }
    s.errors[candidate] = sum;
}

// What a scale is fitted from.
struct LevelSums {
    float lx, l2;
    TM_MEMBER float scale() const { return l2 > 0.0f ? lx / l2 : 0.0f; }
};

// Levels of the best candidate, and their sums; zero if all values count as zero.
template <int MAX, int N> TM_FN LevelSums take_best_positive(PositiveScratch<N> &s) {
    LevelSums sums = {0.0f, 0.0f};
    float max = positive_max(s);
    bool zero = max < ZERO_BELOW;
    float inverse = positive_candidate<MAX>(0, max), best = s.errors[0];
    TM_ROLLED for (i32 c = 1; c < POSITIVE_CANDIDATES; c++) {
        if (s.errors[c] < best) {
            best = s.errors[c];
            inverse = positive_candidate<MAX>(c, max);
        }
    }
    TM_ROLLED for (i32 i = 0; i < N; i++) {
        i32 level = zero ? 0 : min_i32(nearest_int(inverse * s.x[i]), MAX);
        s.levels[i] = (u8)level;
        float w = s.w[i], l = (float)level;
        if (zero) continue;
        sums.lx += w * s.x[i] * l;
        sums.l2 += w * l * l;
    }
    return sums;
}

constexpr i32 POSITIVE_PASSES = 5;

// Whether value `i` is better off at another level, given what the others have; then `sums` are as with that.
template <int MAX, int N> TM_FN bool better_level(const PositiveScratch<N> &s, i32 i, LevelSums &sums, i32 &next) {
    float x = s.x[i], w = s.w[i], l = (float)s.levels[i];
    LevelSums rest = {sums.lx - w * x * l, sums.l2 - w * l * l};
    if (!(rest.lx > 0.0f && rest.l2 > 0.0f)) return false;
    next = min_i32(nearest_int(x * rest.l2 / rest.lx), MAX);
    if (next == (i32)s.levels[i]) return false;
    l = (float)next;
    rest.lx += w * x * l;
    rest.l2 += w * l * l;
    if (!(rest.lx * rest.lx * sums.l2 > sums.lx * sums.lx * rest.l2)) return false;
    sums = rest;
    return true;
}

template <int MAX, int N> TM_FN void choose_positive(PositiveScratch<N> &s) {
    LevelSums sums = take_best_positive<MAX>(s);
    bool changed = true;
    TM_ROLLED for (i32 pass = 0; changed && pass < POSITIVE_PASSES; pass++) {
        changed = false;
        TM_ROLLED for (i32 i = 0; i < N; i++) {
            i32 next;
            if (!better_level<MAX>(s, i, sums, next)) continue;
            s.levels[i] = (u8)next;
            changed = true;
        }
    }
    s.scale = sums.scale();
}
