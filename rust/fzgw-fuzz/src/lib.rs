//! Fuzz targets of the engine: plain functions from bytes to nothing, that panic where an invariant is broken.
//!
//! Three things drive them. `tests/corpus.rs` runs each over the files of `corpus/<target>/`, on stable Rust, in every
//! test run. `fuzz/` has a libFuzzer entry for each, which `scripts/fuzz.sh` builds and runs. `src/bin/hammer.rs` needs
//! no coverage: it sends mutated packets through a replay, a hundred million of them in minutes.
//!
//! [`script`] reads packets and steps of time out of the bytes, front to back, so that a corpus file can be written by
//! hand (`examples/seeds.rs` writes most of them). [`audit`] holds the records against each other and the ledgers.

pub mod audit;
pub mod capture;
pub mod engine;
pub mod fragments;
pub mod gateway;
pub mod icmp;
pub mod lab;
pub mod make;
pub mod packet;
pub mod script;
pub mod table;

/// A target: panics where an invariant does not hold for what it is given.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("packet", packet::run),
    ("icmp", icmp::run),
    ("fragments", fragments::run),
    ("capture", capture::run),
    ("engine", engine::run),
    ("gateway", gateway::run),
];
