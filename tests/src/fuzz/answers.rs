//! What servers of the Hub say, and what other programs note in the cache that they share with ours.

use super::expected;
use tensormill_hub::answers;

/// Objects that are asked for: those of the seeds.
const OBJECTS: [&str; 1] = ["bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"];

/// A document; its first byte says which kind of one.
pub fn hub(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    let result = match kind % 4 {
        0 => answers::tree_note(data).map(Option::unwrap_or_default),
        1 => answers::listing(data),
        2 => answers::info(data).map(|info| {
            let _ = info.license();
            Vec::new()
        }),
        _ => answers::objects_wanted(data, &OBJECTS).map(|_| Vec::new()),
    };
    match result {
        // As many bytes as files can have together can be counted.
        Ok(files) => assert!(files.iter().try_fold(0u64, |sum, f| sum.checked_add(f.size)).is_some()),
        Err(e) => {
            expected(&e);
            assert!(e.message().len() < 2000, "a long message");
        }
    }
}
