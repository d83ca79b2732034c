//! Room for packets that are read: one region, given out piece by piece, used again when all pieces are gone.

use bytes::BytesMut;

/// A region of memory for reads.
pub(super) struct Arena {
    free: BytesMut,
    size: usize,
    /// The longest single read.
    room: usize,
}

impl Arena {
    /// An arena of `size` bytes that always has `room` for the next read.
    pub(super) fn new(size: usize, room: usize) -> Self {
        debug_assert!(size >= room);
        Self {
            free: BytesMut::new(),
            size,
            room,
        }
    }

    /// Where the next read goes.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.free.len() < self.room {
            // Where no piece is left, this takes the same memory from its start; else it allocates, and the old
            // region goes with its last piece. Zeroing costs each byte that was read one byte written.
            self.free.clear();
            self.free.reserve(self.size);
            self.free.resize(self.size, 0);
        }
        &mut self.free[..self.room]
    }

    /// The first `len` bytes of what was read, in `capacity` bytes of room to grow.
    pub(super) fn take(&mut self, len: usize, capacity: usize) -> BytesMut {
        let mut piece = self.free.split_to(capacity.max(len).min(self.free.len()));
        piece.truncate(len);
        piece
    }
}
