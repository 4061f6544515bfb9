// The nearest neighbour of a point under several scales at once, nearly always without its errors.
//
// Under scale s, a neighbour q of weights x has the error s (s A - 2 B) + C, with A = sum r q q, B = sum r x q and
// C = sum r x x, where r weighs errors: A and B serve all scales, and s A - 2 B is least where the error is.
//
// Both the error that the reference adds up and s A - 2 B as it is added up here are rounded. Let u = 2^-24 and
// M = s A + C / s. An error is less than 2 s M. Each difference d = s q - x is wrong by u s q and more by u d, which
// makes an error wrong by less than u s M and 4 u of it; products and sums add up to 9 u of it. So an error
// divided by s is wrong by less than 27 u M; and s A - 2 B, counted alike, by less than 30 u M. Two neighbours whose
// s A - 2 B lie 2^-17 M apart have their errors in the same order. Twice that is asked for, with the A of the highest
// levels for all. Where less lies between the first two, or M or s M is so small that numbers without an exponent might
// count, who asks has to look at errors.
//
// Weights of errors must not be negative, and nothing may overflow.
#pragma once
#include "grid/lattice.cuh"

// a * b + c, rounded once or twice.
TM_FN float roughly(float a, float b, float c) {
#ifdef __CUDACC__
    return __fmaf_rn(a, b, c);
#else
    return a * b + c;
#endif
}

template <i32 D, i32 SCALES> struct Nearest {
    u32 words[SCALES];
    float least[SCALES], second[SCALES];
    float a, c; // A of the highest levels, and C

    TM_MEMBER Nearest(const List<D> &list, const float (&x)[D], const float (&r)[D], const float (&scales)[SCALES]) {
        constexpr float HIGHEST = D == 8 ? 5 : 15;
        float infinity = from_bits(0x7f800000u), rx[D];
        TM_UNROLL for (i32 j = 0; j < SCALES; j++) words[j] = 0, least[j] = second[j] = infinity;
        a = c = 0.0f;
        TM_UNROLL for (i32 i = 0; i < D; i++) {
            rx[i] = r[i] * x[i];
            a = roughly(r[i], HIGHEST * HIGHEST, a);
            c = roughly(rx[i], x[i], c);
        }
        list.each([&](u32 word, bool counts) {
            float q[D], qq = 0.0f, xq = 0.0f;
            ODD.of_word(word, q);
            TM_UNROLL for (i32 i = 0; i < D; i++) {
                qq = roughly(r[i] * q[i], q[i], qq);
                xq = roughly(rx[i], q[i], xq);
            }
            // What fills a list up is no neighbour.
            if (!counts) qq = infinity;
            TM_UNROLL for (i32 j = 0; j < SCALES; j++) {
                float line = roughly(scales[j], qq, -2.0f * xq);
                second[j] = lesser(second[j], greater(least[j], line));
                if (line < least[j]) words[j] = word;
                least[j] = lesser(least[j], line);
            }
        });
    }

    // Whether word `j` is the one whose error is least, of a scale and its inverse.
    TM_MEMBER bool sure(i32 j, float scale, float inverse) const {
        float m = scale * a + c * inverse;
        return m > 1e-36f && m * scale > 1e-36f && second[j] - least[j] > m * (1.0f / 65536.0f);
    }
};
