//! The kernel's device by the tun-tap crate: one packet a read or write.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::OFlags;
use rustix::net::{AddressFamily, SocketType};
use tun_tap::{Iface, Mode};

use super::{Read, Tun, start_error, write_each};
use crate::gateway::{Receipt, ToTun};
use crate::io::StartError;
use crate::offload::Arrived;

/// A TUN device of the kernel. It goes when this is dropped.
pub struct TapTun {
    iface: Iface,
}

impl TapTun {
    /// Creates a device of this name, which must not exist yet.
    pub fn create(name: &str) -> Result<Self, StartError> {
        // An existing persistent device would be joined without an error, so look first.
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)
            .map_err(|error| StartError::system("open a socket")(error.into()))?;
        if rustix::net::netdevice::name_to_index(&socket, name).is_ok() {
            return Err(StartError::InterfaceTaken { name: name.to_owned() });
        }
        let iface = Iface::without_packet_info(name, Mode::Tun).map_err(|error| start_error(name, error))?;
        let tun = Self { iface };
        rustix::fs::fcntl_setfl(tun.poll_fd(), OFlags::NONBLOCK | OFlags::RDWR)
            .map_err(|error| StartError::system("set up the TUN device")(error.into()))?;
        Ok(tun)
    }
}

impl Tun for TapTun {
    fn name(&self) -> &str {
        self.iface.name()
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        let len = self.iface.recv(buffer)?;
        Ok(Read {
            len,
            what: Arrived::Packet,
        })
    }

    fn write(&mut self, packets: &[ToTun], failed: &mut Vec<Receipt>) {
        write_each(packets, failed, |packet| self.iface.send(packet).map(|_| ()));
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        #[allow(unsafe_code)]
        // SAFETY: the crate gives the number alone; the device owns it and is borrowed for as long as the result.
        unsafe {
            BorrowedFd::borrow_raw(self.iface.as_raw_fd())
        }
    }
}
