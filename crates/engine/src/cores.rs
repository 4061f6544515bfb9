//! How many workers compute at one time.
//!
//! There are more workers than compute permits, so that while some wait for a disk others compute: reading ahead and
//! writing behind are nothing more than workers that hold no permit. Must not know what is computed.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Permits to compute.
pub(crate) struct Cores {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Cores {
    pub(crate) fn new(permits: usize) -> Self {
        Self { free: Mutex::new(permits), freed: Condvar::new() }
    }

    /// Runs `f` under a permit; gives its result, how long it waited and how long it took.
    pub(crate) fn run<T>(&self, f: impl FnOnce() -> T) -> (T, Duration, Duration) {
        let asked = Instant::now();
        self.take();
        let permit = Permit(self);
        let start = Instant::now();
        let value = f();
        let took = start.elapsed();
        drop(permit);
        (value, start - asked, took)
    }
}

impl Cores {
    /// Runs `f`, which waits for something, while somebody else may have the permit that the caller holds.
    pub(crate) fn lend<T>(&self, f: impl FnOnce() -> T) -> T {
        self.give_back();
        let _back = Taken(self);
        f()
    }

    fn take(&self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
    }

    fn give_back(&self) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.freed.notify_one();
    }
}

/// Takes the permit again when dropped, also when what was waited for panics: its holder gives it back.
struct Taken<'a>(&'a Cores);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// Goes back when dropped, also when the computation panics.
struct Permit<'a>(&'a Cores);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    #[test]
    fn no_more_run_at_once_than_there_are_permits() {
        let (cores, inside, most) = (Cores::new(2), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|s| {
            for _ in 0..6 {
                s.spawn(|| {
                    for _ in 0..50 {
                        cores.run(|| {
                            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            cores.lend(thread::yield_now);
                            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        assert!((1..=2).contains(&most.into_inner()));
        // A panic gives its permit back.
        for _ in 0..3 {
            let caught =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cores.run(|| panic!("on purpose"))));
            assert!(caught.is_err());
            let lent = || cores.run(|| cores.lend(|| panic!("on purpose")));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(lent)).is_err());
        }
        assert_eq!(*cores.free.lock().unwrap(), 2);
        assert_eq!(cores.run(|| 7).0, 7);
    }
}
