//! The engine of fzgw: a WireGuard exit node that can say who opened every flow through it.
//!
//! # One packet, client to internet (the other way mirrors)
//!
//! 1. [`io`] fills a batch of datagrams; its worker takes `now` once and calls
//!    [`gateway::GatewayState::handle_datagram`].
//! 2. [`gateway`] opens a [`flow::PacketScope`]: a thread-local set of facts, and a guard.
//! 3. [`peers`] finds the session by receiver index and decrypts; the gateway checks the inner source against that
//!    peer's allowed IPs. The peer and the outer path are recorded.
//! 4. [`packet`] parses once; the packet is recorded.
//! 5. The packet's open flow answers for it, or [`policy`] does; the verdict is recorded. A denied packet returns
//!    early.
//! 6. The guard drops on every exit path: complete facts are counted in [`flow::FlowTable`], incomplete ones are
//!    forgotten. The batch remembers what was counted.
//! 7. The worker flushes the batch to the TUN device; what could not be written takes its counts back.
//!
//! # One flow
//!
//! Opened in [`flow::table`] by its first counted packet, ended by a rule, turned into a [`flow::FlowRecord`], batched
//! by the worker, put on a bounded channel ([`io`]): if it is full, the loss is counted and becomes a gap record, and
//! the data path does not wait. Python takes batches, hands flows to handlers, and has them rendered by [`render`].
//!
//! # A capture file
//!
//! [`capture`] takes frames out of a file, whatever its format, and the IP packet out of each frame. From step 4 on it is
//! as above, with the packets' own time for `now` ([`replay`]).
//!
//! Everything below [`io`] is sans-IO: bytes and `now` in, bytes and records out.

pub mod capture;
pub mod config;
pub mod ecn;
pub mod flow;
pub mod gateway;
pub mod icmp;
pub mod io;
pub mod offload;
pub mod packet;
pub mod peers;
pub mod policy;
pub mod render;
pub mod replay;
pub mod stats;
#[cfg(test)]
mod testkit;
