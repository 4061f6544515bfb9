//! The archive around it: byte for byte what torch's `PyTorchStreamWriter` makes with miniz, from lengths alone.
//!
//! Members are stored, their data aligned by an extra field `FB` full of `Z`. Checksums follow the data in a descriptor,
//! and stand in the directory; sizes of four GiB and more, and offsets beyond that, stand in a 64-bit extra field.

use crate::files::zip::{CENTRAL, END, END64, EXTRA64, LOCAL, LOCAL_BYTES, LOCATOR64};
use tensormill_model::{ChecksumSlot, Error, FileLayout, Piece, Place, Result};

/// Alignment of members' data.
pub(super) const ALIGNMENT: u64 = 64;

/// Numbers from here on need 64 bits.
const WIDE: u64 = u32::MAX as u64;

/// General purpose flags: names are UTF-8; sizes and checksum follow the data.
const UTF8: u16 = 1 << 11;
const FOLLOWS: u16 = 1 << 3;

const DESCRIPTOR: [u8; 4] = *b"PK\x07\x08";

/// One file on its way.
pub(super) struct Zip {
    /// Name of the file, and the folder of the members in it, with a slash.
    name: String,
    folder: String,
    /// Number of the file in the layout.
    file: usize,
    pieces: Vec<Piece>,
    /// The piece at the end, which grows.
    run: Vec<u8>,
    run_at: u64,
    directory: Vec<u8>,
    members: u64,
    /// Where in the directory checksums of tensors go.
    slots: Vec<(usize, u64, u64)>,
}

impl Zip {
    pub fn new(name: String, folder: &str, file: usize) -> Self {
        Self {
            name,
            folder: format!("{folder}/"),
            file,
            pieces: Vec::new(),
            run: Vec::new(),
            run_at: 0,
            directory: Vec::new(),
            members: 0,
            slots: Vec::new(),
        }
    }

    fn position(&self) -> u64 {
        self.run_at + self.run.len() as u64
    }

    /// A member whose bytes are known.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) {
        let crc = crc32fast::hash(bytes);
        let start = self.open(name, bytes.len() as u64);
        self.run.extend_from_slice(bytes);
        self.close(name, start, bytes.len() as u64, crc);
    }

    /// A member that holds a tensor's bytes; gives their place.
    pub fn tensor(&mut self, name: &str, tensor: usize, len: u64) -> Result<Place> {
        let start = self.open(name, len);
        let at = self.position();
        let end = at.checked_add(len).filter(|n| *n < 1 << 63);
        let end = end.ok_or_else(|| Error::malformed("the file would be larger than 64 bits can count"))?;
        if len > 0 {
            let bytes = std::mem::take(&mut self.run);
            self.pieces.push(Piece { offset: self.run_at, bytes });
            self.run_at = end;
            self.slots.push((tensor, end + 4, self.directory.len() as u64 + 16));
        }
        self.close(name, start, len, 0);
        Ok(Place { file: self.file, offset: at })
    }

    /// Writes a local header; gives its position.
    fn open(&mut self, name: &str, len: u64) -> u64 {
        let start = self.position();
        let name = format!("{}{name}", self.folder);
        let wide = wide(len, 0, start);
        let aligned = start + LOCAL_BYTES + name.len() as u64 + wide.len() as u64 + 4;
        let padding = aligned.next_multiple_of(ALIGNMENT) - aligned;
        let flags = if len > 0 { UTF8 | FOLLOWS } else { UTF8 };
        self.run.extend(LOCAL);
        put16(&mut self.run, &[0, flags, 0, 0, 0]);
        put32(&mut self.run, &[0, 0, 0]);
        put16(&mut self.run, &[name.len() as u16, (wide.len() as u64 + 4 + padding) as u16]);
        self.run.extend(name.as_bytes());
        self.run.extend(wide);
        self.run.extend(b"FB");
        put16(&mut self.run, &[padding as u16]);
        self.run.extend(std::iter::repeat_n(b'Z', padding as usize));
        start
    }

    /// Writes what follows the data, and the entry in the directory.
    fn close(&mut self, name: &str, start: u64, len: u64, crc: u32) {
        let wide = wide(len, len, start);
        if len > 0 {
            self.run.extend(DESCRIPTOR);
            put32(&mut self.run, &[crc]);
            if wide.is_empty() {
                put32(&mut self.run, &[len as u32; 2]);
            } else {
                put64(&mut self.run, &[len; 2]);
            }
        }
        let name = format!("{}{name}", self.folder);
        let flags = if len > 0 { UTF8 | FOLLOWS } else { UTF8 };
        let d = &mut self.directory;
        d.extend(CENTRAL);
        put16(d, &[0, 0, flags, 0, 0, 0]);
        put32(d, &[crc, len.min(WIDE) as u32, len.min(WIDE) as u32]);
        put16(d, &[name.len() as u16, wide.len() as u16, 0, 0, 0]);
        put32(d, &[0, start.min(WIDE) as u32]);
        d.extend(name.as_bytes());
        d.extend(wide);
        self.members += 1;
    }

    /// Writes the directory; gives the file and the places of checksums.
    pub fn finish(mut self) -> (FileLayout, Vec<ChecksumSlot>) {
        let (at, len) = (self.position(), self.directory.len() as u64);
        self.run.append(&mut self.directory);
        let end64 = self.position();
        let out = &mut self.run;
        out.extend(END64);
        put64(out, &[44]);
        // Made by a Unix of APPNOTE 3.0, to be read by one of 4.5: what miniz writes.
        put16(out, &[0x031e, 45]);
        put32(out, &[0, 0]);
        put64(out, &[self.members, self.members, len, at]);
        out.extend(LOCATOR64);
        put32(out, &[0]);
        put64(out, &[end64]);
        put32(out, &[1]);
        out.extend(END);
        let members = self.members.min(0xffff) as u16;
        put16(out, &[0, 0, members, members]);
        put32(out, &[len.min(WIDE) as u32, at.min(WIDE) as u32]);
        put16(out, &[0]);
        let file = self.file;
        let slots = self.slots.iter().map(|&(tensor, descriptor, entry)| {
            let places = [descriptor, at + entry].map(|offset| Place { file, offset });
            ChecksumSlot { tensor, places: places.to_vec() }
        });
        let slots = slots.collect();
        let len = self.position();
        self.pieces.push(Piece { offset: self.run_at, bytes: self.run });
        let header = self.pieces.remove(0).bytes;
        (FileLayout { name: self.name, header, pieces: self.pieces, len }, slots)
    }
}

/// The 64-bit extra field, empty where it is not needed.
fn wide(len: u64, packed: u64, start: u64) -> Vec<u8> {
    let mut numbers = Vec::new();
    if len >= WIDE {
        numbers.extend([len, packed]);
    }
    if start >= WIDE {
        numbers.push(start);
    }
    let mut out = Vec::new();
    if !numbers.is_empty() {
        put16(&mut out, &[EXTRA64, 8 * numbers.len() as u16]);
        put64(&mut out, &numbers);
    }
    out
}

fn put16(out: &mut Vec<u8>, v: &[u16]) {
    out.extend(v.iter().flat_map(|n| n.to_le_bytes()));
}
fn put32(out: &mut Vec<u8>, v: &[u32]) {
    out.extend(v.iter().flat_map(|n| n.to_le_bytes()));
}
fn put64(out: &mut Vec<u8>, v: &[u64]) {
    out.extend(v.iter().flat_map(|n| n.to_le_bytes()));
}
