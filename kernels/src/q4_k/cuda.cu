// Q4_K as device code: eight lanes per super-block, one for each group of 32, which does what the reference does with
// that group. Scales and offsets of all groups are found by `superblock.cuh`.
#include "superblock.cuh"

struct Q4K {
    static constexpr i32 MAX = 15, LAST = 20;
    static constexpr bool CLAMP = false;
    static constexpr float FIRST = -1.0f, STEP = 0.1f;
};

TM_FN void encode_block(const Team<8> &team, const Job &job, u64 block, AffineScratch<8> &s) {
    u8 *out = job.out + block * 144;
    encode_affine<Q4K>(team, job, block, out, s);
    team.each(32, [&](i32 k) { write_word(out + 16 + 4 * k, nibble_word(s.levels, k)); });
}

TM_ENCODE(q4_k, 8, AffineScratch<8>, encode_block)
