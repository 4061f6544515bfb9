//! What loaders would execute, in what a user points at: paths, and repositories of the Hub, which are read where they are.

use crate::location::{Access, Location};
use tensormill_model::Result;
pub use tensormill_scan::*;

/// Looks at files and folders, wherever they are. Of files on the Hub, as much is read as is looked at.
///
/// # Errors
/// As [`scan`], and where a repository cannot be reached.
pub fn scan_at(locations: &[Location], access: &Access) -> Result<Report> {
    let target = |at: &Location| match at {
        Location::Local(path) => Ok(Target::Path(path.clone())),
        Location::Hub(address) => {
            let (dir, names) = access.listed(address)?;
            let at = dir.label();
            Ok(Target::Listing(Listing { at, names, open: Box::new(move |name| dir.open(name)) }))
        }
    };
    scan_all(&locations.iter().map(target).collect::<Result<Vec<_>>>()?)
}
