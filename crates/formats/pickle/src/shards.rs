//! Sharded models: file names. What an index file promises is checked by whoever opens the set.

/// Name of the index file in a model's folder.
pub const INDEX_NAME: &str = "pytorch_model.bin.index.json";

/// Weight files of a folder that has no index, from the names of its files: those that start with `pytorch_model` and
/// end with `.bin`, sorted, as llama.cpp's converter picks them.
pub fn part_names(files: &[String]) -> Vec<String> {
    let mut parts: Vec<String> = files
        .iter()
        .filter(|f| f.starts_with("pytorch_model") && f.strip_suffix(".bin").is_some())
        .cloned()
        .collect();
    parts.sort_unstable();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_picked_and_sorted() {
        let files = ["pytorch_model-2.bin", "training_args.bin", "pytorch_model-1.bin", "pytorch_model.txt"];
        assert_eq!(part_names(&files.map(String::from)), ["pytorch_model-1.bin", "pytorch_model-2.bin"]);
    }
}
