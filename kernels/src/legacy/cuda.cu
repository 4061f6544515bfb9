// Q8_0 as device code.
#include "num.cuh"

TM_FN void encode_block(Team<1> team, const Job &job, u64 block, NoScratch &) {
    team.each(1, [&](i32) {
        float x[32];
        load(job, block * 32, x);
        check(job, block * 32, x);
        float amax = 0.0f;
        TM_UNROLL for (i32 i = 0; i < 32; i++) amax = c_max(amax, abs_f32(x[i]));
        float scale = amax / 127.0f, inverse = reciprocal_or_zero(scale);
        u8 *out = job.out + block * 34;
        write_scale(job, out, scale);
        TM_UNROLL for (i32 i = 0; i < 32; i++) out[2 + i] = (u8)round_away(x[i] * inverse);
    });
}

TM_ENCODE(q8_0, 1, NoScratch, encode_block)
