// A queue of a warp's work, sorted roughly by how long an item takes, so that lanes that work side by side do so for
// about as long.
#pragma once
#include "base.cuh"

constexpr i32 WARP = 32;
// Kinds of items, the quickest first.
constexpr i32 KINDS = 4;

// The first half of `entries` is filled by the slowest kind, and by the next from its end; the second half by the
// others.
template <i32 CAPACITY> struct Queue {
    u32 counts[KINDS];
    u16 entries[2 * CAPACITY];

    // Where entry `i` of a kind stands.
    static TM_MEMBER i32 at(u32 kind, i32 i) { return (i32)((4 - kind) / 2) * CAPACITY + (kind % 2 == 1 ? i : -1 - i); }

    TM_MEMBER i32 size() const { return (i32)(counts[0] + counts[1] + counts[2] + counts[3]); }
    // Entry `i` of all, the slowest first.
    TM_MEMBER u32 of(i32 i) const {
        u32 kind = KINDS - 1;
        TM_UNROLL for (u32 k = KINDS - 1; k > 0; k--) {
            if (kind == k && i >= (i32)counts[k]) i -= (i32)counts[k], kind--;
        }
        return entries[at(kind, i)];
    }
};

constexpr u32 NOTHING_TO_DO = ~0u;

#ifdef __CUDACC__
// The sum of what lower lanes have; `total` becomes that of all.
TM_FN u32 sum_before(const Team<WARP> &team, u32 own, u32 &total) {
    u32 sum = own;
    TM_UNROLL for (u32 apart = 1; apart < WARP; apart *= 2) {
        u32 lower = __shfl_up_sync(team.mask, sum, apart);
        if (team.rank >= apart) sum += lower;
    }
    total = __shfl_sync(team.mask, sum, WARP - 1);
    return sum - own;
}
#endif

// `work(item, part)` for each of PARTS parts of each of n items says what is to be done: an entry, and its kind above
// 16 bits; or nothing. An item is what `begin(i)` gave.
template <i32 PARTS, i32 CAPACITY, class B, class W>
TM_FN void enqueue(const Team<WARP> &team, i32 n, Queue<CAPACITY> &queue, B begin, W work) {
    static_assert(PARTS * WARP < 256, "a byte counts the entries of a warp");
    team.each(KINDS, [&](i32 kind) { queue.counts[kind] = 0; });
#ifdef __CUDACC__
    TM_ROLLED for (i32 first = 0; first < n; first += WARP) {
        i32 i = first + (i32)team.rank;
        auto item = begin(i < n ? i : 0);
        // A byte counts for each kind.
        u32 entries[PARTS], before[PARTS], own = 0, total;
        TM_UNROLL for (i32 part = 0; part < PARTS; part++) {
            u32 entry = entries[part] = i < n ? work(item, part) : NOTHING_TO_DO;
            before[part] = own;
            if (entry != NOTHING_TO_DO) own += 1u << (entry >> 16) * 8;
        }
        u32 lower = sum_before(team, own, total);
        TM_UNROLL for (i32 part = 0; part < PARTS; part++) {
            u32 entry = entries[part], kind = entry >> 16;
            if (entry == NOTHING_TO_DO) continue;
            u32 number = queue.counts[kind] + (lower + before[part] >> kind * 8 & 255);
            queue.entries[queue.at(kind, (i32)number)] = (u16)entry;
        }
        __syncwarp(team.mask);
        if (team.rank < KINDS) queue.counts[team.rank] += total >> team.rank * 8 & 255;
        __syncwarp(team.mask);
    }
#else
    for (i32 i = 0; i < n; i++) {
        auto item = begin(i);
        for (i32 part = 0; part < PARTS; part++) {
            u32 entry = work(item, part), kind = entry >> 16;
            if (entry == NOTHING_TO_DO) continue;
            queue.entries[queue.at(kind, (i32)queue.counts[kind]++)] = (u16)entry;
        }
    }
#endif
}

// The next number of a count that lanes share.
TM_FN u32 take_number(u32 *count) {
#ifdef __CUDACC__
    return atomicAdd(count, 1u);
#else
    return (*count)++;
#endif
}
