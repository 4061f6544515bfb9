//! Output files that appear under their final names only when complete.
//!
//! Every file of a set is written as `.NAME.tensormill-part` beside its final name, at positions the layout fixed
//! beforehand. [`OutputSet::commit`] syncs, renames and syncs the folder; dropping the set without it removes
//! the parts. Space is reserved when the set is created, so a full disk is known before the first read.
//!
//! A part is held under an advisory lock while it is written. So a part left by a killed process is reused, and
//! a part that another process is writing is refused.

use crate::DirectFile;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use tensormill_model::{Error, Result};

/// What to do with files that already have the final names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// Refuse: nothing the user has is overwritten.
    Refuse,
    /// Replace them at commit; until then they stay as they are.
    Replace,
}

struct Part {
    file: DirectFile,
    temporary: PathBuf,
    target: PathBuf,
    len: u64,
    /// Set once the file stands under its final name.
    renamed: bool,
}

/// Files being written. Shareable between threads: writes are positional.
pub struct OutputSet {
    dir: PathBuf,
    parts: Vec<Part>,
    existing: Existing,
}

impl OutputSet {
    /// Creates the parts of a set in folder `dir`: one per `(file name, length in bytes)`, all zeros, space
    /// reserved where the file system can.
    ///
    /// # Errors
    /// `Usage` when a final name is taken (with [`Existing::Refuse`]) or being written by another process;
    /// `Io` when the folder is missing or has no room, saying how many bytes are needed.
    pub fn create(dir: &Path, files: &[(String, u64)], existing: Existing) -> Result<Self> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        if !dir.is_dir() {
            return Err(Error::io("write into", io::Error::from(io::ErrorKind::NotFound))
                .file(dir.display())
                .hint("create this folder first"));
        }
        let mut set = Self { dir: dir.to_owned(), parts: Vec::with_capacity(files.len()), existing };
        for (name, len) in files {
            let target = dir.join(name);
            set.refuse_existing(&target)?;
            let temporary = dir.join(format!(".{name}.tensormill-part"));
            let file = DirectFile::writing(claim(&temporary, &target)?);
            set.parts.push(Part { file, temporary, target, len: *len, renamed: false });
        }
        set.reserve()?;
        Ok(set)
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.parts.len()
    }
    /// Whether the set has no files.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    fn refuse_existing(&self, target: &Path) -> Result<()> {
        // symlink_metadata: a dangling link is also something the user put there.
        match fs::symlink_metadata(target) {
            Ok(m) if m.is_dir() => Err(Error::usage("a folder has the output's name")
                .file(target.display())
                .hint("choose another name")),
            Ok(_) if self.existing == Existing::Refuse => Err(Error::usage("the output file already exists")
                .file(target.display())
                .hint("choose another name, or replace it with --force")),
            _ => Ok(()),
        }
    }

    /// Sizes every part, allocating its blocks now where the file system supports it.
    fn reserve(&self) -> Result<()> {
        let total = self.parts.iter().map(|p| p.len).fold(0, u64::saturating_add);
        let free = free_bytes(&self.dir);
        let full = |p: &Part, e: io::Error| {
            let room = free.map_or_else(String::new, |f| format!(", {f} are free"));
            Error::io(format_args!("reserve space ({total} bytes are needed{room})"), e)
                .file(p.target.display())
                .hint("free some space, or write to another disk")
        };
        // The parts are empty by now, so what is free is free for all of them.
        if let (Some(first), Some(free)) = (self.parts.first(), free)
            && free < total
        {
            return Err(full(first, io::Error::from(io::ErrorKind::StorageFull)));
        }
        for p in &self.parts {
            p.file.file().set_len(p.len).map_err(|e| full(p, e))?;
            match allocate(p.file.file(), p.len) {
                Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    return Err(full(p, e));
                }
                // Not supported here: the file stays sparse and the check above has to do.
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes bytes of file number `file` at a position inside its length.
    ///
    /// # Errors
    /// `Io` naming the final file; a full disk says how many bytes the file needs.
    pub fn write_all_at(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let p = &self.parts[file];
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > p.len) {
            return Err(Error::usage(format!(
                "a write of {} bytes ends after the planned length {}",
                bytes.len(),
                p.len
            ))
            .file(p.target.display())
            .at(offset));
        }
        p.file.write_all_at(bytes, offset).map_err(|e| {
            let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let error = Error::io("write", e).file(p.target.display()).at(offset);
            if full { error.hint(format!("free some space: the file needs {} bytes", p.len)) } else { error }
        })
    }

    /// Reads back what was written (zeros elsewhere).
    ///
    /// # Errors
    /// `Io` naming the final file.
    pub fn read_exact_at(&self, file: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        let p = &self.parts[file];
        p.file
            .read_exact_at(out, offset)
            .map_err(|e| Error::io("read back", e).file(p.target.display()).at(offset))
    }

    /// Makes all files durable, then gives them their final names: the last file first, so that a set never
    /// shows its first file (the one that holds the metadata) before the rest. Gives the final paths in order.
    ///
    /// # Errors
    /// `Io` naming the file; files that were already renamed are removed again.
    pub fn commit(mut self) -> Result<Vec<PathBuf>> {
        for p in &self.parts {
            p.file.sync_all().map_err(|e| Error::io("sync", e).file(p.target.display()))?;
        }
        for i in (0..self.parts.len()).rev() {
            self.refuse_existing(&self.parts[i].target)?;
            let p = &mut self.parts[i];
            rename(&p.temporary, &p.target, self.existing).map_err(|e| {
                let taken = e.kind() == io::ErrorKind::AlreadyExists;
                let error = Error::io("rename the finished file", e).file(p.target.display());
                if taken {
                    error.hint("the name was taken meanwhile: choose another, or use --force")
                } else {
                    error
                }
            })?;
            p.renamed = true;
        }
        File::open(&self.dir)
            .and_then(|d| d.sync_all())
            .map_err(|e| Error::io("sync the folder", e).file(self.dir.display()))?;
        Ok(std::mem::take(&mut self.parts).into_iter().map(|p| p.target).collect())
    }
}

impl Drop for OutputSet {
    fn drop(&mut self) {
        // Reached with parts only when commit did not finish; there is nobody left to tell about failures.
        for p in &self.parts {
            let _ = fs::remove_file(if p.renamed { &p.target } else { &p.temporary });
        }
    }
}

/// Opens a part under an exclusive lock, empty. A left-over of a dead process is taken over.
fn claim(temporary: &Path, target: &Path) -> Result<File> {
    let fail = |what: &str, e: io::Error| Error::io(what, e).file(target.display());
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(no_follow())
            .open(temporary)
            .map_err(|e| fail("create", e))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::usage("another process is writing this file")
                    .file(target.display())
                    .hint("wait for it, or choose another name"));
            }
            // File systems without locks: two writers are then the user's to avoid.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Between open and lock the previous owner may have renamed or removed the file we hold.
        let held = file.metadata().map_err(|e| fail("inspect", e))?;
        match fs::symlink_metadata(temporary) {
            Ok(now) if (now.dev(), now.ino()) == (held.dev(), held.ino()) => {}
            _ => continue,
        }
        file.set_len(0).map_err(|e| fail("create", e))?;
        return Ok(file);
    }
}

/// `O_NOFOLLOW`: a link planted under the part's name must not redirect the output.
fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
}

/// Bytes that an unprivileged process may still write in the folder's file system.
fn free_bytes(dir: &Path) -> Option<u64> {
    let s = rustix::fs::statvfs(dir).ok()?;
    s.f_bavail.checked_mul(s.f_frsize)
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(()); // fallocate refuses an empty range
    }
    Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len)?)
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn rename(from: &Path, to: &Path, existing: Existing) -> io::Result<()> {
    use rustix::{
        fs::{CWD, RenameFlags, renameat_with},
        io::Errno,
    };
    if existing == Existing::Refuse {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Old kernels and some file systems lack the flag; the caller has just looked, so a race is all we lose.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            other => return Ok(other?),
        }
    }
    fs::rename(from, to)
}

#[cfg(not(target_os = "linux"))]
fn rename(from: &Path, to: &Path, _: Existing) -> io::Result<()> {
    fs::rename(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::ErrorKind;

    fn names(dir: &Path) -> Vec<String> {
        let mut v: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        v.sort();
        v
    }
    fn files(list: &[(&str, u64)]) -> Vec<(String, u64)> {
        list.iter().map(|(n, l)| ((*n).to_owned(), *l)).collect()
    }

    #[test]
    fn files_appear_only_at_commit_with_zeros_between() {
        let tmp = tempfile::tempdir().unwrap();
        let set =
            OutputSet::create(tmp.path(), &files(&[("a.gguf", 8), ("b.gguf", 0)]), Existing::Refuse).unwrap();
        set.write_all_at(0, 6, &[1, 2]).unwrap();
        set.write_all_at(0, 1, &[9]).unwrap();
        assert_eq!(names(tmp.path()), [".a.gguf.tensormill-part", ".b.gguf.tensormill-part"]);
        let mut back = [7; 3];
        set.read_exact_at(0, 0, &mut back).unwrap();
        assert_eq!(back, [0, 9, 0]);
        assert_eq!(set.write_all_at(0, 7, &[1, 2]).unwrap_err().kind(), ErrorKind::Usage);
        let paths = set.commit().unwrap();
        assert_eq!(paths, [tmp.path().join("a.gguf"), tmp.path().join("b.gguf")]);
        assert_eq!(names(tmp.path()), ["a.gguf", "b.gguf"]);
        assert_eq!(fs::read(&paths[0]).unwrap(), [0, 9, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn dropping_leaves_nothing_and_keeps_what_was_there() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("a"), "old").unwrap();
        let e = OutputSet::create(tmp.path(), &files(&[("b", 1), ("a", 1)]), Existing::Refuse).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert!(e.hint_text().unwrap().contains("--force"));
        assert_eq!(names(tmp.path()), ["a"]);
        let set = OutputSet::create(tmp.path(), &files(&[("a", 3)]), Existing::Replace).unwrap();
        set.write_all_at(0, 0, b"new").unwrap();
        drop(set);
        assert_eq!(names(tmp.path()), ["a"]);
        assert_eq!(fs::read(tmp.path().join("a")).unwrap(), b"old");
        let set = OutputSet::create(tmp.path(), &files(&[("a", 3)]), Existing::Replace).unwrap();
        set.write_all_at(0, 0, b"new").unwrap();
        set.commit().unwrap();
        assert_eq!(fs::read(tmp.path().join("a")).unwrap(), b"new");
    }

    #[test]
    fn a_name_taken_meanwhile_is_not_overwritten() {
        let tmp = tempfile::tempdir().unwrap();
        let set = OutputSet::create(tmp.path(), &files(&[("a", 1), ("b", 1)]), Existing::Refuse).unwrap();
        fs::write(tmp.path().join("a"), "theirs").unwrap();
        assert!(set.commit().is_err());
        // b had been renamed already: half a set must not stay.
        assert_eq!(names(tmp.path()), ["a"]);
        assert_eq!(fs::read(tmp.path().join("a")).unwrap(), b"theirs");
    }

    #[test]
    fn parts_of_the_dead_are_reused_and_of_the_living_refused() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join(".a.tensormill-part"), "stale bytes of a killed run").unwrap();
        let set = OutputSet::create(tmp.path(), &files(&[("a", 4)]), Existing::Refuse).unwrap();
        let e = OutputSet::create(tmp.path(), &files(&[("a", 4)]), Existing::Refuse).err().unwrap();
        assert!(e.to_string().contains("another process"), "{e}");
        let path = &set.commit().unwrap()[0];
        assert_eq!(fs::read(path).unwrap(), [0; 4]);
    }

    #[test]
    fn links_are_not_followed_and_missing_folders_named() {
        let tmp = tempfile::tempdir().unwrap();
        let victim = tmp.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, tmp.path().join(".a.tensormill-part")).unwrap();
        assert!(OutputSet::create(tmp.path(), &files(&[("a", 4)]), Existing::Refuse).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        let e =
            OutputSet::create(&tmp.path().join("none"), &files(&[("a", 4)]), Existing::Refuse).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Io);
        assert!(e.file_name().unwrap().ends_with("none"));
    }

    #[test]
    fn no_room_is_known_before_writing() {
        let tmp = tempfile::tempdir().unwrap();
        let e = OutputSet::create(tmp.path(), &files(&[("a", 1 << 60), ("b", 5)]), Existing::Refuse)
            .err()
            .unwrap();
        assert_eq!(e.kind(), ErrorKind::Io);
        assert!(e.to_string().contains(&((1u64 << 60) + 5).to_string()), "{e}");
        assert!(names(tmp.path()).is_empty());
    }
}
