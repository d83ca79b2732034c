//! Waiting until a socket, the device or a command is there.
//!
//! An epoll set remembers what it watches, so a wait costs the same however little comes: one packet a wake is the
//! usual load of a gateway.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{Timespec, epoll};

use super::udp::Family;

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Source {
    V4 = 1,
    V6 = 2,
    Tun = 4,
    Wake = 8,
}

impl From<Family> for Source {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Source::V4,
            Family::V6 => Source::V6,
        }
    }
}

/// What is there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ready(u64);

impl Ready {
    pub(super) fn has(self, source: Source) -> bool {
        self.0 & source as u64 != 0
    }
}

/// The set.
pub(super) struct Waiter {
    epoll: OwnedFd,
}

impl Waiter {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    /// Watches a source for something to read.
    pub(super) fn add(&self, source: Source, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(source as u64),
            epoll::EventFlags::IN,
        )?)
    }

    /// Watches a source for room to write as well, or no longer; a paused one for nothing.
    pub(super) fn change(&self, source: Source, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Read => epoll::EventFlags::IN,
            Interest::ReadAndWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
            Interest::Nothing => epoll::EventFlags::empty(),
        };
        Ok(epoll::modify(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(source as u64),
            flags,
        )?)
    }

    /// Waits for anything, `nanoseconds` at most. Interrupted, it finds nothing: the caller looks at what is due and
    /// waits again.
    pub(super) fn wait(&self, nanoseconds: u64) -> Ready {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 4];
        let timeout = milliseconds(nanoseconds);
        let found = epoll::wait(&self.epoll, &mut events[..], Some(&timeout)).unwrap_or(0);
        Ready(events[..found].iter().fold(0, |ready, event| ready | event.data.u64()))
    }
}

/// What a source is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    Read,
    ReadAndWrite,
    Nothing,
}

/// Whole milliseconds, upwards: what is due then is due in any case.
fn milliseconds(nanoseconds: u64) -> Timespec {
    // Ten seconds are as good as for ever, and fit every field.
    let milliseconds = nanoseconds.div_ceil(1_000_000).min(10_000);
    Timespec {
        tv_sec: (milliseconds / 1000) as i64,
        tv_nsec: (milliseconds % 1000 * 1_000_000) as i64,
    }
}
