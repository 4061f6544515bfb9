//! How the Hugging Face libraries divide a checkpoint among files, and what they call these.

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

/// Divides tensors of these sizes as `split_state_dict_into_shards_factory` of huggingface_hub does: a tensor larger
/// than the limit gets a file of its own; others go into one file until the next would put it over the limit. Gives the
/// file of each tensor, counted from zero, and the number of files.
pub fn divide(sizes: &[u64], max: Option<u64>) -> (Vec<usize>, usize) {
    let Some(max) = max.filter(|m| *m > 0) else { return (vec![0; sizes.len()], 1) };
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
        if bytes > max {
            close(&mut vec![i], &mut files);
            continue;
        }
        if sum.saturating_add(bytes) > max {
            close(&mut open, &mut files);
            sum = 0;
        }
        open.push(i);
        sum += bytes;
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
        assert_eq!(divide(&[5, 5, 5], None), (vec![0, 0, 0], 1));
        assert_eq!(divide(&[5, 5, 5], Some(10)), (vec![0, 0, 1], 2));
        // The large one is closed before the file that was open around it.
        assert_eq!(divide(&[1, 50, 1, 10], Some(10)), (vec![1, 0, 1, 2], 3));
        assert_eq!(divide(&[], Some(10)), (vec![], 1));
        assert_eq!(shard_name("pytorch_model.bin", 2, 11), "pytorch_model-00002-of-00011.bin");
        assert_eq!(stem("a.b.pt"), "a.b");
    }
}
