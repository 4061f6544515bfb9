// Grid points on a device: levels as words, the tables that `cuda.rs` makes, and the search among neighbours
// (`lattice.rs`), by one lane.
//
// A word has two bits for each of eight levels, three for each of four, the first lowest.
#pragma once
#include "superblock.cuh"

template <i32 D> constexpr i32 BITS = D == 8 ? 2 : 3;

template <i32 D> TM_FN u32 level_of(u32 word, i32 i) { return word >> (BITS<D> * i) & ((1u << BITS<D>) - 1); }

// `base` plus level i: a float's last bits count steps of 2^-16 between 128 and 256.
template <i32 D> TM_FN float level_plus(u32 word, i32 i, float base) {
    i32 shift = 16 - BITS<D> * i;
    u32 mask = ((1u << BITS<D>) - 1) << 16;
    return from_bits(((shift < 0 ? word >> -shift : word << shift) & mask) | 0x43000000u) + (base - 128.0f);
}

// What level i stands for in IQ2 and IQ3: 2 l + 1.
template <i32 D> TM_FN float odd_of(u32 word, i32 i) {
    i32 shift = 17 - BITS<D> * i;
    u32 mask = ((1u << BITS<D>) - 1) << 17;
    return from_bits(((shift < 0 ? word >> -shift : word << shift) & mask) | 0x43000000u) - 127.0f;
}

// Which place of the table a word has: levels as a number in base 3, or 8.
template <i32 D> TM_FN u32 place_number(u32 word) {
    if constexpr (D == 4) return word;
    u32 pairs = (word & 0x3333u) + 3 * (word >> 2 & 0x3333u);
    u32 fours = (pairs & 0x0f0fu) + 9 * (pairs >> 4 & 0x0f0fu);
    return (fours & 0xffu) + 81 * (fours >> 8);
}

// What `cuda.rs` says of one combination of levels.
struct Place {
    u32 at, sizes;
    TM_MEMBER bool on() const { return at >> 31 == 0; }
    TM_MEMBER u32 index() const { return at; }
    // How many fours the list has, of neighbours that some weight with these nearest levels might prefer.
    TM_MEMBER u32 fours() const { return sizes & 255; }
};

// A list of neighbours, by fours: words, and again the first one.
struct List {
    const u8 *words;
    u32 fours;
};

// Levels' word first, whole lists where the levels may not be the nearest.
struct Tables {
    const u8 *base;
    TM_MEMBER u32 header(i32 i) const { return ((const u32 *)base)[i]; }
    template <i32 D> TM_MEMBER Place place(u32 word) const {
        u32 of[2];
        load_words(base + header(0) + 8 * place_number<D>(word), of);
        return {of[0], of[1]};
    }
    TM_MEMBER List list(Place place, bool whole) const {
        u32 first = (place.at & 0x7fffffffu) + (whole ? place.sizes >> 8 & 255 : 0);
        return {base + header(1) + 8 * (u64)first, whole ? place.sizes >> 16 : place.fours()};
    }
};

// The word of the neighbour of least error; the first one on ties and when no error is a finite number.
template <class E> TM_FN u32 nearest(List list, const E &error_of) {
    float best = 3.40282347e38f;
    u32 found = 0;
    TM_ROLLED for (u32 k = 0; k < list.fours; k++) {
        u32 pairs[2];
        load_words(list.words + 8 * k, pairs);
        if (k == 0) found = pairs[0] & 0xffffu;
        TM_UNROLL for (i32 j = 0; j < 4; j++) {
            u32 word = j % 2 == 0 ? pairs[j / 2] & 0xffffu : pairs[j / 2] >> 16;
            float error = error_of(word);
            if (error < best) best = error, found = word;
        }
    }
    return found;
}
