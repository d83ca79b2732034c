//! The vocabulary and life of a flow.
//!
//! *One flow.* A packet's facts ([`current`]) are gathered in a thread-local while the layers handle it. When its
//! [`PacketScope`] drops, complete facts are counted by the [`FlowTable`] ([`table`]): an entry is opened, counted
//! or split; TCP's part of that is in [`tcp`]. A flow ends by a rule (FIN, RST, silence, eviction, …) and becomes a
//! [`FlowRecord`] ([`record`]), which the worker hands over in batches together with a [`Directory`] of names.
//!
//! *Words.* A flow is one conversation of one peer, both directions, seen from its initiator: *out* is initiator to
//! responder. A packet travels [`Side::FromPeer`] or [`Side::ToPeer`]. A drop is a packet that is not passed on. An
//! untracked packet is passed on and belongs to no flow.
//!
//! *Memory.* Flows are fixed-size slots in chunks ([`slab`]), found by an open-addressing index of tag and slot
//! ([`index`]) and timed by a wheel of buckets ([`wheel`]) that is only looked at where something is due. What few
//! flows have (a second path, a number of records) is kept beside the slot.

pub mod community;
pub mod current;
mod denied;
mod errors;
mod fragments;
mod history;
mod index;
mod key;
pub mod ledger;
mod limits;
mod lookahead;
#[cfg(test)]
mod model;
mod passing;
mod paths;
mod pressure;
#[cfg(test)]
mod property;
pub mod record;
mod reports;
#[cfg(test)]
mod scenarios;
mod slab;
pub mod table;
mod takeback;
mod tcp;
mod wheel;

pub use current::PacketScope;
pub use fragments::FragmentKey;
pub use key::{FlowKey, Side};
pub use ledger::{FlowLedger, Tally, Untracked};
pub use limits::{Limits, Purpose};
pub use lookahead::LOOKAHEAD;
pub use paths::PathId;
pub use record::{Directory, FlowRecord, NameId, PeerId, Record, Standing, Timestamp, Verdict};
pub use table::{FlowTable, Passed};
pub use takeback::Counted;
