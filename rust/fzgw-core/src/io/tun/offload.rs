//! The kernel's device with a header in front of each packet, so that many segments cross it in one call.

use std::ffi::{c_int, c_uint, c_ulong};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Read, Tun, start_error};
use crate::gateway::{Receipt, ToTun};
use crate::io::StartError;
use crate::offload::merge::Merger;
use crate::offload::{Offload, VnetHeader, arrived};

/// What reads may bring (linux/if_tun.h): checksums to be completed, TCP of both versions, UDP of both versions. The
/// kernel takes the two of UDP together or not at all.
const CHECKSUM: c_uint = 0x01;
const TSO: c_uint = 0x02 | 0x04;
const USO: c_uint = 0x20 | 0x40;

/// A TUN device with offload. It goes when this is dropped.
pub struct OffloadTun {
    file: File,
    name: String,
    offload: Offload,
    merger: Merger,
}

impl OffloadTun {
    /// Creates a device of this name, which must not exist yet. `None`: the kernel has no such devices.
    pub fn create(name: &str) -> Result<Option<Self>, StartError> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open("/dev/net/tun", flags, Mode::empty())
            .map(File::from)
            .map_err(|error| start_error(name, error.into()))?;
        match attach(&file, name) {
            Ok(()) => {}
            // A kernel without the header or without exclusive creation.
            Err(Errno::INVAL) => return Ok(None),
            Err(error) => return Err(start_error(name, error.into())),
        }
        let Some(offload) = probe(&file) else {
            return Ok(None);
        };
        Ok(Some(Self {
            file,
            name: name.to_owned(),
            offload,
            merger: Merger::new(offload),
        }))
    }
}

/// The most that the kernel has.
fn probe(file: &File) -> Option<Offload> {
    [(CHECKSUM | TSO | USO, Offload::TsoUso), (CHECKSUM | TSO, Offload::Tso)]
        .into_iter()
        .find_map(|(flags, offload)| set_offload(file, flags).is_ok().then_some(offload))
}

/// Makes the device: TUN, no packet information, the header, and only if there is none of this name.
fn attach(file: &File, name: &str) -> Result<(), Errno> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL) as i16,
        },
    };
    if name.len() >= libc::IFNAMSIZ {
        return Err(Errno::NAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let len = VnetHeader::LEN as c_int;
    #[allow(unsafe_code)]
    // SAFETY: both requests take a pointer to what is given here, which lives across the calls; the file is open.
    let result = unsafe {
        match libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) {
            0 => libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const len),
            failed => failed,
        }
    };
    outcome(result)
}

fn set_offload(file: &File, flags: c_uint) -> Result<(), Errno> {
    #[allow(unsafe_code)]
    // SAFETY: the request takes a number; the file is open.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD as _, c_ulong::from(flags)) };
    outcome(result)
}

fn outcome(result: c_int) -> Result<(), Errno> {
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}

impl Tun for OffloadTun {
    fn name(&self) -> &str {
        &self.name
    }

    fn offload(&self) -> Offload {
        self.offload
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        let mut header = [0; VnetHeader::LEN];
        let mut pieces = [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)];
        let count = rustix::io::readv(&self.file, &mut pieces)?;
        let len = count.saturating_sub(VnetHeader::LEN);
        let what = arrived(VnetHeader::from_bytes(&header), &mut buffer[..len]);
        Ok(Read { len, what })
    }

    fn write(&mut self, packets: &[ToTun], failed: &mut Vec<Receipt>) {
        let file = &self.file;
        self.merger.write(
            packets,
            |pieces| Ok(rustix::io::writev(file, pieces).map(|_| ())?),
            |at| failed.push(packets[at].receipt),
        );
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
