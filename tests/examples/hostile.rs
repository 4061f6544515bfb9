//! Writes `golden/hostile`: the corpus, its table for tests and its table for people. Afterwards run
//! `golden/generators/write_manifest.py`.

use std::{error::Error, fs};
use tensormill_tests::{golden, hostile};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = golden("hostile");
    let cases = hostile::cases();
    // `onnx` is another generator's.
    for inner in fs::read_dir(&folder)?.flatten().map(|e| e.path()) {
        if inner.is_dir() && !inner.ends_with("onnx") {
            fs::remove_dir_all(inner)?;
        }
    }
    let mut bytes = 0;
    for case in &cases {
        let path = folder.join(&case.path);
        if path.exists() {
            return Err(format!("{} is there twice", case.path).into());
        }
        fs::create_dir_all(path.parent().ok_or("no folder")?)?;
        bytes += case.bytes.len();
        fs::write(path, &case.bytes)?;
    }
    fs::write(folder.join("cases.json"), format!("{:#}\n", hostile::table(&cases)))?;
    fs::write(folder.join("README.md"), hostile::page(&cases))?;
    println!("{} files, {bytes} bytes", cases.len());
    Ok(())
}
