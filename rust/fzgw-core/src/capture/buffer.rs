//! The piece of a capture that is in memory: one buffer, filled by large reads, from which frames are lent.

use super::compress::{Stream, StreamFault};
use super::{CaptureError, MAX_CAPTURED, Place};

/// The buffer's usual size. It stays in a core's own cache: what a read puts there is parsed from there.
const ROOM: usize = 256 << 10;
/// Its size at first: a short file needs no more.
const FIRST_ROOM: usize = 16 << 10;
/// The most that may be asked for at once, and so the buffer's largest size: a pcapng block around the longest frame.
pub(super) const MAX_ROOM: usize = 1 << 20;

const _: () = assert!(FIRST_ROOM <= ROOM && ROOM <= MAX_ROOM && 2 * MAX_CAPTURED <= MAX_ROOM);

/// Bytes of a stream that were not taken yet.
pub(super) struct Buffer {
    stream: Stream,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset in the stream of `bytes[0]`.
    base: u64,
}

impl Buffer {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            bytes: vec![0; FIRST_ROOM],
            start: 0,
            end: 0,
            base: 0,
        }
    }

    /// Waits until the front has `len` bytes, at most [`MAX_ROOM`]. False where the stream ends before.
    #[inline]
    pub(super) fn ensure(&mut self, len: usize) -> Result<bool, CaptureError> {
        if self.front().len() >= len {
            return Ok(true);
        }
        self.fill(len)
    }

    /// The bytes that are there and not taken.
    #[inline]
    pub(super) fn front(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Takes `len` bytes that [`Self::ensure`] found, and tells where they are until the next call of it.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> usize {
        let at = self.start;
        self.start = (at + len).min(self.end);
        at
    }

    /// Bytes that were taken and not moved since.
    #[inline]
    pub(super) fn taken(&self, at: usize, len: usize) -> &[u8] {
        &self.bytes[at..at + len]
    }

    /// Takes `len` bytes that nobody looks at; they need not fit the buffer. Tells how many of them are missing.
    pub(super) fn skip(&mut self, len: usize) -> Result<usize, CaptureError> {
        let mut missing = len;
        loop {
            let here = missing.min(self.front().len());
            self.take(here);
            missing -= here;
            if missing == 0 || !self.ensure(1)? {
                return Ok(missing);
            }
        }
    }

    /// Where the front begins.
    pub(super) fn place(&self) -> Place {
        self.at(self.start)
    }

    /// What begins at the front, `expected` bytes long, is not all there.
    #[cold]
    pub(super) fn truncated(&self, what: &str, expected: usize) -> CaptureError {
        CaptureError::Truncated {
            place: self.place(),
            what: incomplete(what, expected, self.front().len()),
        }
    }

    /// What begins at the front cannot be.
    #[cold]
    pub(super) fn corrupt(&self, what: String) -> CaptureError {
        CaptureError::Corrupt {
            place: self.place(),
            what,
        }
    }

    #[cold]
    fn fill(&mut self, len: usize) -> Result<bool, CaptureError> {
        let room = if self.base == 0 { FIRST_ROOM } else { ROOM };
        let room = room.max(len.next_power_of_two()).min(MAX_ROOM);
        let front = self.start..self.end;
        self.base += self.start as u64;
        (self.start, self.end) = (0, front.len());
        if self.bytes.len() < room {
            let mut bytes = vec![0; room];
            bytes[..front.len()].copy_from_slice(&self.bytes[front]);
            self.bytes = bytes;
        } else {
            self.bytes.copy_within(front, 0);
        }
        while self.end < len {
            match self.stream.read(&mut self.bytes[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(fault) => return Err(self.fault(fault)),
            }
        }
        Ok(true)
    }

    fn fault(&self, fault: StreamFault) -> CaptureError {
        let place = self.at(self.end);
        match fault {
            StreamFault::Io(source) => CaptureError::Io { place, source },
            StreamFault::Truncated(what) => CaptureError::Truncated { place, what },
            StreamFault::Corrupt(what) => CaptureError::Corrupt { place, what },
        }
    }

    fn at(&self, index: usize) -> Place {
        Place {
            offset: self.base + index as u64,
            compression: self.stream.compression(),
        }
    }
}

/// Says that something is shorter than it must be.
pub(super) fn incomplete(what: &str, expected: usize, found: usize) -> String {
    format!("{what} of {expected} bytes begins here, and {found} are there")
}
