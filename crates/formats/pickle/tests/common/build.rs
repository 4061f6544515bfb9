//! Checkpoints put together by hand: pickles from opcodes, archives from members, with every lie that is wanted.

/// A pickle of protocol 2 from pieces of opcodes.
pub fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    [b"\x80\x02", &parts.concat()[..], b"."].concat()
}

/// `BINUNICODE`.
pub fn text(s: &str) -> Vec<u8> {
    [b"X", &(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat()
}

/// `LONG1` of eight bytes.
pub fn long(n: i64) -> Vec<u8> {
    [b"\x8a\x08", &n.to_le_bytes()[..]].concat()
}

/// A storage as it is persistent: class, key, number of elements.
pub fn storage(class: &str, key: &str, numel: i64) -> Vec<u8> {
    let class = format!("ctorch\n{class}\n");
    [b"(", &text("storage")[..], class.as_bytes(), &text(key), &text("cpu"), &long(numel), b"tQ"].concat()
}

fn ints(v: &[i64]) -> Vec<u8> {
    [b"(", &v.iter().flat_map(|n| long(*n)).collect::<Vec<_>>()[..], b"t"].concat()
}

/// A tensor of this storage.
pub fn tensor(storage: &[u8], offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        storage,
        &long(offset),
        &ints(size),
        &ints(stride),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

/// A float tensor of four elements of storage `0`.
pub fn four() -> Vec<u8> {
    tensor(&storage("FloatStorage", "0", 4), 0, &[2, 2], &[2, 1])
}

/// `{key: value, ...}`.
pub fn dict(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let items: Vec<u8> = entries.iter().flat_map(|(k, v)| [text(k), v.to_vec()].concat()).collect();
    [b"}(", &items[..], b"u"].concat()
}

/// One member of an archive, and what is said about it.
#[derive(Clone)]
pub struct Member {
    pub name: String,
    pub method: u16,
    pub flags: u16,
    pub crc: u32,
    /// Bytes in the file.
    pub data: Vec<u8>,
    /// Lengths in the directory; in the local header where they fit.
    pub packed: u64,
    pub len: u64,
    /// Position of the local header in the directory, instead of the true one.
    pub at: Option<u64>,
    /// Name in the local header, instead of the same.
    pub local_name: Option<String>,
}

impl Member {
    pub fn stored(name: &str, data: impl Into<Vec<u8>>) -> Self {
        let data = data.into();
        let len = data.len() as u64;
        let crc = crc32fast::hash(&data);
        let name = name.to_owned();
        Self { name, method: 0, flags: 0, crc, data, packed: len, len, at: None, local_name: None }
    }
    pub fn deflated(name: &str, data: &[u8]) -> Self {
        let packed = miniz_oxide::deflate::compress_to_vec(data, 9);
        let crc = crc32fast::hash(data);
        Self { method: 8, len: data.len() as u64, crc, ..Self::stored(name, packed) }
    }
}

/// A zip archive; numbers that need it are written with 64 bits.
pub fn zip(members: &[Member]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for m in members {
        let at = m.at.unwrap_or(out.len() as u64);
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let wide: Vec<u8> = [m.len, m.packed, at]
            .iter()
            .filter(|n| **n >= u64::from(u32::MAX))
            .flat_map(|n| n.to_le_bytes())
            .collect();
        let extra = if wide.is_empty() { vec![] } else { [&[1, 0, wide.len() as u8, 0][..], &wide].concat() };
        let name = m.local_name.as_ref().unwrap_or(&m.name);
        out.extend(b"PK\x03\x04\x14\0");
        out.extend(m.flags.to_le_bytes());
        out.extend(m.method.to_le_bytes());
        out.extend([0; 4]);
        out.extend(m.crc.to_le_bytes());
        out.extend([small(m.packed), small(m.len)].concat());
        out.extend((name.len() as u16).to_le_bytes());
        out.extend([0; 2]);
        out.extend(name.as_bytes());
        out.extend(&m.data);
        directory.extend(b"PK\x01\x02\x14\0\x14\0");
        directory.extend(m.flags.to_le_bytes());
        directory.extend(m.method.to_le_bytes());
        directory.extend([0; 4]);
        directory.extend(m.crc.to_le_bytes());
        directory.extend([small(m.packed), small(m.len)].concat());
        directory.extend((m.name.len() as u16).to_le_bytes());
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]);
        directory.extend(small(at));
        directory.extend(m.name.as_bytes());
        directory.extend(extra);
    }
    let (start, count) = (out.len() as u32, members.len() as u16);
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    out.extend([(directory.len() as u32).to_le_bytes(), start.to_le_bytes()].concat());
    out.extend([0; 2]);
    out
}

/// An archive of a pickle, and storage `0` of 16 bytes.
pub fn archive(pickle: Vec<u8>) -> Vec<u8> {
    zip(&[Member::stored("a/data.pkl", pickle), Member::stored("a/data/0", vec![7; 16])])
}

/// A legacy file: an object, keys, and what follows them.
pub fn legacy(object: &[u8], keys: &[&str], rest: &[u8]) -> Vec<u8> {
    let magic = pickle(&[b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"]);
    let keys: Vec<u8> = keys.iter().flat_map(|k| text(k)).collect();
    [
        magic,
        pickle(&[b"M\xe9\x03"]),
        pickle(&[b"}"]),
        object.to_vec(),
        pickle(&[b"](", &keys, b"e"]),
        rest.to_vec(),
    ]
    .concat()
}
