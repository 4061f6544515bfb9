//! What is worth doing again, how often, and after how long.
//!
//! Waiting doubles from attempt to attempt up to a bound, and each wait is drawn from its upper half, so that processes that were
//! turned away together do not come back together. A server that says how long to wait is believed, within reason.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Longest wait that a server may ask for; beyond it the request fails and says so.
const LONGEST: Duration = Duration::from_mins(5);

/// How often something is tried, and how long is waited in between.
#[derive(Clone)]
pub struct Retry {
    /// Attempts, the first one included; at least 1. What makes progress (a download that goes on) starts counting again.
    pub attempts: u32,
    /// The first wait.
    pub first: Duration,
    /// The longest wait that is not the server's wish.
    pub longest: Duration,
    /// What waiting is. Tests put something here that does not take time.
    pub pause: Arc<dyn Fn(Duration) + Send + Sync>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 6,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(16),
            pause: Arc::new(std::thread::sleep),
        }
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("attempts", &self.attempts)
            .field("first", &self.first)
            .field("longest", &self.longest)
            .finish_non_exhaustive()
    }
}

impl Retry {
    /// As often as by default, without waiting.
    pub fn at_once() -> Self {
        Self { pause: Arc::new(|_| {}), ..Self::default() }
    }

    /// A count of attempts that begins now.
    pub fn start(&self) -> Attempts<'_> {
        Attempts { policy: self, failed: 0 }
    }
}

/// Attempts at one thing.
pub struct Attempts<'a> {
    policy: &'a Retry,
    failed: u32,
}

impl Attempts<'_> {
    /// Notes a failure; waits and gives true where another attempt is due.
    pub fn again(&mut self, asked: Option<Duration>) -> bool {
        self.failed += 1;
        if self.failed >= self.policy.attempts || asked.is_some_and(|wait| wait > LONGEST) {
            return false;
        }
        let doubled = self.policy.first.saturating_mul(1 << (self.failed - 1).min(16));
        let wait = match asked {
            Some(wait) => wait,
            None => jitter(doubled.min(self.policy.longest)),
        };
        (self.policy.pause)(wait);
        true
    }

    /// Something came of the last attempt: the count begins anew.
    pub fn progressed(&mut self) {
        self.failed = 0;
    }

    /// How many attempts failed since the last progress.
    pub fn failed(&self) -> u32 {
        self.failed
    }
}

/// Between half of `wait` and all of it, by the clock's low digits: enough to spread processes.
fn jitter(wait: Duration) -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let mixed = (u64::from(nanos) ^ u64::from(std::process::id())).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    wait / 2 + (wait / 2).mul_f64((mixed >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn waits_double_up_to_a_bound_and_spread() {
        let waits = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&waits);
        let retry = Retry {
            attempts: 5,
            first: Duration::from_secs(2),
            longest: Duration::from_secs(6),
            pause: Arc::new(move |d| noted.lock().unwrap().push(d)),
        };
        let mut attempts = retry.start();
        assert!((0..4).all(|_| attempts.again(None)));
        assert!(!attempts.again(None));
        let waits = waits.lock().unwrap().clone();
        for (wait, top) in waits.iter().zip([2.0, 4.0, 6.0, 6.0]) {
            assert!((top / 2.0..=top).contains(&wait.as_secs_f64()), "{waits:?}");
        }
    }

    #[test]
    fn a_server_is_believed_within_reason() {
        let waits = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&waits);
        let retry = Retry { pause: Arc::new(move |d| noted.lock().unwrap().push(d)), ..Retry::default() };
        assert!(retry.start().again(Some(Duration::from_secs(100))));
        assert!(!retry.start().again(Some(Duration::from_hours(1))));
        assert_eq!(*waits.lock().unwrap(), [Duration::from_secs(100)]);
    }

    #[test]
    fn progress_starts_the_count_again() {
        let retry = Retry { attempts: 2, ..Retry::at_once() };
        let mut attempts = retry.start();
        for _ in 0..10 {
            assert!(attempts.again(None));
            attempts.progressed();
        }
        assert!(attempts.again(None) && !attempts.again(None));
    }
}
