//! A device in memory, for tests without root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::{Read, Tun, write_each};
use crate::gateway::{Receipt, ToTun};
use crate::offload::Arrived;

/// A device in memory: what it reads is sent by its peer, what it writes is received there.
pub struct MemoryTun(UnixDatagram);

/// The other end of a [`MemoryTun`].
pub struct MemoryTunPeer(UnixDatagram);

impl MemoryTun {
    /// Both ends.
    pub fn pair() -> io::Result<(Self, MemoryTunPeer)> {
        let (device, peer) = UnixDatagram::pair()?;
        device.set_nonblocking(true)?;
        Ok((Self(device), MemoryTunPeer(peer)))
    }
}

impl Tun for MemoryTun {
    fn name(&self) -> &str {
        "memory"
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        let len = self.0.recv(buffer)?;
        Ok(Read {
            len,
            what: Arrived::Packet,
        })
    }

    fn write(&mut self, packets: &[ToTun], failed: &mut Vec<Receipt>) {
        write_each(packets, failed, |packet| self.0.send(packet).map(|_| ()));
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl MemoryTunPeer {
    /// Gives the gateway a packet, as if the kernel had routed it to the device.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.0.send(packet).map(|_| ())
    }

    /// The next packet that the gateway wrote; none within `timeout`.
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        // Zero would mean for ever.
        self.0.set_read_timeout(Some(timeout.max(Duration::from_micros(1))))?;
        let mut buffer = vec![0; 65_536];
        match self.0.recv(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                Ok(Some(buffer))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
