//! The two names by which a repository knows a file's bytes: SHA-256 of those that LFS holds, and git's blob id of those
//! that stand in git itself. Both are taken in one pass, in bounded memory.

use crate::digest::hex;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::{fs::File, io::Read, path::Path};
use tensormill_model::{Error, Result};

/// Bytes that are read at a time.
const PORTION: usize = 1 << 20;

/// Both names of a file's bytes, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// What LFS calls it.
    pub sha256: String,
    /// What git calls it: SHA-1 over `blob SIZE\0` and the bytes.
    pub git: String,
}

/// Takes both of a file that must have `size` bytes. `advanced` hears how many were read, and may stop it.
///
/// # Errors
/// `Io`; `Mismatch` where the file has another size than when it was listed.
pub fn of_file(path: &Path, size: u64, advanced: &dyn Fn(u64) -> Result<()>) -> Result<Digests> {
    let failed = |e| Error::io("read", e);
    let mut file = File::open(path).map_err(|e| Error::io("open", e))?;
    let (mut sha256, mut git) = (Sha256::new(), Sha1::new());
    git.update(format!("blob {size}\0"));
    let mut buffer = vec![0; PORTION.min(size as usize + 1)];
    let mut read = 0;
    loop {
        let n = file.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            break;
        }
        read += n as u64;
        sha256.update(&buffer[..n]);
        git.update(&buffer[..n]);
        advanced(n as u64)?;
    }
    if read != size {
        return Err(changed());
    }
    Ok(Digests { sha256: hex(&sha256.finalize()), git: hex(&git.finalize()) })
}

/// The error of a file that is not what it was when the run began.
pub fn changed() -> Error {
    Error::mismatch("the file changed while it was being sent").hint("run it again when nobody writes to it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_git_and_lfs_give() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("x");
        std::fs::write(&path, "hello\n").unwrap();
        let d = of_file(&path, 6, &|_| Ok(())).unwrap();
        // `git hash-object` and `sha256sum` of the same file.
        assert_eq!(d.git, "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(d.sha256, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
        assert!(of_file(&path, 7, &|_| Ok(())).is_err());
        std::fs::write(&path, "").unwrap();
        assert_eq!(of_file(&path, 0, &|_| Ok(())).unwrap().git, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    }
}
