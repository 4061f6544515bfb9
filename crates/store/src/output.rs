//! Output files that appear under their final names only when complete.
//!
//! Every file of a set is written as `.NAME.tensormill-part` beside its final name, at positions the layout fixed
//! beforehand. [`OutputSet::commit`] syncs, renames and syncs the folder; dropping the set without it removes
//! the parts, unless they are to be continued ([`OutputSet::keep`]). Space is reserved when the set is created, so
//! a full disk is known before the first read.
//!
//! A part is held under an advisory lock while it is written, so a part that another process is writing is refused;
//! processes that share the work share the lock ([`Parts::Shared`]).

use crate::DirectFile;
use std::{
    collections::BTreeSet,
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

/// What to do with parts that an earlier run left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parts {
    /// Empty them: their bytes are worth nothing.
    Fresh,
    /// Keep what they hold, and write the rest.
    Resume,
    /// As `Resume`, while other processes write other bytes of the same parts.
    Shared,
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
    /// Whether parts outlive the set.
    keep: bool,
}

impl OutputSet {
    /// Opens the parts of a set in folder `dir`: one per `(file name, length in bytes)`, space reserved where the
    /// file system can, zeros where nothing was written. A name may lead into a folder below `dir`, which is created.
    ///
    /// # Errors
    /// `Usage` when a final name is taken (with [`Existing::Refuse`]) or being written by another process;
    /// `Io` when the folder is missing or has no room, saying how many bytes are needed.
    pub fn open(dir: &Path, files: &[(String, u64)], existing: Existing, parts: Parts) -> Result<Self> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        ensure_folder(dir, false)?;
        let keep = parts != Parts::Fresh;
        let mut set = Self { dir: dir.to_owned(), parts: Vec::with_capacity(files.len()), existing, keep };
        for (name, len) in files {
            set.claim(name, *len, parts)?;
        }
        set.reserve()?;
        Ok(set)
    }

    fn claim(&mut self, name: &str, len: u64, parts: Parts) -> Result<()> {
        let target = self.dir.join(name);
        refuse_existing(&target, self.existing)?;
        let temporary = part_path(&self.dir, name);
        if let Some(folder) = temporary.parent().filter(|_| name.contains('/')) {
            fs::create_dir_all(folder).map_err(|e| Error::io("create", e).file(folder.display()))?;
        }
        let file = DirectFile::writing(claim(&temporary, &target, parts)?);
        self.parts.push(Part { file, temporary, target, len, renamed: false });
        Ok(())
    }

    /// Adds a small file that is known in full; gives its number.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<usize> {
        self.claim(name, bytes.len() as u64, Parts::Fresh)?;
        let number = self.parts.len() - 1;
        self.write_all_at(number, 0, bytes)?;
        Ok(number)
    }

    /// From now on parts stay when the set is dropped before [`Self::commit`]: a later run continues them.
    pub fn keep(&mut self, keep: bool) {
        self.keep = keep;
    }

    /// Makes what was written so far durable: after it returns, a power failure loses none of it.
    ///
    /// # Errors
    /// `Io` naming the file.
    pub fn sync_data(&self) -> Result<()> {
        self.parts
            .iter()
            .try_for_each(|p| p.file.sync_data().map_err(|e| Error::io("sync", e).file(p.target.display())))
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.parts.len()
    }
    /// Whether the set has no files.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Sizes every part, allocating its blocks now where the file system supports it.
    fn reserve(&self) -> Result<()> {
        let total = self.parts.iter().map(|p| p.len).fold(0, u64::saturating_add);
        let held =
            |p: &Part| p.file.file().metadata().map_or(0, |m| m.blocks().saturating_mul(512).min(p.len));
        let missing = total.saturating_sub(self.parts.iter().map(held).fold(0, u64::saturating_add));
        let free = free_bytes(&self.dir);
        let full = |p: &Part, e: io::Error| {
            let room = free.map_or_else(String::new, |f| format!(", {f} are free"));
            Error::io(format_args!("reserve space ({missing} bytes are needed{room})"), e)
                .file(p.target.display())
                .hint("free some space, or write to another disk")
        };
        if let (Some(first), Some(free)) = (self.parts.first(), free)
            && free < missing
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
    /// `Io` naming the file; files that were already renamed are parts again.
    pub fn commit(mut self) -> Result<Vec<PathBuf>> {
        for p in &self.parts {
            p.file.sync_all().map_err(|e| Error::io("sync", e).file(p.target.display()))?;
        }
        for i in (0..self.parts.len()).rev() {
            refuse_existing(&self.parts[i].target, self.existing)?;
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
        let folders: BTreeSet<&Path> = self.parts.iter().filter_map(|p| p.target.parent()).collect();
        for folder in folders {
            File::open(folder)
                .and_then(|d| d.sync_all())
                .map_err(|e| Error::io("sync the folder", e).file(folder.display()))?;
        }
        Ok(std::mem::take(&mut self.parts).into_iter().map(|p| p.target).collect())
    }
}

impl Drop for OutputSet {
    fn drop(&mut self) {
        // Reached with parts only when commit did not finish; there is nobody left to tell about failures.
        for p in &self.parts {
            let _ = match (self.keep, p.renamed) {
                (true, true) => fs::rename(&p.target, &p.temporary),
                (true, false) => Ok(()),
                (false, true) => fs::remove_file(&p.target),
                (false, false) => fs::remove_file(&p.temporary),
            };
        }
    }
}

/// Checks that a final name may be given to a file.
///
/// # Errors
/// `Usage` when it is taken by a folder, or by a file that is not to be replaced.
pub fn refuse_existing(target: &Path, existing: Existing) -> Result<()> {
    // symlink_metadata: a dangling link is also something the user put there.
    match fs::symlink_metadata(target) {
        Ok(m) if m.is_dir() => Err(Error::usage("a folder has the output's name")
            .file(target.display())
            .hint("choose another name")),
        Ok(_) if existing == Existing::Refuse => Err(Error::usage("the output file already exists")
            .file(target.display())
            .hint("choose another name, or replace it with --force")),
        _ => Ok(()),
    }
}

/// Checks that a folder is there, or creates it.
///
/// # Errors
/// `Io` when it is not there, or cannot be created.
pub fn ensure_folder(dir: &Path, create: bool) -> Result<()> {
    if create {
        fs::create_dir_all(dir).map_err(|e| Error::io("create", e).file(dir.display()))?;
    }
    if dir.is_dir() {
        return Ok(());
    }
    Err(Error::io("write into", io::Error::from(io::ErrorKind::NotFound))
        .file(dir.display())
        .hint("create this folder first"))
}

/// Where the part of a file lies.
fn part_path(dir: &Path, name: &str) -> PathBuf {
    let target = dir.join(name);
    let file = target.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    target.with_file_name(format!(".{file}.tensormill-part"))
}

/// Removes the parts that a dead run left of these files; parts that are being written stay.
///
/// # Errors
/// `Usage` when another process is writing one of them, `Io` otherwise.
pub fn discard_parts<'a>(dir: &Path, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
    for name in names {
        let part = part_path(dir, name);
        if fs::symlink_metadata(&part).is_ok() {
            drop(claim(&part, &dir.join(name), Parts::Fresh)?);
            fs::remove_file(&part).map_err(|e| Error::io("remove", e).file(part.display()))?;
        }
    }
    Ok(())
}

/// Checks that the parts of all files are there, each of its full length.
///
/// # Errors
/// `Io` naming the first that is not.
pub fn require_parts(dir: &Path, files: &[(String, u64)]) -> Result<()> {
    for (name, len) in files {
        let part = part_path(dir, name);
        let found = fs::metadata(&part).map_err(|e| Error::io("find", e).file(part.display()))?;
        if found.len() != *len {
            return Err(
                Error::mismatch(format!("{} bytes instead of {len}", found.len())).file(part.display())
            );
        }
    }
    Ok(())
}

/// Finishes a [`OutputSet::commit`] that a dead process had begun: every file of the set either is a part still, which
/// is complete and durable, or has its final name.
///
/// # Errors
/// `Io` naming the file that is neither, or cannot be renamed.
pub fn finish_commit<'a>(
    dir: &Path,
    names: impl DoubleEndedIterator<Item = &'a str>,
    existing: Existing,
) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for name in names.rev() {
        let (part, target) = (part_path(dir, name), dir.join(name));
        match rename(&part, &target, existing) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && target.is_file() => {}
            Err(e) => return Err(Error::io("rename the finished file", e).file(target.display())),
            Ok(()) => {}
        }
        paths.push(target);
    }
    let folders: BTreeSet<&Path> = paths.iter().filter_map(|p| p.parent()).collect();
    for folder in folders {
        let fail = |e| Error::io("sync the folder", e).file(folder.display());
        File::open(folder).and_then(|d| d.sync_all()).map_err(fail)?;
    }
    paths.reverse();
    Ok(paths)
}

/// Opens a part under a lock: empty, or with what an earlier run wrote.
fn claim(temporary: &Path, target: &Path, parts: Parts) -> Result<File> {
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
        let locked = if parts == Parts::Shared { file.try_lock_shared() } else { file.try_lock() };
        match locked {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::busy("another process is writing this file")
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
        if parts == Parts::Fresh {
            file.set_len(0).map_err(|e| fail("create", e))?;
        }
        return Ok(file);
    }
}

/// `O_NOFOLLOW`: a link planted under the part's name must not redirect the output.
fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
}

/// Bytes that an unprivileged process may still write in the folder's file system.
pub fn free_bytes(dir: &Path) -> Option<u64> {
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
    fn create(dir: &Path, files: &[(String, u64)], existing: Existing) -> Result<OutputSet> {
        OutputSet::open(dir, files, existing, Parts::Fresh)
    }
    fn files(list: &[(&str, u64)]) -> Vec<(String, u64)> {
        list.iter().map(|(n, l)| ((*n).to_owned(), *l)).collect()
    }

    #[test]
    fn files_appear_only_at_commit_with_zeros_between() {
        let tmp = tempfile::tempdir().unwrap();
        let set = create(tmp.path(), &files(&[("a.gguf", 8), ("b.gguf", 0)]), Existing::Refuse).unwrap();
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
        let e = create(tmp.path(), &files(&[("b", 1), ("a", 1)]), Existing::Refuse).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert!(e.hint_text().unwrap().contains("--force"));
        assert_eq!(names(tmp.path()), ["a"]);
        let set = create(tmp.path(), &files(&[("a", 3)]), Existing::Replace).unwrap();
        set.write_all_at(0, 0, b"new").unwrap();
        drop(set);
        assert_eq!(names(tmp.path()), ["a"]);
        assert_eq!(fs::read(tmp.path().join("a")).unwrap(), b"old");
        let set = create(tmp.path(), &files(&[("a", 3)]), Existing::Replace).unwrap();
        set.write_all_at(0, 0, b"new").unwrap();
        set.commit().unwrap();
        assert_eq!(fs::read(tmp.path().join("a")).unwrap(), b"new");
    }

    #[test]
    fn kept_parts_are_continued_and_a_begun_commit_is_finished() {
        let tmp = tempfile::tempdir().unwrap();
        let list = files(&[("a", 3), ("sub/b", 2)]);
        let mut set = create(tmp.path(), &list, Existing::Refuse).unwrap();
        set.keep(true);
        set.write_all_at(0, 0, b"x").unwrap();
        drop(set);
        assert_eq!(names(tmp.path()), [".a.tensormill-part", "sub"]);
        let mut set = OutputSet::open(tmp.path(), &list, Existing::Refuse, Parts::Resume).unwrap();
        set.write_all_at(0, 1, b"yz").unwrap();
        set.write_all_at(1, 0, b"ok").unwrap();
        assert_eq!(set.add("sums", b"12").unwrap(), 2);
        set.sync_data().unwrap();
        drop(set);
        // A process that died between two renames.
        fs::rename(tmp.path().join("sub/.b.tensormill-part"), tmp.path().join("sub/b")).unwrap();
        let paths = finish_commit(tmp.path(), ["a", "sub/b", "sums"].into_iter(), Existing::Refuse).unwrap();
        assert_eq!(
            paths.iter().map(|p| fs::read(p).unwrap()).collect::<Vec<_>>(),
            [&b"xyz"[..], b"ok", b"12"]
        );
        assert!(finish_commit(tmp.path(), ["none"].into_iter(), Existing::Refuse).is_err());
    }

    #[test]
    fn processes_that_share_the_work_share_the_parts() {
        let tmp = tempfile::tempdir().unwrap();
        let list = files(&[("a", 4)]);
        let shared = || OutputSet::open(tmp.path(), &list, Existing::Refuse, Parts::Shared);
        let (one, two) = (shared().unwrap(), shared().unwrap());
        one.write_all_at(0, 0, b"ab").unwrap();
        two.write_all_at(0, 2, b"cd").unwrap();
        assert!(
            OutputSet::open(tmp.path(), &list, Existing::Refuse, Parts::Resume).is_err(),
            "still being written"
        );
        assert!(discard_parts(tmp.path(), ["a"]).is_err());
        drop((one, two));
        let set = OutputSet::open(tmp.path(), &list, Existing::Refuse, Parts::Resume).unwrap();
        let mut back = [0; 4];
        set.read_exact_at(0, 0, &mut back).unwrap();
        assert_eq!(&back, b"abcd");
        drop(set);
        discard_parts(tmp.path(), ["a", "absent"]).unwrap();
        assert!(names(tmp.path()).is_empty());
    }

    #[test]
    fn a_name_taken_meanwhile_is_not_overwritten() {
        let tmp = tempfile::tempdir().unwrap();
        let set = create(tmp.path(), &files(&[("a", 1), ("b", 1)]), Existing::Refuse).unwrap();
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
        let set = create(tmp.path(), &files(&[("a", 4)]), Existing::Refuse).unwrap();
        let e = create(tmp.path(), &files(&[("a", 4)]), Existing::Refuse).err().unwrap();
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
        assert!(create(tmp.path(), &files(&[("a", 4)]), Existing::Refuse).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        let e = create(&tmp.path().join("none"), &files(&[("a", 4)]), Existing::Refuse).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Io);
        assert!(e.file_name().unwrap().ends_with("none"));
    }

    #[test]
    fn no_room_is_known_before_writing() {
        let tmp = tempfile::tempdir().unwrap();
        let e = create(tmp.path(), &files(&[("a", 1 << 60), ("b", 5)]), Existing::Refuse).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Io);
        assert!(e.to_string().contains(&((1u64 << 60) + 5).to_string()), "{e}");
        assert!(names(tmp.path()).is_empty());
    }
}
