//! Work that is generic over [`Scan`], run at a level that is chosen while the program runs.
//!
//! For functions whose arguments are their own, which the tables of block types (`stamp`) have no place for.

use super::{Portable, Scan};
use crate::dispatch::Level;

/// Arguments of a lane-generic function. Its implementations are `#[inline(always)]`, like everything generic over lanes.
pub(crate) trait Job {
    /// What comes of it.
    type Out;
    /// Does it with the lanes of `v`.
    fn run<V: Scan>(self, v: V) -> Self::Out;
}

macro_rules! levels {
    ($($arch:literal $function:ident $token:ident $features:literal;)*) => {
        $(#[cfg(target_arch = $arch)]
        #[allow(unsafe_code)]
        fn $function<J: Job>(job: J) -> Result<J::Out, J> {
            #[target_feature(enable = $features)]
            fn inner<J: Job>(v: super::$token, job: J) -> J::Out {
                job.run(v)
            }
            match super::$token::detect() {
                // SAFETY: the token proves that this machine has the features.
                Some(v) => Ok(unsafe { inner(v, job) }),
                None => Err(job),
            }
        })*
    };
}

levels! {
    "x86_64" avx2 Avx2 "avx2";
    "x86_64" avx512 Avx512 "avx512f,avx512bw,avx512vl,avx512dq";
    "aarch64" neon Neon "neon";
}

/// Runs a job over the lanes of a level; gives it back at [`Level::Scalar`], and where this machine lacks the level.
pub(crate) fn try_at<J: Job>(level: Level, job: J) -> Result<J::Out, J> {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2(job),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512(job),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => neon(job),
        _ => Err(job),
    }
}

/// The same, but a job that would be given back is done with sixteen plain lanes.
pub(crate) fn run_at<J: Job>(level: Level, job: J) -> J::Out {
    try_at(level, job).unwrap_or_else(|job| job.run(Portable::<16>))
}
