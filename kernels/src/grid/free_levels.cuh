// The best scale of each group for levels of 0 to 4 that need not make a point (`positive.rs`), by a warp.
//
// The reference looks at one weight after the other, and each look depends on the changes before it. There is hardly
// one to two groups. So all weights of a group are looked at at once; the first that changes does so, and the others
// are looked at again.
#pragma once
#include "grid/queue.cuh"
#include "superblock.cuh"

constexpr i32 FREE_LEVELS = 4;
constexpr u32 NO_CHANGE = ~0u;

TM_FN void note_first(u32 *first, u32 i) {
#ifdef __CUDACC__
    atomicMin(first, i);
#else
    if (i < *first) *first = i;
#endif
}

struct Descent {
    LevelSums sums;
    u32 first;    // weight that changes first, plus a group's size if that is in the next pass
    i32 from;     // the weight behind the last change
    i32 pass;
    bool changed; // in this pass
    bool goes_on;
};

template <i32 N, i32 GROUPS> struct FreeLevels {
    PositiveScratch<N> groups[GROUPS]; // with what is to be fitted, and then the scale
    Descent descents[GROUPS];

    TM_MEMBER void fit(const Team<WARP> &team) {
        team.each(GROUPS * POSITIVE_CANDIDATES, [&](i32 i) {
            try_positive<FREE_LEVELS>(groups[i / POSITIVE_CANDIDATES], i % POSITIVE_CANDIDATES);
        });
        team.each(GROUPS, [&](i32 g) {
            descents[g] = {take_best_positive<FREE_LEVELS>(groups[g]), NO_CHANGE, 0, 0, false, true};
        });
        do {
            team.each(GROUPS * N, [&](i32 i) {
                Descent &descent = descents[i / N];
                if (!descent.goes_on) return;
                LevelSums sums = descent.sums;
                i32 k = i % N, next;
                if (better_level<FREE_LEVELS>(groups[i / N], k, sums, next)) {
                    note_first(&descent.first, (u32)(k < descent.from ? k + N : k));
                }
            });
            team.each(GROUPS, [&](i32 g) { change(groups[g], descents[g]); });
        } while (any_goes_on());
    }

    static TM_MEMBER void change(PositiveScratch<N> &group, Descent &descent) {
        if (!descent.goes_on) return;
        u32 first = descent.first;
        bool next_pass = first >= N;
        if (first == NO_CHANGE || (next_pass && (!descent.changed || descent.pass + 1 == POSITIVE_PASSES))) {
            descent.goes_on = false;
            group.scale = descent.sums.scale();
            return;
        }
        i32 k = (i32)first % N, next;
        if (better_level<FREE_LEVELS>(group, k, descent.sums, next)) group.levels[k] = (u8)next;
        descent.first = NO_CHANGE;
        descent.from = k + 1;
        descent.changed = true;
        if (next_pass) descent.pass++;
    }

    TM_MEMBER bool any_goes_on() const {
        bool any = false;
        TM_UNROLL for (i32 g = 0; g < GROUPS; g++) any = any || descents[g].goes_on;
        return any;
    }
};
