//! The levels that are compared with the scalar one.

use tensormill_kernels::{Level, available_levels};

/// Those that this machine has. The others are printed as skipped.
pub fn levels() -> Vec<Level> {
    let (have, lack): (Vec<_>, Vec<_>) = Level::ALL
        .iter()
        .copied()
        .filter(|l| *l != Level::Scalar)
        .partition(|l| available_levels().contains(l));
    for level in lack {
        println!("level {} skipped: this machine lacks it", level.name());
    }
    have
}
