// Q3_K as device code: sixteen lanes per super-block, one for each group of 16, which does what the reference does with
// that group. With importance, lanes share the candidates for the scale of the scales; without, each chooses it.
#include "superblock.cuh"

constexpr i32 HALF = 4;

struct Scratch {
    SymmetricScratch<16> scales;
    u32 levels[WEIGHTS / 4];
    // Biased by 32.
    u8 scale_levels[16];
};

TM_FN void encode_block(const Team<16> &team, const Job &job, u64 block, Scratch &s) {
    PerLane<float[16], 16> xs;
    PerLane<float, 16> d;
    u64 first = block * WEIGHTS;
    u8 *out = job.out + block * 110;
    team.each(16, [&](i32 j) {
        float(&x)[16] = xs[j];
        u32 *levels = s.levels + 4 * j;
        if (job.importance) {
            float sigma2 = 2.0f * block_sum_of_squares(job, block) / (float)WEIGHTS, w[16], importance[16];
            load(job, first + 16 * j, x);
            load_f32(importance_at(job, first) + 16 * j, importance);
            importance_weights(x, importance, sigma2, w);
            s.scales.w[j] = total(w);
            Symmetric fit = fit_symmetric<HALF>(x, w);
            s.scales.x[j] = fit.scale;
            write_levels<16>(levels, [&](i32 i) { return fit.template level<HALF>(x[i]); });
        } else {
            load(job, first + 16 * j, x);
            float l[16];
            bool zero;
            s.scales.x[j] = fit_by_descent<HALF>(x, l, zero);
            write_levels<16>(levels, [&](i32 i) { return zero ? 0 : (u32)(HALF + (i32)l[i]); });
        }
        check(job, first + 16 * j, x);
    });
    if (job.importance) {
        team.each(SYMMETRIC_CANDIDATES, [&](i32 c) { try_symmetric<32, false>(s.scales, c); });
        team.each(16, [&](i32 j) {
            Symmetric fit = choose_symmetric<32>(s.scales);
            d[j] = fit.scale;
            s.scale_levels[j] = (u8)fit.template level<32>(s.scales.x[j]);
        });
    } else {
        team.each(16, [&](i32 j) {
            float max, amax;
            signed_max(s.scales.x, max, amax);
            // Stored zeros mean scale -32, which the zero `d` makes harmless.
            d[j] = 0.0f;
            s.scale_levels[j] = 0;
            if (max != 0.0f) {
                float inverse = -32.0f / max;
                d[j] = 1.0f / inverse;
                // ggml cuts to eight bits before it clamps.
                s.scale_levels[j] = (u8)(clamp_i32((i8)nearest_int(inverse * s.scales.x[j]), -32, 31) + 32);
            }
        });
    }
    team.each(16, [&](i32 j) {
        u16 bits = scale_bits(job, d[j]);
        float scale = f16_value(bits) * (float)(s.scale_levels[j] - 32);
        requantize_symmetric<HALF>(xs[j], scale, s.levels + 4 * j);
        if (j == 0) write_f16(out + 108, bits);
    });
    // The third bits: bit j of byte l is that of weight l of the j-th 32.
    team.each(8, [&](i32 k) {
        u32 word = 0;
        TM_UNROLL for (i32 j = 0; j < 8; j++) word |= (s.levels[8 * j + k] >> 2 & 0x01010101u) << j;
        write_u32(out + 4 * k, word);
    });
    team.each(16, [&](i32 k) { write_u32(out + 32 + 4 * k, two_bit_word(s.levels, k)); });
    // Six bits each: eight bytes of low nibbles, then four of what is above them.
    team.each(12, [&](i32 i) {
        const u8 *l = s.scale_levels;
        out[96 + i] = (u8)(i < 8 ? (l[i] & 15) | l[i + 8] << 4
                                 : l[i - 8] >> 4 | l[i - 4] >> 4 << 2 | l[i] >> 4 << 4 | l[i + 4] >> 4 << 6);
    });
}

TM_ENCODE(q3_k, 16, Scratch, encode_block)
