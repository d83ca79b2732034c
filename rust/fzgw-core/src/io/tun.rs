//! Where packets go: the trait [`Tun`], the kernel's devices with and without offload, and an in-memory twin.

mod memory;
mod offload;
mod tap;

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

pub use self::memory::{MemoryTun, MemoryTunPeer};
pub use self::offload::OffloadTun;
pub use self::tap::TapTun;
use super::StartError;
use crate::gateway::{Receipt, ToTun};
use crate::offload::{Arrived, Offload};

/// Room that the longest read takes: a super-packet of the longest payload with its headers.
pub const READ_ROOM: usize = 65_535 + 128;

/// What a read brought.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// Bytes of the packet.
    pub len: usize,
    /// What it is.
    pub what: Arrived,
}

/// A device that packets are read from and written to, without blocking.
pub trait Tun: Send {
    /// Its name.
    fn name(&self) -> &str;

    /// What it can do beyond one packet a call.
    fn offload(&self) -> Offload {
        Offload::Off
    }

    /// Reads a packet into `buffer`, which has [`READ_ROOM`]. Errors: `WouldBlock` when none is there.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Read>;

    /// Writes a batch in order, within a flow at least. What could not be written goes to `failed`.
    fn write(&mut self, packets: &[ToTun], failed: &mut Vec<Receipt>);

    /// What becomes readable when a packet is there.
    fn poll_fd(&self) -> BorrowedFd<'_>;
}

/// The device of this name: with offload where `offload` asks for it and the kernel has it. It must not exist yet.
pub fn create(name: &str, offload: bool) -> Result<Box<dyn Tun>, StartError> {
    if offload && let Some(tun) = OffloadTun::create(name)? {
        return Ok(Box::new(tun));
    }
    Ok(Box::new(TapTun::create(name)?))
}

/// Why the kernel gives no device of this name.
fn start_error(name: &str, error: io::Error) -> StartError {
    match Errno::from_io_error(&error) {
        Some(Errno::BUSY | Errno::EXIST) => StartError::InterfaceTaken { name: name.to_owned() },
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => StartError::NoTun,
        Some(Errno::PERM | Errno::ACCESS) => StartError::Privilege {
            what: "create a TUN device",
        },
        Some(_) | None => StartError::system("create a TUN device")(error),
    }
}

/// One packet a call.
fn write_each(packets: &[ToTun], failed: &mut Vec<Receipt>, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
    for packet in packets {
        if let Err(error) = write(&packet.packet) {
            tracing::trace!(%error, "write to the device");
            failed.push(packet.receipt);
        }
    }
}
