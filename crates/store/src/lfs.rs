//! Recognising Git-LFS pointer files: small texts that stand where the real file should be.

use tensormill_model::Error;

/// First line of every pointer (Git LFS specification, version 1).
const SIGNATURE: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// Bytes of a file's start that [`check`] needs.
pub(crate) const HEAD: usize = SIGNATURE.len();

/// Refuses a file that starts like a pointer.
pub(crate) fn check(head: &[u8], file: &str) -> Result<(), Error> {
    if head.starts_with(SIGNATURE) {
        return Err(Error::malformed("this is a Git LFS pointer; the real file was not downloaded")
            .file(file)
            .hint("run `git lfs pull` in the model's folder, or download the file itself"));
    }
    Ok(())
}
