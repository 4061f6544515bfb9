// A queue of a warp's work, sorted roughly by how long an item takes, so that lanes that work side by side do so for about
// as long.
#pragma once
#include "base.cuh"

constexpr i32 WARP = 32;
// Kinds of items, the quickest first.
constexpr i32 KINDS = 4;

// The first half of `entries` is filled by the slowest kind, and by the next from its end; the second half by the others.
template <i32 CAPACITY> struct Queue {
    u16 entries[2 * CAPACITY];

    // Where entry `i` of a kind stands.
    static TM_MEMBER i32 at(i32 kind, i32 i) {
        i32 half = kind < 2 ? CAPACITY : 0;
        return kind % 2 == 1 ? half + i : half + CAPACITY - 1 - i;
    }
    // Entry `i` of all, the slowest first.
    TM_MEMBER u32 of(const i32 (&counts)[KINDS], i32 i) const {
        i32 kind = KINDS - 1;
        TM_UNROLL for (i32 k = KINDS - 1; k > 0; k--) {
            if (kind == k && i >= counts[k]) i -= counts[k], kind--;
        }
        return entries[at(kind, i)];
    }
};

constexpr u32 NOTHING_TO_DO = ~0u;

// `work(item, part)` for each of PARTS parts of each of n items says what is to be done: an entry, and its kind above 16
// bits; or nothing. An item is what `begin(i)` gave. Returns how many entries each kind has.
template <i32 PARTS, i32 CAPACITY, class B, class W>
TM_FN void enqueue(const Team<WARP> &team, i32 n, Queue<CAPACITY> &queue, i32 (&counts)[KINDS], B begin, W work) {
    TM_UNROLL for (i32 k = 0; k < KINDS; k++) counts[k] = 0;
#ifdef __CUDACC__
    u32 before = (1u << team.rank) - 1;
    TM_ROLLED for (i32 first = 0; first < n; first += WARP) {
        i32 i = first + (i32)team.rank;
        auto item = begin(i < n ? i : 0);
        TM_UNROLL for (i32 part = 0; part < PARTS; part++) {
            u32 entry = i < n ? work(item, part) : NOTHING_TO_DO, kind = entry >> 16;
            TM_UNROLL for (i32 k = 0; k < KINDS; k++) {
                u32 same = __ballot_sync(team.mask, kind == (u32)k);
                if (kind == (u32)k) queue.entries[queue.at(k, counts[k] + __popc(same & before))] = (u16)entry;
                counts[k] += __popc(same);
            }
        }
    }
    __syncwarp(team.mask);
#else
    (void)team;
    for (i32 i = 0; i < n; i++) {
        auto item = begin(i);
        for (i32 part = 0; part < PARTS; part++) {
            u32 entry = work(item, part);
            if (entry == NOTHING_TO_DO) continue;
            i32 kind = (i32)(entry >> 16);
            queue.entries[queue.at(kind, counts[kind]++)] = (u16)entry;
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
