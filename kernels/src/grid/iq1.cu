// IQ1_S and IQ1_M as device code (`iq1.rs`): one lane per group sorts it and goes through its splits in order; then all
// lanes of the super-block share the neighbours of each point, the least of which, and first in the list, is the same
// whoever finds it.
#include "grid/lattice.cuh"

// What the levels 0, 1 and 2 stand for when shifted up, and when shifted down.
constexpr float VALUES[2][3] = {{-0.875f, 0.125f, 1.125f}, {-1.125f, -0.125f, 0.875f}};

// The same for words.
TM_FN Values values(u32 down) {
    return {{down ? 0x003fbebfu : 0x003f3ebfu, 0}, {down ? 0x00600090u : 0x00900060u, 0}};
}

// The best split so far.
struct Split {
    float scale, score;
    i32 starts[2]; // where the second and third run start, in ascending order
    u32 down;      // bit h: whether half h of the group is shifted down

    TM_MEMBER bool better(float sum_qx, float sum_q2) const {
        return sum_q2 > 0.0f && sum_qx * sum_qx > score * sum_q2;
    }
    TM_MEMBER void consider(float sum_qx, float sum_q2, i32 i1, i32 i2, u32 shifts) {
        if (!better(sum_qx, sum_q2)) return;
        scale = sum_qx / sum_q2;
        score = scale * sum_qx;
        starts[0] = i1, starts[1] = i2;
        down = shifts;
    }
};

constexpr i32 NO_START = 64;
TM_FN Split no_split() { return {0.0f, -3.40282347e38f, {NO_START, NO_START}, 0}; }

// A group's sums over its first weights in ascending order, in a column per lane. HALVES: apart for each half.
template <i32 N, i32 HALVES> struct Prefixes {
    float x[HALVES][N + 1][WEIGHTS / N], w[HALVES][N + 1][WEIGHTS / N];
};

// The best split with one shift for the whole group.
TM_FN Split best_split(const Prefixes<32, 1> &sums, i32 lane) {
    Split best = no_split();
    float x_all = sums.x[0][32][lane], w_all = sums.w[0][32][lane];
    TM_ROLLED for (i32 i1 = 0; i1 <= 32; i1++) {
        float x1 = sums.x[0][i1][lane], w1 = sums.w[0][i1][lane];
        TM_ROLLED for (i32 i2 = i1; i2 <= 32; i2++) {
            float x2 = sums.x[0][i2][lane], w2 = sums.w[0][i2][lane];
            float qx[2], q2[2];
            TM_UNROLL for (i32 d = 0; d < 2; d++) {
                float low = VALUES[d][0], middle = VALUES[d][1], high = VALUES[d][2];
                qx[d] = x1 * low + (x2 - x1) * middle + (x_all - x2) * high;
                q2[d] = w1 * low * low + (w2 - w1) * middle * middle + (w_all - w2) * high * high;
            }
            if (!best.better(qx[0], q2[0]) && !best.better(qx[1], q2[1])) continue;
            TM_UNROLL for (u32 d = 0; d < 2; d++) best.consider(qx[d], q2[d], i1, i2, 3 * d);
        }
    }
    return best;
}

// The best split with a shift for each half.
TM_FN Split best_split(const Prefixes<16, 2> &sums, i32 lane) {
    Split best = no_split();
    TM_ROLLED for (i32 i1 = 0; i1 <= 16; i1++) {
        TM_ROLLED for (i32 i2 = i1; i2 <= 16; i2++) {
            float qx[2][2], q2[2][2];
            TM_UNROLL for (i32 h = 0; h < 2; h++) {
                float x = sums.x[h][16][lane], w = sums.w[h][16][lane];
                float both = sums.x[h][i1][lane] + sums.x[h][i2][lane];
                float w1 = sums.w[h][i1][lane], w2 = sums.w[h][i2][lane];
                TM_UNROLL for (i32 d = 0; d < 2; d++) {
                    float low = VALUES[d][0], middle = VALUES[d][1], high = VALUES[d][2];
                    qx[h][d] = x * high - both;
                    q2[h][d] = w * high * high + w1 * (low * low - middle * middle) +
                               w2 * (middle * middle - high * high);
                }
            }
            bool any = false;
            TM_UNROLL for (i32 k = 0; k < 4; k++) {
                any = any || best.better(qx[0][k / 2] + qx[1][k % 2], q2[0][k / 2] + q2[1][k % 2]);
            }
            if (!any) continue;
            TM_UNROLL for (u32 k = 0; k < 4; k++) {
                best.consider(qx[0][k / 2] + qx[1][k % 2], q2[0][k / 2] + q2[1][k % 2], i1, i2, k / 2 | k % 2 << 1);
            }
        }
    }
    return best;
}

// HALVES: with a shift of their own.
template <i32 N, i32 HALVES> struct Fits {
    static constexpr i32 LANES = WEIGHTS / N, POINTS = N / 8;

    struct Kept {
        union {
            Prefixes<N, HALVES> sums;
            struct {
                float x[LANES][N + 1], w[LANES][N + 1];
            } rows;
        };
        Shared nearest[WEIGHTS / 8];
        u16 words[WEIGHTS / 8];
        float scales[LANES], totals[2];
        u32 down[LANES];
    };
    // The size keeps the banks of a warp's teams apart.
    struct Scratch : Kept {
        u32 unused[(LANES + 32 - sizeof(Kept) / 4 % 32) % 32];
    };

    const Team<LANES, true> &team;
    const Job &job;
    u64 block;
    Scratch &s;
    Tables<8> tables;

    TM_MEMBER u64 first(i32 g) const { return block * WEIGHTS + (u64)(N * g); }

    // Twice the mean square, which goes with importance.
    TM_MEMBER float mean_square() const {
        return job.importance ? 2.0f * block_sum_of_squares(job, block) / (float)WEIGHTS : 0.0f;
    }

    // The weights of the errors of eight weights.
    TM_MEMBER void weigh(u64 first, const float *x, float sigma2, float (&w)[8]) const {
        if (job.importance) {
            float importance[8];
            load_f32(importance_at(job, first), importance);
            TM_UNROLL for (i32 i = 0; i < 8; i++) w[i] = importance_weight(x[i], importance[i], sigma2);
        } else {
            TM_UNROLL for (i32 i = 0; i < 8; i++) w[i] = x[i] * x[i];
        }
    }

    // Levels of a group's best split; zero, without a scale, if it counts as zero or no split is any good.
    TM_MEMBER void split(i32 g, float sigma2, float zero_below) const {
        float x[N], max;
        load(job, first(g), x);
        check(job, first(g), x);
        max = abs_f32(x[0]);
        TM_UNROLL for (i32 i = 1; i < N; i++) max = c_max(max, abs_f32(x[i]));

        // How many weights come before each one in ascending order, four to a word. Equal ones keep their order.
        u32 ranks[N / 4] = {};
        TM_UNROLL for (i32 j = 0; j < N; j++) {
            float rank = (float)j;
            TM_UNROLL for (i32 i = 0; i < N; i++) {
                if (i < j) rank -= x[j] < x[i] ? 1.0f : 0.0f;
                if (i > j) rank += x[i] < x[j] ? 1.0f : 0.0f;
            }
            ranks[j / 4] |= (u32)rank << (8 * (j % 4));
        }
        TM_UNROLL for (i32 k = 0; k < POINTS; k++) {
            float w[8];
            weigh(first(g) + (u64)(8 * k), x + 8 * k, sigma2, w);
            TM_UNROLL for (i32 i = 8 * k; i < 8 * k + 8; i++) {
                i32 rank = (i32)(ranks[i / 4] >> (8 * (i % 4)) & 255);
                // Zero changes no sum: none is a negative zero.
                TM_UNROLL for (i32 h = 0; h < HALVES; h++) {
                    bool here = i * HALVES / N == h;
                    s.sums.x[h][rank + 1][g] = here ? w[i % 8] * x[i] : 0.0f;
                    s.sums.w[h][rank + 1][g] = here ? w[i % 8] : 0.0f;
                }
            }
        }
        TM_UNROLL for (i32 h = 0; h < HALVES; h++) {
            float sum_x = s.sums.x[h][0][g] = 0.0f, sum_w = s.sums.w[h][0][g] = 0.0f;
            TM_ROLLED for (i32 i = 1; i <= N; i++) {
                sum_x = s.sums.x[h][i][g] = sum_x + s.sums.x[h][i][g];
                sum_w = s.sums.w[h][i][g] = sum_w + s.sums.w[h][i][g];
            }
        }

        Split best = max < zero_below ? no_split() : best_split(s.sums, g);
        // A negative scale turns levels and shifts around.
        bool none = best.starts[0] == NO_START, turn = best.scale < 0.0f;
        s.scales[g] = turn ? -best.scale : best.scale;
        s.down[g] = turn ? best.down ^ 3 : best.down;
        TM_UNROLL for (i32 k = 0; k < POINTS; k++) {
            u32 word = 0;
            TM_UNROLL for (i32 i = 8 * k; i < 8 * k + 8; i++) {
                i32 rank = (i32)(ranks[i / 4] >> (8 * (i % 4)) & 255);
                u32 level = (rank >= best.starts[0] ? 1u : 0u) + (rank >= best.starts[1] ? 1u : 0u);
                word |= level << (2 * (i % 8));
            }
            if (turn) word = 0xaaaau - word;
            s.words[POINTS * g + k] = (u16)(none ? 0 : word);
        }
    }

    TM_MEMBER u32 down(i32 point) const { return s.down[point / POINTS] >> (point % POINTS * 2 / POINTS) & 1; }

    // A lane's share of the neighbours of a point.
    TM_MEMBER void search(i32 point, i32 lane) const {
        Place place = tables.place(s.words[point]);
        if (place.on()) return;
        i32 g = point / POINTS, at = point % POINTS * 8;
        Errors<8> errors;
        TM_UNROLL for (i32 i = 0; i < 8; i++) {
            errors.x[i] = s.rows.x[g][at + i];
            errors.weights[i] = s.rows.w[g][at + i];
        }
        errors.scale = s.scales[g];
        s.nearest[point].template search<LANES>(tables.list(place, true), errors, values(down(point)), lane);
    }

    // The points of all groups, and the scales that go with them.
    TM_MEMBER void fit(float zero_below) const {
        PerLane<float, LANES> sigma2;
        team.each(LANES, [&](i32 g) {
            sigma2[g] = mean_square();
            split(g, sigma2[g], zero_below);
        });
        team.each(LANES, [&](i32 g) {
            TM_ROLLED for (i32 p = POINTS * g; p < POINTS * (g + 1); p++) {
                float x[8], w[8];
                i32 at = p % POINTS * 8;
                load(job, first(g) + (u64)at, x);
                weigh(first(g) + (u64)at, x, sigma2[g], w);
                TM_UNROLL for (i32 i = 0; i < 8; i++) s.rows.x[g][at + i] = x[i], s.rows.w[g][at + i] = w[i];
                Place place = tables.place(s.words[p]);
                s.nearest[p].start(place.on() ? s.words[p] : tables.list(place, true).first());
            }
        });
        team.each(LANES * WEIGHTS / 8, [&](i32 i) { search(i / LANES, i % LANES); });
        team.each(LANES, [&](i32 g) {
            bool all_on = true;
            float sum_qx = 0.0f, sum_q2 = 0.0f;
            for (i32 p = POINTS * g; p < POINTS * (g + 1); p++) {
                u32 word = s.nearest[p].word();
                all_on = all_on && s.words[p] == word;
                s.words[p] = (u16)word;
                float q[8];
                values(down(p)).of_word(word, q);
                TM_UNROLL for (i32 i = 0; i < 8; i++) {
                    i32 at = p % POINTS * 8 + i;
                    float wq = s.rows.w[g][at] * q[i];
                    sum_qx += wq * s.rows.x[g][at];
                    sum_q2 += wq * q[i];
                }
            }
            float scale = s.scales[g];
            if (!all_on && sum_qx > 0.0f && sum_q2 > 0.0f) scale = sum_qx / sum_q2;
            s.scales[g] = scale != scale ? 0.0f : scale;
        });
    }

    TM_MEMBER u32 index(i32 point) const { return tables.place(s.words[point]).index(); }

    // The largest scale; zero if all vanish.
    TM_MEMBER float largest() const {
        float max = 0.0f;
        TM_UNROLL for (i32 g = 0; g < LANES; g++) max = c_max(max, s.scales[g]);
        return max;
    }
    // The 3-bit level of a scale: level l stands for 2 l + 1 parts of fifteen of the largest.
    TM_MEMBER u32 level(i32 g, float d) const {
        float inverse = 1.0f / d;
        return (u32)clamp_i32(nearest_int(0.5f * (inverse * s.scales[g] - 1.0f)), 0, 7);
    }
};

using FitsS = Fits<32, 1>;
TM_FN void encode_s(Team<8, true> team, const Job &job, u64 block, FitsS::Scratch &s) {
    FitsS fits = {team, job, block, s, Tables<8>(job)};
    fits.fit(1e-12f);
    u8 *out = job.out + block * 50;
    team.each(8, [&](i32 j) {
        float max = fits.largest(), d = max / 15.0f;
        bool any = max != 0.0f;
        u32 low = 0, high = any ? fits.level(j, d) << 12 | fits.down(4 * j) << 15 : 0;
        TM_UNROLL for (i32 k = 0; k < 4; k++) {
            u32 index = fits.index(4 * j + k);
            low |= (index & 255) << (8 * k);
            high |= index >> 8 << (3 * k);
        }
        if (j == 0) write_f16(out, any ? f16_bits(d * 1.125f) : 0);
        write_u32(out + 2 + 4 * j, low);
        write_f16(out + 34 + 2 * j, (u16)high);
    });
}

TM_ENCODE_TOGETHER(iq1_s, 8, FitsS::Scratch, encode_s)

using FitsM = Fits<16, 2>;
TM_FN void encode_m(Team<16, true> team, const Job &job, u64 block, FitsM::Scratch &s) {
    FitsM fits = {team, job, block, s, Tables<8>(job)};
    fits.fit(1e-7f);
    u8 *out = job.out + block * 56;
    // What each weight adds to the two sums that the scale is fitted from again, in its place.
    team.each(16, [&](i32 j) {
        float parts = (float)(2 * fits.level(j, fits.largest() / 15.0f) + 1);
        TM_UNROLL for (i32 k = 0; k < 2; k++) {
            float shifted[8];
            values(fits.down(2 * j + k)).of_word(s.words[2 * j + k], shifted);
            TM_UNROLL for (i32 i = 0; i < 8; i++) {
                float &x = s.rows.x[j][8 * k + i], &w = s.rows.w[j][8 * k + i];
                float q = shifted[i] * parts, wq = w * q;
                x = wq * x;
                w = wq * q;
            }
        }
    });
    team.each(2, [&](i32 which) {
        float sum = 0.0f;
        TM_ROLLED for (i32 j = 0; j < 16; j++) {
            TM_UNROLL for (i32 i = 0; i < 16; i++) sum += which ? s.rows.w[j][i] : s.rows.x[j][i];
        }
        s.totals[which] = sum;
    });
    team.each(16, [&](i32 j) {
        float max = fits.largest(), d = max / 15.0f;
        bool any = max != 0.0f;
        u32 first = fits.index(2 * j), second = fits.index(2 * j + 1), high = first >> 8 | second >> 8 << 4;
        if (any) high |= fits.down(2 * j) << 3 | fits.down(2 * j + 1) << 7;
        write_f16(out + 2 * j, (u16)((first & 255) | second << 8));
        out[32 + j] = (u8)high;
        if (j >= 4) return;
        u32 word = 0;
        if (any) {
            // The binary16 scale is spread over the top nibbles of the four words.
            float scale = s.totals[1] > 0.0f ? s.totals[0] / s.totals[1] : d;
            word = (u32)scale_bits(job, scale * 1.1125f) >> (4 * j) << 12;
            TM_UNROLL for (i32 k = 0; k < 4; k++) word |= fits.level(4 * j + k, d) << (3 * k);
        }
        write_f16(out + 48 + 2 * j, (u16)word);
    });
}

TM_ENCODE_TOGETHER(iq1_m, 16, FitsM::Scratch, encode_m)
