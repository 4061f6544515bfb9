//! The GGUF form: tensors `<name>.in_sum2` (sums of squares) and `<name>.counts` (one count per matrix), both
//! F32, and three `imatrix.*` keys. (llama.cpp, `common/imatrix-loader.cpp`.)

use super::{Importance, check_len};
use std::collections::BTreeMap;
use std::sync::Arc;
use tensormill_model::{Array, Error, Reader, Result, Value};
use tensormill_tensor::Encoding;

pub(super) fn read(reader: &dyn Reader) -> Result<Importance> {
    let index = reader.index();
    let mut out = Importance::default();
    let metadata = &index.metadata;
    let missing = |key: &str| Error::malformed(format!("not an importance matrix: the key {key} is missing"));
    let number = |key: &str| match metadata.get(key) {
        Some(Value::U32(v)) => Ok(*v as i32),
        Some(v) => Err(Error::malformed(format!("{key} must be u32, not {}", v.value_type().0))),
        None => Err(missing(key)),
    };
    let datasets = metadata.get("imatrix.datasets").ok_or_else(|| missing("imatrix.datasets"))?;
    match datasets.as_array() {
        Some(Array::Str(names)) => out.datasets.clone_from(names),
        Some(Array::Bytes(names)) => {
            out.datasets = names.iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect();
        }
        _ => {}
    }
    out.chunks = number("imatrix.chunk_count")?;
    number("imatrix.chunk_size")?;

    let mut pairs: BTreeMap<&str, (Option<usize>, Option<usize>)> = BTreeMap::new();
    for (i, t) in index.tensors.iter().enumerate() {
        if let Some(name) = t.name.strip_suffix(".in_sum2") {
            pairs.entry(name).or_default().0 = Some(i);
        } else if let Some(name) = t.name.strip_suffix(".counts") {
            pairs.entry(name).or_default().1 = Some(i);
        }
    }
    for (name, pair) in pairs {
        let (Some(sums), Some(counts)) = pair else {
            return Err(Error::malformed("sums without counts, or counts without sums").tensor(name));
        };
        let sums = values(reader, sums)?;
        let counts = values(reader, counts)?;
        let means = means(&sums, &counts).map_err(|e| e.tensor(name))?;
        out.entries.insert(name.to_owned(), means);
    }
    Ok(out)
}

fn values(reader: &dyn Reader, tensor: usize) -> Result<Vec<f32>> {
    let Some(spec) = reader.index().tensors.get(tensor) else { return Ok(Vec::new()) };
    if spec.encoding != Encoding::F32 {
        return Err(Error::malformed(format!("must be F32, not {}", spec.encoding)).tensor(&spec.name));
    }
    check_len(spec.shape.elements()).map_err(|e| e.tensor(&spec.name))?;
    let bytes = spec.bytes().map_err(|e| Error::from(e).tensor(&spec.name))?;
    let mut raw = vec![0u8; bytes as usize];
    reader.read(tensor, 0..spec.shape.rows(), &mut raw)?;
    Ok(raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// Mean per matrix; one everywhere for a matrix (an expert) that was never reached.
fn means(sums: &[f32], counts: &[f32]) -> Result<Arc<[f32]>> {
    if counts.is_empty() || sums.is_empty() || !sums.len().is_multiple_of(counts.len()) {
        return Err(Error::malformed(format!("{} sums for {} counts", sums.len(), counts.len())));
    }
    let columns = sums.len() / counts.len();
    let mut out = Vec::with_capacity(sums.len());
    for (row, count) in sums.chunks_exact(columns).zip(counts) {
        if !count.is_finite() {
            return Err(Error::malformed("a count is NaN or infinite"));
        }
        let count = count.round();
        if count > 0.0 {
            out.extend(row.iter().map(|s| s / count));
        } else {
            out.extend(row.iter().map(|_| 1.0));
        }
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::{Index, Place, Rows};
    use tensormill_tensor::{Shape, TensorSpec};

    struct Memory(Index, Vec<Vec<f32>>);
    impl Reader for Memory {
        fn index(&self) -> &Index {
            &self.0
        }
        fn read(&self, tensor: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
            let n = self.0.tensors[tensor].shape.row_len();
            let part = &self.1[tensor][(rows.start * n) as usize..(rows.end * n) as usize];
            out.copy_from_slice(&part.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
            Ok(())
        }
        fn place(&self, tensor: usize) -> Place {
            Place { file: 0, offset: tensor as u64 }
        }
    }

    fn file(tensors: &[(&str, &[u64], &[f32])]) -> Memory {
        let mut index = Index::default();
        index.metadata.set("imatrix.datasets", vec!["wiki.txt".to_owned(), "code.txt".to_owned()]);
        index.metadata.set("imatrix.chunk_count", 12u32);
        index.metadata.set("imatrix.chunk_size", 512u32);
        let mut data = Vec::new();
        for (name, dims, values) in tensors {
            index.tensors.push(TensorSpec::new(*name, Shape::new(dims.to_vec()).unwrap(), Encoding::F32));
            data.push(values.to_vec());
        }
        Memory(index, data)
    }

    #[test]
    fn sums_are_divided_per_expert_and_unreached_experts_weigh_one() {
        let m = file(&[
            ("e.in_sum2", &[2, 2], &[2.0, 8.0, 5.0, 7.0]),
            ("e.counts", &[2, 1], &[4.0, 0.0]),
            ("other", &[1], &[0.0]),
        ]);
        let i = Importance::from_reader(&m, "im.gguf").unwrap();
        assert_eq!(&*i.entries["e"], [0.5, 2.0, 1.0, 1.0]);
        assert_eq!((i.chunks, i.datasets[1].as_str(), i.entries.len()), (12, "code.txt", 1));
    }

    #[test]
    fn damaged_files_are_refused() {
        let refused = |m: &Memory| Importance::from_reader(m, "f").unwrap_err().to_string();
        assert!(refused(&file(&[("e.in_sum2", &[2], &[1.0, 1.0])])).contains("without counts"));
        let three = file(&[("e.in_sum2", &[3], &[1.0; 3]), ("e.counts", &[2], &[1.0; 2])]);
        assert!(refused(&three).contains("3 sums for 2 counts"));
        let none = file(&[("e.in_sum2", &[2], &[1.0; 2]), ("e.counts", &[0], &[])]);
        assert!(refused(&none).contains("0 counts"));
        let nan = file(&[("e.in_sum2", &[1], &[1.0]), ("e.counts", &[1], &[f32::NAN])]);
        assert!(refused(&nan).contains("NaN"));
        let overflow = file(&[("e.in_sum2", &[1], &[f32::INFINITY]), ("e.counts", &[1], &[1.0])]);
        assert!(refused(&overflow).contains("infinite"));
        let huge = file(&[("e.in_sum2", &[1 << 40], &[]), ("e.counts", &[1], &[1.0])]);
        assert!(refused(&huge).contains("at most"));
        let mut keyless = file(&[("e.in_sum2", &[1], &[1.0]), ("e.counts", &[1], &[1.0])]);
        keyless.0.metadata.remove("imatrix.chunk_size");
        assert!(refused(&keyless).contains("imatrix.chunk_size"));
        assert!(refused(&file(&[])).contains("no entries"));
    }
}
