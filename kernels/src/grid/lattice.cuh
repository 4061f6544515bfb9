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

// What is known of a combination of levels: the index of the point, or where its lists start and how long they are.
struct Place {
    u32 at, sizes;
    TM_MEMBER bool on() const { return at >> 31 == 0; }
    TM_MEMBER u32 index() const { return at; }
    // How long a search takes, roughly: 0 to 3.
    TM_MEMBER u32 kind() const { return sizes >> 30; }
};

// Neighbours, as words.
template <i32 D> struct List {
    // As many as are read at once.
    static constexpr i32 UNIT = D / 2;
    const u32 *pairs;
    u32 size;

    TM_MEMBER u32 first() const { return pairs[0] & 0xffffu; }

    // Whole units, of which the last may be filled up: `use` is told whether a word counts.
    template <class F> TM_MEMBER void each(F use) const {
        TM_ROLLED for (u32 k = 0; k < size; k += UNIT) {
            u32 unit[UNIT / 2];
            if constexpr (D == 8) load_words(pairs + k / 2, unit);
            if constexpr (D == 4) unit[0] = pairs[k / 2];
            TM_UNROLL for (u32 j = 0; j < UNIT; j++) {
                use(j % 2 == 0 ? unit[j / 2] & 0xffffu : unit[j / 2] >> 16, j == 0 || k + j < size);
            }
        }
    }
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
    // The neighbours that can be the best for weights to which the levels are the nearest, or all. A unit has as many
    // bytes as a point has levels.
    TM_MEMBER List<D> list(const Place &place, bool all) const {
        u32 units = (place.at & 0x7fffffffu) + (all ? place.sizes >> 8 & 255 : 0);
        return {(const u32 *)(lists + (u64)units * D), all ? place.sizes >> 16 & 0xfff : place.sizes & 255};
    }
};

// The errors of a point's neighbours under a scale.
template <i32 D> struct Errors {
    float x[D], weights[D], scale;

    TM_MEMBER float of(u32 word, const Values &values) const {
        float q[D], error = 0.0f;
        values.of_word(word, q);
        TM_UNROLL for (i32 i = 0; i < D; i++) {
            float diff = scale * q[i] - x[i];
            error += weights[i] * diff * diff;
        }
        return error;
    }
};

constexpr float NO_ERROR = 3.40282347e38f; // all count if they are less

// The neighbour of least error; the first one on ties and when no error is a finite number.
template <i32 D> TM_FN u32 nearest(const List<D> &list, const Errors<D> &errors, const Values &values) {
    float best = NO_ERROR;
    u32 found = list.first();
    list.each([&](u32 word, bool) {
        float error = errors.of(word, values);
        if (error < best) best = error, found = word;
    });
    return found;
}

// The same, found by several lanes: what they share holds the least error, where in the list it is, and its word, from
// high bits to low, so that in any order the least of all comes out.
struct Shared {
    u64 least;

    TM_MEMBER void start(u32 word) { least = ~0ull << 32 | word; }
    TM_MEMBER u32 word() const { return (u32)least & 0xffffu; }

    // By lane `lane` of LANES.
    template <i32 LANES, i32 D>
    TM_MEMBER void search(const List<D> &list, const Errors<D> &errors, const Values &values, i32 lane) {
        const u16 *words = (const u16 *)list.pairs;
        float best = NO_ERROR;
        u32 found = 0;
        TM_ROLLED for (u32 k = (u32)lane; k < list.size; k += LANES) {
            float error = errors.of(words[k], values);
            if (error < best) best = error, found = k << 16 | words[k];
        }
        if (!(best < NO_ERROR)) return;
        // No error is a negative zero, because sums start from zero.
        u32 bits = bits_of(best), ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
        u64 key = (u64)ordered << 32 | found;
#ifdef __CUDACC__
        atomicMin(&least, key);
#else
        if (key < least) least = key;
#endif
    }
};
