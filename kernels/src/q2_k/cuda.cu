// Q2_K as device code: sixteen lanes per super-block, one for each group of 16, which does what the reference does with
// that group. Scales and offsets of all groups are found by `superblock.cuh`.
#include "superblock.cuh"

constexpr i32 MAX = 3;

TM_FN void encode_block(const Team<16> &team, const Job &job, u64 block, AffineScratch<16> &s) {
    PerLane<float[16], 16> xs;
    PerLane<Affine, 16> fits;
    u64 first = block * WEIGHTS;
    u8 *out = job.out + block * 84;
    team.each(16, [&](i32 j) {
        float(&x)[16] = xs[j];
        float w[16];
        if (job.importance) {
            float sigma2 = block_sum_of_squares(job, block) / (float)WEIGHTS, importance[16];
            load(job, first + 16 * j, x);
            load_f32(importance_at(job, first) + 16 * j, importance);
            importance_weights(x, importance, sigma2, w);
            s.of[0].w[j] = s.of[1].w[j] = total(w);
            fits[j] = fit_affine<MAX, false>(x, w, WITH_IMPORTANCE);
        } else {
            load(job, first + 16 * j, x);
            TM_UNROLL for (i32 i = 0; i < 16; i++) w[i] = abs_f32(x[i]);
            fits[j] = fit_affine<MAX, true>(x, w, {-0.5f, 0.1f, 15});
        }
        check(job, first + 16 * j, x);
        s.of[0].x[j] = fits[j].scale;
        s.of[1].x[j] = fits[j].offset;
    });
    if (job.importance) {
        fit_scales<15>(team, s);
    } else {
        spread_scales<15, 255>(team, s);
    }
    // Wrapped levels spill, as in ggml.
    team.each(16, [&](i32 j) { s.packed[j] = (u8)(s.of[0].levels[j] | s.of[1].levels[j] << 4); });
    team.each(16, [&](i32 j) {
        u16 d = scale_bits(job, s.of[0].scale), dmin = scale_bits(job, s.of[1].scale);
        float scale = f16_value(d) * (float)(s.packed[j] & 15), offset = f16_value(dmin) * (float)(s.packed[j] >> 4);
        requantize_affine<MAX>(xs[j], fits[j], scale, offset, s.levels + 4 * j);
        if (j == 0) write_word(out + 80, (u32)d | (u32)dmin << 16);
        if (j < 4) write_word(out + 4 * j, word_of(s.packed + 4 * j));
    });
    team.each(16, [&](i32 k) { write_word(out + 16 + 4 * k, two_bit_word(s.levels, k)); });
}

TM_ENCODE(q2_k, 16, AffineScratch<16>, encode_block)
