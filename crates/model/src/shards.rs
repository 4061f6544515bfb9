//! How a model is divided among files: the bounds on each, and what the Hugging Face libraries make of them.

/// Bounds on one file of several; zero, like nothing, is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardLimits {
    /// Bytes of tensor data.
    pub bytes: Option<u64>,
    /// Number of tensors.
    pub tensors: Option<u64>,
}

impl ShardLimits {
    /// Whether a file with this many tensors of these bytes in all is within the bounds.
    pub fn allow(self, tensors: u64, bytes: u64) -> bool {
        let within = |bound: Option<u64>, n| bound.is_none_or(|b| b == 0 || n <= b);
        within(self.tensors, tensors) && within(self.bytes, bytes)
    }
}

/// A file name in front of and behind the number of a shard: Python's stem and suffix.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(i) if i > 0 => name.split_at(i),
        _ => (name, ""),
    }
}

/// Name without its suffix.
pub fn stem(name: &str) -> &str {
    split(name).0
}

/// Name of shard `no` (from one).
pub fn shard_name(name: &str, no: usize, count: usize) -> String {
    let (stem, suffix) = split(name);
    format!("{stem}-{no:05}-of-{count:05}{suffix}")
}

/// Divides tensors of these sizes as `split_state_dict_into_shards_factory` of huggingface_hub does (which knows no bound
/// on numbers): a tensor larger than the limit gets a file of its own; others go into one file until the next would put
/// it over a limit. Gives the file of each tensor, counted from zero, and the number of files.
pub fn divide(sizes: &[u64], max: ShardLimits) -> (Vec<usize>, usize) {
    // Files get their numbers when they are closed; the open one's tensors wait.
    let mut files = vec![0; sizes.len()];
    let mut count = 0;
    let (mut open, mut sum) = (Vec::new(), 0u64);
    let mut close = |open: &mut Vec<usize>, files: &mut [usize]| {
        for i in open.drain(..) {
            files[i] = count;
        }
        count += 1;
    };
    for (i, &bytes) in sizes.iter().enumerate() {
        if !max.allow(1, bytes) {
            close(&mut vec![i], &mut files);
            continue;
        }
        if !open.is_empty() && !max.allow(open.len() as u64 + 1, sum.saturating_add(bytes)) {
            close(&mut open, &mut files);
            sum = 0;
        }
        open.push(i);
        sum = sum.saturating_add(bytes);
    }
    if !open.is_empty() || sizes.is_empty() {
        close(&mut open, &mut files);
    }
    (files, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_divided_as_the_hub_library_does() {
        let bytes = |n| ShardLimits { bytes: Some(n), tensors: None };
        assert_eq!(divide(&[5, 5, 5], ShardLimits::default()), (vec![0, 0, 0], 1));
        assert_eq!(divide(&[5, 5, 5], bytes(0)), (vec![0, 0, 0], 1));
        assert_eq!(divide(&[5, 5, 5], bytes(10)), (vec![0, 0, 1], 2));
        // The large one is closed before the file that was open around it.
        assert_eq!(divide(&[1, 50, 1, 10], bytes(10)), (vec![1, 0, 1, 2], 3));
        assert_eq!(divide(&[], bytes(10)), (vec![], 1));
        let both = ShardLimits { bytes: Some(10), tensors: Some(2) };
        assert_eq!(divide(&[1, 1, 1, 50, 1, 9, 1], both), (vec![0, 0, 2, 1, 2, 3, 3], 4));
        assert_eq!(shard_name("pytorch_model.bin", 2, 11), "pytorch_model-00002-of-00011.bin");
        assert_eq!(stem("a.b.pt"), "a.b");
    }
}
