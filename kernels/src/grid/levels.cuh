// Magnitudes of IQ2 and IQ3, and their levels under a scale: level l stands for 2 l + 1.
#pragma once
#include "grid/lattice.cuh"

// D weights: magnitudes, with the exception of `split_even_signs`; their errors' weights, and the roots of those. Eight
// lanes that read eight rows one after the other share no bank.
template <i32 D> struct alignas(16) Row {
    float x[D], roots[D], weights[D], unused[4];
};
template <> struct alignas(16) Row<4> {
    float x[4], roots[4], weights[4];
};

// Magnitudes that lie beyond what keeps errors in order.
constexpr float BEYOND = 3e38f;

// In place of a word whose levels may not be the nearest.
constexpr u32 DOUBTFUL = 0xffff;

// Levels, below R, as a word.
template <i32 R, i32 D> TM_FN u32 any_levels(const float (&x)[D], float inverse) {
    u32 word = 0;
    TM_UNROLL for (i32 i = 0; i < D; i++) {
        i32 level = max_i32(min_i32(nearest_int(0.5f * (inverse * x[i] - 1.0f)), R - 1), 0);
        word |= (u32)level << (BITS<D> * i);
    }
    return word;
}

// The same, unless rounding might make another level's error less, or errors lose their order: magnitudes go up to
// `largest`.
template <i32 R, i32 D> TM_FN u32 sure_levels(const float (&x)[D], float largest, float inverse) {
    float worst = 0.0f;
    u32 word = 0;
    TM_UNROLL for (i32 i = 0; i < D; i++) {
        float level = lesser(greater(0.5f * (inverse * x[i] - 1.0f), 0.0f), (float)(R - 1));
        float shifted = level + 12582912.0f;
        worst = greater(worst, abs_f32(level - (shifted - 12582912.0f)));
        // What is above the last bits leaves the word.
        word += bits_of(shifted) << (BITS<D> * i);
    }
    bool keeps_order = inverse > 1e-8f && inverse < 1e29f && largest * inverse < 1e6f;
    return keeps_order && worst < 0.4999f ? word & 0xffffu : DOUBTFUL;
}
