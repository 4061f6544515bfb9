//! Seats: the memory and the queue that one call to the device uses, and the pool of them.
//!
//! A seat has a buffer for what goes in and one for what comes out, on both sides of the bus, and a stream. Memory that a
//! copy may be reading or writing is out of reach until the stream has been waited for: that is what makes the
//! functions here safe to call. Must not know formats or kernels' parameters beyond [`Job`].
#![allow(unsafe_code)]

use crate::{
    Error,
    driver::{Context, DeviceBuffer, Function, HostBuffer, Stream},
};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tensormill_kernels::cuda::{Job, THREADS};

/// Launches between two waits at most.
pub(crate) const LAUNCHES: usize = 64;

/// What a kernel says besides its blocks: `bad` and `odd` of [`Job`], with room to align.
pub(crate) const FLAG: usize = 16;

/// Bytes before the first block that comes out.
const FLAGS: usize = LAUNCHES * FLAG;

/// Alignment of everything that a kernel is pointed at.
pub(crate) const ALIGN: usize = 256;

/// Seats at most. More tiles in flight than this do not make the bus faster.
const MOST: usize = 6;

/// Bytes in and bytes out: as large as tiles are, with room for importance; the least that is worth a launch.
const PORTION: (usize, usize) = (64 << 10, 5 << 20);

/// How many seats, and how large.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seats {
    /// How many.
    pub count: usize,
    /// Bytes that fit in, and bytes that fit out.
    pub portion: usize,
}

impl Seats {
    /// The fewest and smallest.
    pub const LEAST: Self = Self { count: 1, portion: PORTION.0 };

    /// As many and as large as are of use to `workers`, in so much memory of the machine and of the device: fewer ones
    /// first, then smaller ones.
    pub fn within(workers: usize, host: u64, device: u64) -> Option<Self> {
        let mut seats = Self { count: workers.clamp(1, MOST), portion: PORTION.1 };
        while seats.host_bytes() > host || seats.device_bytes() > device {
            seats = seats.fewer()?;
        }
        Some(seats)
    }

    /// The next smaller choice.
    pub(crate) fn fewer(self) -> Option<Self> {
        match self {
            Self { count: 3.., .. } => Some(Self { count: self.count - 1, ..self }),
            Self { portion, .. } if portion > PORTION.0 => {
                Some(Self { portion: (portion / 2).max(PORTION.0), ..self })
            }
            Self { count: 2, .. } => Some(Self { count: 1, ..self }),
            _ => None,
        }
    }

    /// Memory of the machine that they take, which the device reaches directly.
    pub fn host_bytes(self) -> u64 {
        (self.count * (2 * self.portion + 2 * FLAGS)) as u64
    }

    /// Memory of the device that they take.
    pub fn device_bytes(self) -> u64 {
        (self.count * (2 * self.portion + FLAGS + self.scratch())) as u64
    }

    /// Bytes for means of rows: rows hold 32 weights of two bytes at least, and a mean takes four.
    fn scratch(self) -> usize {
        self.portion / 16
    }
}

/// What one call uses.
pub(crate) struct Seat {
    stream: Stream,
    to_device: HostBuffer,
    from_device: HostBuffer,
    input: DeviceBuffer,
    output: DeviceBuffer,
    scratch: DeviceBuffer,
    portion: usize,
    /// Whether something is queued that was not waited for.
    busy: bool,
}

impl Seat {
    fn new(context: &Arc<Context>, seats: Seats) -> Result<Self, Error> {
        let (portion, what) = (seats.portion, "a tile");
        let mut seat = Self {
            stream: Stream::new(context)?,
            to_device: HostBuffer::new(context, portion + FLAGS, what)?,
            from_device: HostBuffer::new(context, portion + FLAGS, what)?,
            input: DeviceBuffer::new(context, portion, what)?,
            output: DeviceBuffer::new(context, portion + FLAGS, what)?,
            scratch: DeviceBuffer::new(context, seats.scratch(), what)?,
            portion,
            busy: false,
        };
        // The flags as they are before a kernel: behind the bytes that go in, and never changed.
        for flag in seat.to_device.bytes_mut()[portion..].chunks_exact_mut(FLAG) {
            flag[..8].fill(0xff);
        }
        Ok(seat)
    }

    /// Bytes that fit in, and out.
    pub(crate) fn portion(&self) -> usize {
        self.portion
    }

    /// Bytes of scratch on the device.
    pub(crate) fn scratch_len(&self) -> usize {
        self.scratch.len()
    }

    /// Where the input will be on the device.
    pub(crate) fn input(&self) -> u64 {
        self.input.address()
    }

    /// Where scratch is on the device.
    pub(crate) fn scratch(&self) -> u64 {
        self.scratch.address()
    }

    /// Where flags and blocks of launch `number`, `offset` bytes behind the first block's, will be on the device.
    pub(crate) fn place(&self, number: usize, offset: usize) -> (u64, u64) {
        let base = self.output.address();
        (base + (number * FLAG) as u64, base + (FLAGS + offset) as u64)
    }

    /// Fills the input: `fill` gets its bytes and says how many it used; those are sent.
    pub(crate) fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> Result<(), Error> {
        self.wait()?;
        let len = fill(&mut self.to_device.bytes_mut()[..self.portion]);
        self.busy = true;
        // SAFETY: `busy` keeps everybody from the buffer until it was waited for.
        unsafe { self.stream.upload(&self.input, 0, &self.to_device.bytes()[..len]) }
    }

    /// Sets all flags as they are before a kernel.
    pub(crate) fn reset_flags(&mut self) -> Result<(), Error> {
        self.busy = true;
        // SAFETY: these bytes are never changed.
        unsafe { self.stream.upload(&self.output, 0, &self.to_device.bytes()[self.portion..]) }
    }

    /// Queues a kernel with teams of `lanes` for each block of the job.
    pub(crate) fn launch(&mut self, kernel: &Function, lanes: u32, job: &Job) -> Result<(), Error> {
        let blocks = (job.blocks * u64::from(lanes)).div_ceil(u64::from(THREADS)) as u32;
        self.busy = true;
        // SAFETY: kernels take a `Job`. It points into this seat's buffers, which are freed when the stream has done its
        // work (`drop`), and at tables that live as long as the device; `encode` keeps it inside them.
        unsafe { self.stream.launch(kernel, (blocks, THREADS), job) }
    }

    /// Queues the way back of all flags and of this many bytes of blocks, and waits for everything.
    pub(crate) fn fetch(&mut self, len: usize) -> Result<(), Error> {
        self.busy = true;
        // SAFETY: `busy` keeps everybody from the buffer until it was waited for, which is the next line.
        unsafe { self.stream.download(&mut self.from_device.bytes_mut()[..FLAGS + len], &self.output)? };
        self.wait()
    }

    /// What launch `number` left: its two flags, and the bytes from `offset`.
    pub(crate) fn result(&self, number: usize, offset: usize, len: usize) -> (u64, u32, &[u8]) {
        assert!(!self.busy, "looked at before it was waited for");
        let bytes = self.from_device.bytes();
        let flag = &bytes[number * FLAG..][..FLAG];
        let bad = u64::from_le_bytes(std::array::from_fn(|i| flag[i]));
        let odd = u32::from_le_bytes(std::array::from_fn(|i| flag[8 + i]));
        (bad, odd, &bytes[FLAGS + offset..][..len])
    }

    fn wait(&mut self) -> Result<(), Error> {
        if self.busy {
            self.stream.wait()?;
            self.busy = false;
        }
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Nothing may be freed that the stream is still using. A device that is lost uses nothing.
        let _ = self.stream.bind().and_then(|()| self.wait());
    }
}

/// All seats.
pub(crate) struct Pool {
    free: Mutex<Vec<Seat>>,
    freed: Condvar,
    seats: Seats,
}

impl Pool {
    /// Seats of this size; where memory does not suffice for all, fewer or smaller ones.
    pub(crate) fn new(context: &Arc<Context>, mut seats: Seats) -> Result<Self, Error> {
        loop {
            let made = (0..seats.count).map(|_| Seat::new(context, seats)).collect::<Result<Vec<_>, _>>();
            match (made, seats.fewer()) {
                (Ok(free), _) => {
                    return Ok(Self { free: Mutex::new(free), freed: Condvar::new(), seats });
                }
                (Err(Error::OutOfMemory { what }), Some(fewer)) => {
                    tracing::info!(?seats, ?fewer, what, "memory of the device is short");
                    seats = fewer;
                }
                (Err(e), _) => return Err(e),
            }
        }
    }

    /// What there is.
    pub(crate) fn seats(&self) -> Seats {
        self.seats
    }

    /// Waits for a seat, and lets this thread use it.
    pub(crate) fn take(&self) -> Result<Taken<'_>, Error> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(seat) = free.pop() {
                drop(free);
                let taken = Taken { pool: self, seat: Some(seat) };
                taken.stream.bind()?;
                return Ok(taken);
            }
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A seat, until it is dropped.
pub(crate) struct Taken<'a> {
    pool: &'a Pool,
    seat: Option<Seat>,
}

impl std::ops::Deref for Taken<'_> {
    type Target = Seat;
    fn deref(&self) -> &Seat {
        self.seat.as_ref().expect("there until dropped")
    }
}

impl std::ops::DerefMut for Taken<'_> {
    fn deref_mut(&mut self) -> &mut Seat {
        self.seat.as_mut().expect("there until dropped")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // An error or a panic may have come while something was queued; the next call waits for it (`send`).
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).extend(self.seat.take());
        self.pool.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn seats_shrink_with_memory() {
        let all = Seats::within(8, u64::MAX, u64::MAX).unwrap();
        assert_eq!(all, Seats { count: 6, portion: 5 << 20 });
        assert_eq!(Seats::within(2, u64::MAX, u64::MAX).unwrap().count, 2);
        let mut last = all;
        for host in (0..128).rev() {
            let Some(seats) = Seats::within(8, host * MIB, u64::MAX) else {
                assert!(host * MIB < Seats::LEAST.host_bytes());
                continue;
            };
            assert!(seats.host_bytes() <= host * MIB);
            assert!(seats.count <= last.count && seats.portion <= last.portion);
            last = seats;
        }
        assert_eq!(Seats::within(8, 21 * MIB, u64::MAX).unwrap(), Seats { count: 2, portion: 5 << 20 });
        assert_eq!(Seats::within(8, u64::MAX, Seats::LEAST.device_bytes()), Some(Seats::LEAST));
        assert_eq!(Seats::within(8, u64::MAX, Seats::LEAST.device_bytes() - 1), None);
    }
}
