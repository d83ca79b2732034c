//! Outer paths, shared by the flows that use them.
//!
//! A peer's path is the same for all its flows and changes seldom. So a flow holds the number of its path, and a
//! packet costs one comparison of numbers; addresses are only looked at where the numbers differ.

use super::record::OuterPath;

/// The number of a path in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathId(u32);

impl PathId {
    /// No path: the packet was never sent, or it comes from a capture.
    pub const NONE: PathId = PathId(u32::MAX);
}

struct Entry {
    path: OuterPath,
    users: u32,
}

/// The paths in use. Bounded by the peers and flows that hold one each.
#[derive(Default)]
pub(super) struct PathTable {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
}

impl PathTable {
    /// A number for this path, held once.
    pub(super) fn add(&mut self, path: OuterPath) -> PathId {
        let entry = Some(Entry { path, users: 1 });
        if let Some(id) = self.free.pop() {
            self.entries[id as usize] = entry;
            return PathId(id);
        }
        self.entries.push(entry);
        PathId((self.entries.len() - 1) as u32)
    }

    /// Holds it once more.
    pub(super) fn hold(&mut self, id: PathId) {
        if let Some(Some(entry)) = self.entries.get_mut(id.0 as usize) {
            entry.users += 1;
        }
    }

    /// Holds it once less; the last one forgets it.
    pub(super) fn release(&mut self, id: PathId) {
        let Some(place) = self.entries.get_mut(id.0 as usize) else {
            return;
        };
        let Some(entry) = place else { return };
        entry.users -= 1;
        if entry.users == 0 {
            *place = None;
            self.free.push(id.0);
        }
    }

    /// The addresses; `None` for [`PathId::NONE`].
    pub(super) fn get(&self, id: PathId) -> Option<OuterPath> {
        self.entries.get(id.0 as usize)?.as_ref().map(|entry| entry.path)
    }
}
