// Grid points on a device: words of levels, the tables that `cuda.rs` makes, and the search among neighbours
// (`lattice.rs`) by one lane.
//
// A word has two bits for each of eight levels, or four for each of four, the first lowest.
#pragma once
#include "superblock.cuh"

template <i32 D> constexpr i32 BITS = 16 / D;

// Four bytes of eight, `first` and then `second`: the nibbles of `which`, below 8, say which.
TM_FN u32 pick_bytes(u32 first, u32 second, u32 which) {
#ifdef __CUDACC__
    return __byte_perm(first, second, which);
#else
    u64 both = (u64)second << 32 | first;
    u32 bytes = 0;
    for (i32 i = 0; i < 4; i++) bytes |= (u32)(both >> (8 * (which >> (4 * i) & 7)) & 0xff) << (8 * i);
    return bytes;
#endif
}

// What levels stand for: floats of which the upper two bytes say all.
struct Values {
    u32 upper[2], lower[2]; // these bytes, of each level

    // Of the levels that the nibbles of `four` are.
    TM_MEMBER void of(u32 four, float &a, float &b, float &c, float &d) const {
        u32 high = pick_bytes(upper[0], upper[1], four), low = pick_bytes(lower[0], lower[1], four);
        u32 ab = pick_bytes(low, high, 0x5140), cd = pick_bytes(low, high, 0x7362);
        a = from_bits(ab << 16), b = from_bits(ab & 0xffff0000u);
        c = from_bits(cd << 16), d = from_bits(cd & 0xffff0000u);
    }
    // Of a word's levels.
    TM_MEMBER void of_word(u32 word, float (&v)[4]) const { of(word, v[0], v[1], v[2], v[3]); }
    TM_MEMBER void of_word(u32 word, float (&v)[8]) const {
        of(word & 0x3333u, v[0], v[2], v[4], v[6]);
        of(word >> 2 & 0x3333u, v[1], v[3], v[5], v[7]);
    }
};

// 2 l + 1, as IQ2 and IQ3 have it.
constexpr Values ODD = {{0x4040403fu, 0x41414141u}, {0xe0a04080u, 0x70503010u}};

// What is known of a combination of levels: the index of the point, or where its lists start and their sizes. Sizes count
// as many words as are read at once: four of eight levels, or two of four.
struct Place {
    u32 at, sizes;
    TM_MEMBER bool on() const { return at >> 31 == 0; }
    TM_MEMBER u32 index() const { return at; }
    // Of the list of neighbours that can be the best for weights to which these levels are the nearest.
    TM_MEMBER u32 near_at() const { return at & 0x7fffffffu; }
    TM_MEMBER u32 near() const { return sizes & 255; }
    // Of the list of all.
    TM_MEMBER u32 all_at() const { return near_at() + (sizes >> 8 & 255); }
    TM_MEMBER u32 all() const { return sizes >> 16 & 0xfff; }
    // How long the former is, roughly: 0 to 3.
    TM_MEMBER u32 kind() const { return sizes >> 30; }
};

template <i32 D> struct List {
    const u8 *words;
    u32 size;
};

template <i32 D> struct Tables {
    const u8 *places, *lists;

    TM_MEMBER explicit Tables(const Job &job) {
        u32 starts[4];
        load_words(job.tables, starts);
        places = job.tables + starts[0];
        lists = job.tables + starts[1];
    }
    TM_MEMBER Place place(u32 word) const {
        u32 of[2];
        load_words(places + 8 * word, of);
        return {of[0], of[1]};
    }
    // A unit has as many bytes as a point has levels.
    TM_MEMBER List<D> near(const Place &place) const { return {lists + place.near_at() * D, place.near()}; }
    TM_MEMBER List<D> all(const Place &place) const { return {lists + place.all_at() * D, place.all()}; }
};

// The word of the neighbour of least error; the first one on ties and when no error is a finite number.
template <i32 D, class E> TM_FN u32 nearest(const List<D> &list, const E &error_of) {
    constexpr i32 PAIRS = D / 4;
    const u32 *pairs = (const u32 *)list.words;
    float best = 3.40282347e38f;
    u32 found = pairs[0] & 0xffffu;
    TM_ROLLED for (u32 k = 0; k < list.size; k++, pairs += PAIRS) {
        u32 unit[PAIRS];
        if constexpr (D == 8) load_words(pairs, unit);
        if constexpr (D == 4) unit[0] = pairs[0];
        TM_UNROLL for (i32 j = 0; j < 2 * PAIRS; j++) {
            u32 word = j % 2 == 0 ? unit[j / 2] & 0xffffu : unit[j / 2] >> 16;
            float error = error_of(word);
            if (error < best) best = error, found = word;
        }
    }
    return found;
}
