//! Writes the seeds of a fuzz target into a folder, for `cargo xtask fuzz`:
//!
//! ```text
//! cargo run --package tensormill-tests --example seeds -- TARGET FOLDER
//! ```

use std::{fs, path::Path};
use tensormill_tests::fuzz::seeds::seeds;

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(target), Some(folder)) = (args.next(), args.next()) else { panic!("TARGET FOLDER") };
    for (i, seed) in seeds(&target).iter().enumerate() {
        fs::write(Path::new(&folder).join(format!("seed-{i:04}")), &seed.bytes).expect("folder is writable");
    }
}
