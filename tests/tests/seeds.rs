//! Every seed of the fuzz targets, whole, cut off and changed in places: what fuzzing does for hours, for a second.

use tensormill_tests::fuzz::{TARGETS, seeds::seeds};

/// Changes of each seed; of those that are hostile already there are many.
const CHANGES: u64 = 40;
const FEW: u64 = 4;

/// The next number of a fixed sequence (`SplitMix64`).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn no_target_minds_its_seeds() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in &seeds {
            println!("{name}: {}", seed.name);
            target(&seed.bytes);
        }
    }
}

#[test]
fn no_target_minds_changed_seeds() {
    let mut state = 20;
    for (name, target) in TARGETS {
        target(&[]);
        for seed in seeds(name).iter().filter(|s| !s.bytes.is_empty()) {
            let changes = if seed.name.contains("hostile") { FEW } else { CHANGES };
            for i in 0..changes {
                let mut bytes = seed.bytes.clone();
                let at = next(&mut state) as usize % bytes.len();
                println!("{name}: {}, change {i} at {at}", seed.name);
                match i % 4 {
                    0 => bytes.truncate(at),
                    1 => bytes[at] = next(&mut state) as u8,
                    2 => bytes[at] ^= 1 << (next(&mut state) % 8),
                    _ => {
                        let n = (bytes.len() - at).min(8);
                        bytes[at..at + n].copy_from_slice(&next(&mut state).to_le_bytes()[..n]);
                    }
                }
                target(&bytes);
            }
        }
    }
}
