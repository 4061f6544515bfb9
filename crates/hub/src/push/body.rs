//! Request bodies that are read from files while they are sent: a range of a file, and the lines of a commit. Neither is
//! ever in memory as a whole, and both know their length beforehand and can be made again for another try.

use super::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tensormill_model::{Error, Result};

/// Bytes of a file that are read at a time; a multiple of three, so that base64 of portions can be joined.
const PORTION: usize = 48 << 10;

/// What a body's readers share: who hears of bytes that are on their way, and what went wrong on this side, which an HTTP
/// library can only take for a broken connection.
pub struct Sending<'a> {
    advanced: &'a (dyn Fn(u64) -> Result<()> + Sync),
    failed: Mutex<Option<Error>>,
}

impl<'a> Sending<'a> {
    /// `advanced` hears how many bytes were read; an error stops the request.
    pub fn new(advanced: &'a (dyn Fn(u64) -> Result<()> + Sync)) -> Self {
        Self { advanced, failed: Mutex::new(None) }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Error>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an error, for whoever started the request.
    fn fail(&self, e: Error) -> io::Error {
        let told = io::Error::other(e.message().to_owned());
        self.slot().get_or_insert(e);
        told
    }

    fn advance(&self, bytes: usize) -> io::Result<()> {
        (self.advanced)(bytes as u64).map_err(|e| self.fail(e))
    }

    /// What went wrong on this side, if anything did. No further try helps then.
    pub fn check(&self) -> Result<()> {
        self.slot().clone().map_or(Ok(()), Err)
    }
}

/// Some bytes of a file, read as they are asked for.
pub struct Range<'a> {
    file: Arc<File>,
    at: u64,
    end: u64,
    sending: &'a Sending<'a>,
}

impl<'a> Range<'a> {
    /// Bytes `at..end` of a file.
    pub fn new(file: Arc<File>, at: u64, end: u64, sending: &'a Sending<'a>) -> Self {
        Self { file, at, end, sending }
    }
}

impl Read for Range<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = (self.end - self.at).min(out.len() as u64) as usize;
        if n == 0 {
            return Ok(0);
        }
        let n =
            self.file.read_at(&mut out[..n], self.at).map_err(|e| self.sending.fail(Error::io("read", e)))?;
        if n == 0 {
            return Err(self.sending.fail(digest::changed()));
        }
        self.at += n as u64;
        self.sending.advance(n)?;
        Ok(n)
    }
}

/// What a commit does to one file.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Its bytes come with the commit.
    Regular { name: String, path: PathBuf, size: u64 },
    /// Its bytes were uploaded before.
    Lfs { name: String, sha256: String, size: u64 },
    /// It goes.
    Delete { name: String },
}

/// What is said of a commit as a whole.
#[derive(Clone, Debug)]
pub struct Header<'a> {
    pub summary: &'a str,
    pub description: &'a str,
    /// The commit that it must follow.
    pub parent: Option<&'a str>,
}

enum Piece {
    Text(Vec<u8>),
    /// Base64 of a file that must have this size.
    File(PathBuf, u64),
}

/// The lines of a commit (`application/x-ndjson`).
pub struct Commit {
    pieces: Vec<Piece>,
    len: u64,
}

impl Commit {
    /// A header line, and one for each operation.
    pub fn new(header: &Header<'_>, operations: &[Operation]) -> Self {
        let mut first = json!({ "summary": header.summary, "description": header.description });
        if let Some(parent) = header.parent {
            first["parentCommit"] = parent.into();
        }
        let mut this = Self { pieces: Vec::new(), len: 0 };
        this.line("header", &first);
        for operation in operations {
            match operation {
                Operation::Regular { name, path, size } => {
                    this.text(br#"{"key":"file","value":{"content":""#.to_vec());
                    this.len += size.div_ceil(3) * 4;
                    this.pieces.push(Piece::File(path.clone(), *size));
                    let name = Value::from(name.as_str());
                    this.text(format!("\",\"path\":{name},\"encoding\":\"base64\"}}}}\n").into_bytes());
                }
                Operation::Lfs { name, sha256, size } => this
                    .line("lfsFile", &json!({ "path": name, "algo": "sha256", "oid": sha256, "size": size })),
                Operation::Delete { name } => this.line("deletedFile", &json!({ "path": name })),
            }
        }
        this
    }

    fn line(&mut self, key: &str, value: &Value) {
        self.text(format!("{}\n", json!({ "key": key, "value": value })).into_bytes());
    }

    fn text(&mut self, text: Vec<u8>) {
        self.len += text.len() as u64;
        match self.pieces.last_mut() {
            Some(Piece::Text(last)) => last.extend(text),
            _ => self.pieces.push(Piece::Text(text)),
        }
    }

    /// Bytes of all lines.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads the lines, from their beginning.
    pub fn reader<'a>(&'a self, sending: &'a Sending<'a>) -> CommitReader<'a> {
        CommitReader { pieces: self.pieces.iter(), file: None, ready: Vec::new(), at: 0, sending }
    }
}

/// Reads a [`Commit`].
pub struct CommitReader<'a> {
    pieces: std::slice::Iter<'a, Piece>,
    /// The file at work, and how much of it is left.
    file: Option<(File, &'a Path, u64)>,
    ready: Vec<u8>,
    at: usize,
    sending: &'a Sending<'a>,
}

impl CommitReader<'_> {
    /// Fills `ready` again; `false` at the end.
    fn more(&mut self) -> io::Result<bool> {
        (self.at, self.ready) = (0, Vec::new());
        let sending = self.sending;
        if let Some((file, path, left)) = &mut self.file {
            let changed = |_| sending.fail(digest::changed().file(name_of(path)));
            let mut bytes = vec![0; PORTION.min(*left as usize)];
            file.read_exact(&mut bytes).map_err(changed)?;
            *left -= bytes.len() as u64;
            if *left == 0 {
                if file.read(&mut [0])? != 0 {
                    return Err(changed(io::ErrorKind::InvalidData.into()));
                }
                self.file = None;
            }
            sending.advance(bytes.len())?;
            self.ready = STANDARD.encode(&bytes).into_bytes();
            return Ok(true);
        }
        match self.pieces.next() {
            None => return Ok(false),
            Some(Piece::Text(text)) => self.ready.clone_from(text),
            // Nothing to encode.
            Some(Piece::File(_, 0)) => {}
            Some(Piece::File(path, size)) => {
                let opened = File::open(path);
                let file = opened.map_err(|e| sending.fail(Error::io("open", e).file(name_of(path))))?;
                self.file = Some((file, path, *size));
            }
        }
        Ok(true)
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

impl Read for CommitReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.ready.len() {
            if !self.more()? {
                return Ok(0);
            }
        }
        let n = out.len().min(self.ready.len() - self.at);
        out[..n].copy_from_slice(&self.ready[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Opens a file for reading ranges of it, if it still has this size.
pub fn open(path: &Path, size: u64) -> Result<Arc<File>> {
    let file = File::open(path).map_err(|e| Error::io("open", e))?;
    let len = file.metadata().map_err(|e| Error::io("inspect", e))?.len();
    if len == size { Ok(Arc::new(file)) } else { Err(digest::changed()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::ErrorKind;

    fn lines(commit: &Commit) -> Vec<Value> {
        let mut text = String::new();
        let sending = Sending::new(&|_| Ok(()));
        commit.reader(&sending).read_to_string(&mut text).unwrap();
        assert_eq!(text.len() as u64, commit.len());
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn lines_are_made_of_files_while_they_are_read() {
        let tmp = tempfile::tempdir().unwrap();
        // Around the portions: nothing, one, two and three bytes beside them.
        for size in [0, 1, 2, 3, PORTION - 1, PORTION, PORTION + 1, 2 * PORTION + 2] {
            let path = tmp.path().join("file");
            let bytes: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let regular = Operation::Regular { name: "a \"b\".txt".into(), path, size: size as u64 };
            let lfs = Operation::Lfs { name: "w.gguf".into(), sha256: "ab".into(), size: 5 };
            let header = Header { summary: "S\n", description: "", parent: Some("p") };
            let commit = Commit::new(&header, &[regular, lfs, Operation::Delete { name: "old".into() }]);
            let lines = lines(&commit);
            assert_eq!(lines.len(), 4);
            assert_eq!(lines[0]["value"], json!({"summary": "S\n", "description": "", "parentCommit": "p"}));
            assert_eq!(
                (&lines[1]["key"], &lines[1]["value"]["path"]),
                (&json!("file"), &json!("a \"b\".txt"))
            );
            let content = lines[1]["value"]["content"].as_str().unwrap();
            assert_eq!(STANDARD.decode(content).unwrap(), bytes);
            assert_eq!(
                lines[2],
                json!({"key": "lfsFile", "value": {"path": "w.gguf", "algo": "sha256", "oid": "ab", "size": 5}})
            );
            assert_eq!(lines[3], json!({"key": "deletedFile", "value": {"path": "old"}}));
        }
    }

    #[test]
    fn a_file_that_grew_or_shrank_is_not_sent() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        for size in [4, 6] {
            let operation = Operation::Regular { name: "f".into(), path: path.clone(), size };
            let header = Header { summary: "s", description: "", parent: None };
            let commit = Commit::new(&header, &[operation]);
            let sending = Sending::new(&|_| Ok(()));
            assert!(commit.reader(&sending).read_to_end(&mut Vec::new()).is_err());
            assert_eq!(sending.check().unwrap_err().kind(), ErrorKind::Mismatch);
            assert!(open(&path, size).is_err());
        }
        let sending = Sending::new(&|_| Ok(()));
        let mut range = Range::new(open(&path, 5).unwrap(), 1, 4, &sending);
        let mut text = String::new();
        range.read_to_string(&mut text).unwrap();
        assert_eq!(text, "234");
    }
}
