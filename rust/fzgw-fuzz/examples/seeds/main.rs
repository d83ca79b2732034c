//! Writes the corpus: small cases of each kind, by name. Finds of the fuzzer are put beside them by hand, and stay.
//!
//! `cargo run -p fzgw-fuzz --example seeds` writes into `corpus/`; a folder may be given.

mod captures;
mod packets;
mod scripts;

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// A file of a corpus: its target, its name and its bytes.
struct Seed {
    target: &'static str,
    name: &'static str,
    bytes: Vec<u8>,
}

fn main() -> io::Result<()> {
    let folder = env::args_os()
        .nth(1)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"), PathBuf::from);
    let mut seeds = packets::seeds();
    seeds.extend(captures::seeds()?);
    seeds.extend(scripts::seeds());
    for seed in &seeds {
        let folder = folder.join(seed.target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(seed.name), &seed.bytes)?;
    }
    Ok(())
}

/// Seeds of one target.
fn of<N: Into<Vec<u8>>>(target: &'static str, seeds: Vec<(&'static str, N)>) -> Vec<Seed> {
    let seed = |(name, bytes): (&'static str, N)| Seed {
        target,
        name,
        bytes: bytes.into(),
    };
    seeds.into_iter().map(seed).collect()
}
