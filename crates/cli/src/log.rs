//! Log lines on standard error, where `RUST_LOG` asks for them.

use std::{env, io};
use tracing_subscriber::{
    Layer, filter::Targets, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt,
};

/// Which lines: `info`, `debug`, `tensormill_engine=debug,info`.
const VARIABLE: &str = "RUST_LOG";

/// Whether log lines are asked for.
pub fn wanted() -> bool {
    env::var_os(VARIABLE).is_some_and(|v| !v.is_empty())
}

/// Starts logging where it is asked for. Gives a note when what is asked for makes no sense.
pub fn start() -> Option<String> {
    if !wanted() {
        return None;
    }
    let text = env::var(VARIABLE).unwrap_or_default();
    let targets: Targets = match text.parse() {
        Ok(targets) if !text.is_empty() => targets,
        _ => {
            return Some(format!(
                "{VARIABLE} is not understood and ignored; write it like info, or tensormill=debug"
            ));
        }
    };
    let lines = fmt::layer().with_writer(io::stderr).with_filter(targets);
    // A logger that stands already (there is none in this program) would stay.
    let _ = registry().with(lines).try_init();
    None
}
