//! Where packets go: the trait [`Tun`], the kernel's device by the tun-tap crate, and an in-memory twin.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::net::{AddressFamily, SocketType};
use tun_tap::{Iface, Mode};

use super::StartError;

/// A device that packets are read from and written to, one a call, without blocking.
pub trait Tun: Send {
    /// Its name.
    fn name(&self) -> &str;

    /// Reads a packet and returns its length. Errors: `WouldBlock` when none is there.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes a packet. Errors: `WouldBlock` when the device is full; anything else is about this packet.
    fn write(&mut self, packet: &[u8]) -> io::Result<()>;

    /// What becomes readable when a packet is there.
    fn poll_fd(&self) -> BorrowedFd<'_>;
}

/// A TUN device of the kernel. It goes when this is dropped.
pub struct TapTun {
    iface: Iface,
}

impl TapTun {
    /// Creates a device of this name, which must not exist yet.
    pub fn create(name: &str) -> Result<Self, StartError> {
        let taken = || StartError::InterfaceTaken { name: name.to_owned() };
        // An existing persistent device would be joined without an error, so look first.
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)
            .map_err(|error| StartError::system("open a socket")(error.into()))?;
        if rustix::net::netdevice::name_to_index(&socket, name).is_ok() {
            return Err(taken());
        }
        let iface = Iface::without_packet_info(name, Mode::Tun).map_err(|error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::BUSY.raw_os_error() => taken(),
            _ => match error.kind() {
                io::ErrorKind::NotFound => StartError::NoTun,
                io::ErrorKind::PermissionDenied => StartError::Privilege {
                    what: "create a TUN device",
                },
                _ => StartError::system("create a TUN device")(error),
            },
        })?;
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

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.iface.recv(buffer)
    }

    fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        self.iface.send(packet).map(|_| ())
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        #[allow(unsafe_code)]
        // SAFETY: the crate gives the number alone; the device owns it and is borrowed for as long as the result.
        unsafe {
            BorrowedFd::borrow_raw(self.iface.as_raw_fd())
        }
    }
}

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

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }

    fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        self.0.send(packet).map(|_| ())
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
