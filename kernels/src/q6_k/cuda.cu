// Q6_K as device code: sixteen lanes per super-block, one for each group of 16, which does what the reference does with
// that group. Every lane chooses the scale of the scales for itself.
#include "superblock.cuh"

constexpr i32 HALF = 32;

struct Scratch {
    float scales[16];
    u32 levels[WEIGHTS / 4];
    i8 scale_levels[16];
};

TM_FN void encode_block(const Team<16> &team, const Job &job, u64 block, Scratch &s) {
    PerLane<float[16], 16> xs;
    PerLane<Symmetric, 16> fits;
    u64 first = block * WEIGHTS;
    u8 *out = job.out + block * 210;
    team.each(16, [&](i32 j) {
        float(&x)[16] = xs[j];
        float w[16];
        load(job, first + 16 * j, x);
        check(job, first + 16 * j, x);
        if (job.importance) {
            load_f32(importance_at(job, first) + 16 * j, w);
        } else {
            TM_UNROLL for (i32 i = 0; i < 16; i++) w[i] = x[i] * x[i];
        }
        fits[j] = fit_symmetric<HALF>(x, w);
        s.scales[j] = fits[j].scale;
    });
    team.each(16, [&](i32 j) {
        u32 *levels = s.levels + 4 * j;
        float max, amax;
        signed_max(s.scales, max, amax);
        u16 d = 0;
        i32 level = 0;
        if (amax < ZERO_BELOW) {
            TM_UNROLL for (i32 k = 0; k < 4; k++) levels[k] = 0;
        } else {
            float inverse = -128.0f / max;
            d = scale_bits(job, 1.0f / inverse);
            level = (i8)min_i32(nearest_int(inverse * s.scales[j]), 127);
            write_levels<16>(levels, [&](i32 i) { return fits[j].template level<HALF>(xs[j][i]); });
            requantize_symmetric<HALF>(xs[j], f16_value(d) * (float)level, levels);
        }
        s.scale_levels[j] = (i8)level;
        if (j == 0) write_f16(out + 208, d);
    });
    // Each half of the levels: 64 bytes of low nibbles, then 32 bytes of what is above them.
    team.each(32, [&](i32 k) {
        const u32 *w = s.levels + k / 16 * 32 + k % 16;
        write_u32(out + 4 * k, (w[0] & 0x0f0f0f0fu) | (w[16] & 0x0f0f0f0fu) << 4);
    });
    team.each(16, [&](i32 k) {
        const u32 *w = s.levels + k / 8 * 32 + k % 8;
        u32 mask = 0x03030303u;
        u32 word = (w[0] >> 4 & mask) | (w[8] >> 4 & mask) << 2 | (w[16] >> 4 & mask) << 4 | (w[24] >> 4 & mask) << 6;
        write_u32(out + 128 + 4 * k, word);
    });
    team.each(8, [&](i32 k) {
        write_f16(out + 192 + 2 * k, (u16)((u8)s.scale_levels[2 * k] | (u8)s.scale_levels[2 * k + 1] << 8));
    });
}

TM_ENCODE(q6_k, 16, Scratch, encode_block)
