//! The facts about the packet that this thread handles right now.
//!
//! Facts are spread over the layers: the tunnel knows the peer and the path, the parser the tuple, policy the verdict.
//! Each layer adds what it learns with a `record_*` function instead of passing it through everybody's signatures.
//! They meet in a thread-local with a const initialiser, which costs an address computation: routing state never
//! leaves its thread, so neither do they.
//!
//! [`PacketScope`] opens and closes one packet. When it drops, on whatever path, complete facts are counted and
//! incomplete ones forgotten.

use std::cell::RefCell;
use std::marker::PhantomData;

use super::key::Side;
use super::paths::PathId;
use super::record::{OuterPath, PeerId, Standing, Timestamp};
use super::table::FlowTable;
use crate::packet::PacketInfo;

thread_local! {
    static CURRENT: RefCell<PacketFacts> = const { RefCell::new(PacketFacts::NONE) };
}

/// What is known so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct PacketFacts {
    pub(super) side: Side,
    pub(super) peer: Option<PeerId>,
    pub(super) path: Option<PathId>,
    pub(super) packet: Option<PacketInfo>,
    pub(super) standing: Option<Standing>,
}

impl PacketFacts {
    const NONE: PacketFacts = PacketFacts {
        side: Side::FromPeer,
        peer: None,
        path: None,
        packet: None,
        standing: None,
    };
}

impl PacketFacts {
    fn forget(&mut self) {
        self.peer = None;
        self.path = None;
        self.packet = None;
        self.standing = None;
    }
}

/// The tunnel knows whose packet this is.
pub fn record_peer(peer: PeerId) {
    CURRENT.with_borrow_mut(|facts| facts.peer = Some(peer));
}

/// The packet did travel, or is about to, on this outer path. Without it nothing is counted as passed on.
pub fn record_path(path: PathId) {
    CURRENT.with_borrow_mut(|facts| facts.path = Some(path));
}

/// The parser knows what the packet is.
pub fn record_packet(packet: &PacketInfo) {
    CURRENT.with_borrow_mut(|facts| facts.packet = Some(*packet));
}

/// Policy, or the packet's flow, has decided.
pub fn record_standing(standing: Standing) {
    CURRENT.with_borrow_mut(|facts| facts.standing = Some(standing));
}

/// One packet, from its arrival to its departure. Not `Send`: facts belong to this thread.
#[must_use = "facts are counted when the scope ends"]
pub struct PacketScope<'a> {
    table: &'a mut FlowTable,
    now: Timestamp,
    _not_send: PhantomData<*const ()>,
}

impl<'a> PacketScope<'a> {
    /// Begins a packet that travels to `side`. What an earlier one left behind is forgotten.
    pub fn begin(table: &'a mut FlowTable, side: Side, now: Timestamp) -> Self {
        table.begin_packet();
        CURRENT.with_borrow_mut(|facts| {
            facts.forget();
            facts.side = side;
        });
        Self {
            table,
            now,
            _not_send: PhantomData,
        }
    }

    /// The number of the path that this packet is about to travel, registered where it has none yet.
    pub fn path_id(&mut self, known: Option<PathId>, path: OuterPath) -> PathId {
        known.unwrap_or_else(|| self.table.add_path(path))
    }

    /// What the packet's flow, open already, says of it; `None` where this packet would open one, or has none.
    pub fn standing(&mut self, peer: PeerId, side: Side, packet: &PacketInfo) -> Option<Standing> {
        self.table.standing(peer, side, packet, self.now)
    }
}

impl Drop for PacketScope<'_> {
    fn drop(&mut self) {
        // In place: facts are a hundred bytes, and copying them costs more than gathering them.
        CURRENT.with_borrow_mut(|facts| {
            self.table.count(facts, self.now);
            facts.forget();
        });
    }
}
