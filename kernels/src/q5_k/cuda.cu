// Q5_K as device code: eight lanes per super-block, one for each group of 32, which does what the reference does with
// that group. Scales and offsets of all groups are found by `superblock.cuh`.
#include "superblock.cuh"

struct Q5K {
    static constexpr i32 MAX = 31, LAST = 15;
    static constexpr bool CLAMP = true;
    static constexpr float FIRST = -0.5f, STEP = 0.1f;
};

TM_FN void encode_block(const Team<8> &team, const Job &job, u64 block, AffineScratch<8> &s) {
    u8 *out = job.out + block * 176;
    encode_affine<Q5K>(team, job, block, out, s);
    // The fifth bits: bit j of byte l is that of weight l of group j.
    team.each(8, [&](i32 k) {
        u32 word = 0;
        TM_UNROLL for (i32 j = 0; j < 8; j++) word |= (s.levels[8 * j + k] >> 4 & 0x01010101u) << j;
        write_word(out + 16 + 4 * k, word);
    });
    team.each(32, [&](i32 k) { write_word(out + 48 + 4 * k, nibble_word(s.levels, k)); });
}

TM_ENCODE(q5_k, 8, AffineScratch<8>, encode_block)
