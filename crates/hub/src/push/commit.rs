//! Sending a commit so that it is made once, on top of the commit that it was planned for, or not at all.
//!
//! An answer can get lost, and servers are known to fail after they have made a commit. So whatever is not a clear
//! answer is settled by looking: where the branch stands, and whether it holds what was sent.

use super::{
    body::{Commit, Header, Operation, Sending},
    remote,
    wire::{PATIENCE, Wire, value},
};
use crate::{
    Snapshot,
    client::{Payload, Request, Response},
};
use std::io::Read;
use tensormill_model::{Error, Result};

/// What became of a commit.
#[derive(Debug)]
pub enum Outcome {
    /// It is there, under this name.
    Made(String),
    /// The server did not manage it; fewer files at a time may do.
    TooMuch(Error),
}

/// Answers that leave open whether the commit was made: it moved on, another commit is being made, or the server is in
/// trouble.
const UNCLEAR: [u16; 6] = [408, 409, 412, 500, 502, 504];
const ACCEPTED: [u16; 7] = [408, 409, 412, 413, 500, 502, 504];

/// Commits to `revision`, which must stand at the header's parent. `holds` says whether a commit has what the operations
/// do.
pub fn send(
    wire: Wire<'_>,
    revision: &str,
    header: &Header<'_>,
    operations: &[Operation],
    holds: &dyn Fn(&Snapshot) -> bool,
    sending: &Sending<'_>,
) -> Result<Outcome> {
    let commit = Commit::new(header, operations);
    let mut attempts = wire.hub.client().retry().start();
    loop {
        let error = match post(wire, revision, &commit, sending) {
            Ok(answer) if answer.status() == 413 => return Ok(Outcome::TooMuch(wire.error(answer))),
            Ok(answer) if UNCLEAR.contains(&answer.status()) => wire.error(answer),
            Ok(answer) => match value(answer) {
                Ok(said) => {
                    return match said["commitOid"].as_str() {
                        Some(oid) => Ok(Outcome::Made(oid.to_owned())),
                        None => Err(Error::malformed("the server gave the commit no name")),
                    };
                }
                // It broke off.
                Err(e) if e.is_transient() => e,
                Err(e) => return Err(e),
            },
            Err(e) => {
                // What went wrong on this side comes first: somebody asked to stop, a file changed.
                sending.check()?;
                if !e.is_transient() {
                    return Err(e);
                }
                e
            }
        };
        tracing::debug!(%error, "looking whether the commit was made");
        let now = remote::head(wire, revision)?;
        if now.as_deref() != header.parent {
            let Some(now) = now else { return Err(error) };
            if holds(&remote::tree(wire, &now)?) {
                return Ok(Outcome::Made(now));
            }
            return Err(overtaken(wire.repo(), revision));
        }
        if !attempts.again(None) {
            return Ok(Outcome::TooMuch(error));
        }
    }
}

fn post(wire: Wire<'_>, revision: &str, commit: &Commit, sending: &Sending<'_>) -> Result<Response> {
    let open = || -> Result<Box<dyn Read + '_>> {
        sending.check()?;
        Ok(Box::new(commit.reader(sending)))
    };
    let payload = Payload::Stream { len: commit.len(), open: &open, kind: "application/x-ndjson" };
    let request = Request::post(wire.api_at("commit", revision)?, payload).once().patience(PATIENCE);
    wire.hub.client().send(&request.about(wire.about()).accept(&ACCEPTED))
}

fn overtaken(repo: &str, revision: &str) -> Error {
    Error::busy(format!("somebody else has committed to {revision} of {repo} since this began; nothing of theirs was touched")).hint(
        "run the same command again: what is uploaded stays there, and only what is missing is committed on top of theirs",
    )
}
