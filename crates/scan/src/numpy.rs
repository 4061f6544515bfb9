//! numpy's `.npy`: a header that is a Python literal, then numbers, or one pickle where the elements are objects.
//! Definition: `numpy/lib/format.py`.

use crate::{
    bytes::Cursor,
    finding::{Place, Sink},
    pickle::{self, Sure},
    rules,
};
use tensormill_model::{Error, Result, Store};

pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";
/// numpy refuses longer headers unless it is told otherwise.
const MAX_HEADER: u64 = 64 << 10;

/// Looks at one array.
pub(crate) fn scan(store: &dyn Store, sink: &mut Sink<'_>) {
    match header(store) {
        Ok((text, data)) => {
            // `'descr': '|O'`, and `O` as a field's type in a list of fields.
            if text.contains("|O") || text.contains("'O'") || text.contains("'O8'") || text.contains("\"O\"")
            {
                sink.add(&rules::NUMPY_OBJECT, Place::at(data), text.trim());
                pickle::sequence_from(store, data, Sure::Yes, sink);
            }
        }
        Err(e) => {
            let mut head = [0; 2];
            let is_pickle =
                store.len() > 2 && store.read_at(0, &mut head).is_ok() && pickle::is_pickle(&head);
            // `numpy.load` goes by content: without the magic number it is a pickle.
            if is_pickle {
                sink.add(&rules::FILE_PICKLE, Place::at(0), "numpy.load takes what is no array for a pickle");
                pickle::sequence(store, Sure::Yes, sink);
            } else {
                sink.add(&rules::FILE_FORMAT, Place::at(e.offset().unwrap_or(0)), e.message());
            }
        }
    }
}

fn header(store: &dyn Store) -> Result<(String, u64)> {
    let mut c = Cursor::new(store);
    if c.array::<6>()? != MAGIC {
        return Err(Error::malformed("this is no numpy array").at(0));
    }
    let major = c.u8()?;
    c.skip(1)?;
    let len = if major == 1 { u64::from(c.u16()?) } else { u64::from(c.u32()?) };
    if len > MAX_HEADER {
        return Err(Error::malformed(format!("a header of {len} bytes")).at(8));
    }
    let text = c.text(len, MAX_HEADER)?;
    Ok((text, c.at))
}
