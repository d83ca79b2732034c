//! The UDP port: IPv4 and IPv6 sockets of one number, batches of datagrams in and out through quinn-udp.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::BytesMut;
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::io::Errno;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use super::arena::Arena;
use super::notices::Notices;
use super::{StartError, TURN_BYTES};
use crate::ecn::Ecn;
use crate::flow::record::OuterPath;
use crate::gateway::{Receipt, ToUdp};
use crate::peers::Datagram;

/// Socket buffers hold about 30 ms at 10 Gbit/s. The default loses bursts.
const SOCKET_BUFFER: usize = 8 << 20;
/// The longest receive: a run of segments that the kernel has put together.
const RECEIVE_ROOM: usize = 65_536;
/// Memory of one place in a receive batch. Idle places touch none of it.
const ARENA: usize = 2 * RECEIVE_ROOM;
/// The longest send: what an IPv4 datagram may carry.
const MAX_SEND: usize = 65_507;
/// Flushes after which segments are tried again where they were refused.
const RENEW_AFTER: u32 = 4096;
/// Places of a receive batch where datagrams come singly.
const FEW: usize = 1;
/// Datagrams that wait while the socket is full. Tunnel packets are not read then, so these are the protocol's own.
const MAX_PENDING: usize = 1024;

/// What the port keeps for reading and for sending.
pub(super) const POOL: usize = BATCH_SIZE * ARENA + MAX_SEND;

/// The port.
pub(super) struct UdpPort {
    number: u16,
    v4: Half,
    v6: Option<Half>,
    slots: Vec<Arena>,
    metas: [RecvMeta; BATCH_SIZE],
    /// Places to offer next time: few where few are used, since each costs some time to prepare.
    offered: usize,
    /// What the sockets have not taken yet, in order.
    pending: std::collections::VecDeque<ToUdp>,
    segments: Vec<u8>,
    sent: u64,
    notices: Notices,
    /// That segments were refused has been said.
    refusal_told: bool,
}

struct Half {
    socket: UdpSocket,
    state: UdpSocketState,
    unspecified: IpAddr,
    /// Segments that the kernel took in one send at the start.
    segments: usize,
    /// Datagrams of this size and more go one by one: several in one call did not fit some path.
    too_big: usize,
    /// Flushes since it last refused them.
    without_segments: u32,
}

/// Which of the two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl UdpPort {
    /// Opens the port in both families; in IPv4 alone where the host has no IPv6.
    pub(super) fn bind(port: u16, notices: Notices) -> Result<Self, StartError> {
        let v4 = Half::bind(Ipv4Addr::UNSPECIFIED.into(), port)?;
        let number = v4
            .socket
            .local_addr()
            .map_err(StartError::system("read the UDP port"))?
            .port();
        let v6 = match Half::bind(Ipv6Addr::UNSPECIFIED.into(), number) {
            Ok(half) => Some(half),
            Err(StartError::System { source, .. }) if no_ipv6(&source) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            number,
            v4,
            v6,
            slots: (0..BATCH_SIZE).map(|_| Arena::new(ARENA, RECEIVE_ROOM)).collect(),
            metas: [RecvMeta::default(); BATCH_SIZE],
            offered: FEW,
            pending: std::collections::VecDeque::new(),
            segments: Vec::with_capacity(MAX_SEND),
            sent: 0,
            notices,
            refusal_told: false,
        })
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn poll_fd(&self, family: Family) -> Option<BorrowedFd<'_>> {
        match family {
            Family::V4 => Some(self.v4.socket.as_fd()),
            Family::V6 => self.v6.as_ref().map(|half| half.socket.as_fd()),
        }
    }

    /// Receives one batch and gives each datagram to `each`. False where nothing was there.
    pub(super) fn receive(
        &mut self,
        family: Family,
        mut each: impl FnMut(OuterPath, Ecn, BytesMut),
    ) -> io::Result<bool> {
        let half = match family {
            Family::V4 => &self.v4,
            Family::V6 => match &self.v6 {
                Some(half) => half,
                None => return Ok(false),
            },
        };
        let offered = self.offered;
        let mut slots = self.slots[..offered].iter_mut();
        let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().map_or(&mut [][..], Arena::room)));
        let received = half.state.recv(
            (&half.socket).into(),
            &mut buffers[..offered],
            &mut self.metas[..offered],
        );
        let count = match received {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let bytes: usize = self.metas[..count].iter().map(|meta| meta.len).sum();
        self.offered = offer(offered, count, bytes);
        for (slot, meta) in self.slots.iter_mut().zip(&self.metas[..count]) {
            let local = SocketAddr::new(meta.dst_ip.unwrap_or(half.unspecified), self.number);
            let path = OuterPath {
                remote: meta.addr,
                local,
            };
            let ecn = meta.ecn.map_or(Ecn::NOT_ECT, |ecn| Ecn::from_bits(ecn as u8));
            if meta.len == 0 {
                each(path, ecn, BytesMut::new());
            }
            let mut left = meta.len;
            while left > 0 {
                let len = left.min(meta.stride.max(1));
                each(path, ecn, slot.take(len, len));
                left -= len;
            }
        }
        Ok(true)
    }

    /// Sends a batch: runs of equal size to one destination in one call. What fails goes to `failed`; what the
    /// sockets cannot take now waits.
    pub(super) fn send(&mut self, batch: &mut Vec<ToUdp>, failed: &mut Vec<Receipt>) {
        for datagram in batch.drain(..) {
            if self.pending.len() >= MAX_PENDING {
                self.flush(failed);
            }
            if self.pending.len() >= MAX_PENDING {
                failed.push(datagram.receipt);
            } else {
                self.pending.push_back(datagram);
            }
        }
        self.flush(failed);
    }

    /// Whether datagrams wait for the sockets.
    pub(super) fn is_blocked(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The family whose socket is waited for.
    pub(super) fn blocked_family(&self) -> Option<Family> {
        self.pending.front().map(|next| family_of(next.datagram.path.remote))
    }

    /// Datagrams sent since the last call.
    pub(super) fn take_sent(&mut self) -> u64 {
        std::mem::take(&mut self.sent)
    }

    /// Sends what waits, as far as the sockets take it.
    pub(super) fn flush(&mut self, failed: &mut Vec<Receipt>) {
        for half in [Some(&mut self.v4), self.v6.as_mut()].into_iter().flatten() {
            half.renew();
        }
        while let Some(first) = self.pending.front() {
            let path = first.datagram.path;
            let size = first.datagram.bytes.len();
            let half = match family_of(path.remote) {
                Family::V4 => Some(&mut self.v4),
                Family::V6 => self.v6.as_mut(),
            };
            let Some(half) = half else {
                failed.extend(self.pending.pop_front().map(|datagram| datagram.receipt));
                continue;
            };
            let most = if size < half.too_big {
                half.state.max_gso_segments()
            } else {
                1
            };
            let run = run_length(&self.pending, most);
            match send_run(half, &self.pending, run, &mut self.segments) {
                Ok(()) => {
                    self.sent += run as u64;
                    self.pending.drain(..run);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A device that refuses segments: quinn-udp has noticed, and the next run is of one.
                Err(error) if run > 1 && (half.state.max_gso_segments() == 1 || is_too_big(&error)) => {
                    if is_too_big(&error) {
                        half.too_big = size;
                    }
                    if !std::mem::replace(&mut self.refusal_told, true) {
                        self.notices.push(format!(
                            "datagrams go out one by one, as the kernel or a device refused several in one call: {error}"
                        ));
                    }
                }
                Err(_) if run > 1 => {
                    // One bad datagram must not take the others with it.
                    for _ in 0..run {
                        let Some(datagram) = self.pending.pop_front() else {
                            break;
                        };
                        match send_one(half, &datagram) {
                            Ok(()) => self.sent += 1,
                            Err(_) => failed.push(datagram.receipt),
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, remote = %path.remote, "a datagram was not sent");
                    failed.extend(self.pending.pop_front().map(|datagram| datagram.receipt));
                }
            }
        }
    }

    /// Nothing that waits will be sent any more.
    pub(super) fn give_up(&mut self, failed: &mut Vec<Receipt>) {
        failed.extend(self.pending.drain(..).map(|datagram| datagram.receipt));
    }
}

impl Half {
    fn bind(unspecified: IpAddr, port: u16) -> Result<Self, StartError> {
        let system = StartError::system("open the UDP port");
        let address = SocketAddr::new(unspecified, port);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).map_err(&system)?;
        if address.is_ipv6() {
            socket.set_only_v6(true).map_err(&system)?;
        }
        socket.bind(&address.into()).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => StartError::PortInUse { port },
            io::ErrorKind::PermissionDenied => StartError::Privilege {
                what: "open a UDP port below 1024",
            },
            _ => system(error),
        })?;
        for result in [
            sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER)
                .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER)),
            sockopt::set_socket_send_buffer_size_force(&socket, SOCKET_BUFFER)
                .or_else(|_| sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER)),
        ] {
            // The system may give less; the socket works with what it has.
            if let Err(error) = result {
                tracing::debug!(%error, "socket buffer");
            }
        }
        let socket: UdpSocket = socket.into();
        let state = set_up(&socket).map_err(&system)?;
        let segments = state.max_gso_segments();
        Ok(Self {
            socket,
            state,
            unspecified,
            segments,
            too_big: usize::MAX,
            without_segments: 0,
        })
    }

    /// Tries segments again after a while: quinn-udp gives them up for good at the first refusal, which may have been
    /// about one destination alone.
    fn renew(&mut self) {
        if self.state.max_gso_segments() == self.segments && self.too_big == usize::MAX {
            return;
        }
        self.without_segments += 1;
        if self.without_segments >= RENEW_AFTER {
            self.without_segments = 0;
            self.too_big = usize::MAX;
            if let Ok(state) = set_up(&self.socket) {
                self.state = state;
            }
        }
    }
}

/// quinn-udp's state for a socket, with fragmentation as WireGuard has it: a datagram that does not fit the path is
/// fragmented, not lost. (quinn-udp is made for QUIC, which wants the contrary.)
fn set_up(socket: &UdpSocket) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(socket))?;
    sockopt::set_ip_mtu_discover(socket, sockopt::Ipv4PathMtuDiscovery::DONT)?;
    if socket.local_addr()?.is_ipv6() {
        sockopt::set_ipv6_mtu_discover(socket, sockopt::Ipv6PathMtuDiscovery::DONT)?;
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0)?;
    }
    // quinn-udp asks for times of arrival. With them the control messages of merged datagrams do not fit into its buffer,
    // and the one that is left out is ECN's.
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0)?;
    Ok(state)
}

/// Sets an option that takes a number and that no safe interface offers.
fn set_option(socket: &UdpSocket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    #[allow(unsafe_code)]
    // SAFETY: the option takes one integer, which lives across the call, of the length given; the socket is open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Places to offer next time, after `count` of `offered` were used for so many bytes: more where all were, but no more
/// than a turn should take.
fn offer(offered: usize, count: usize, bytes: usize) -> usize {
    let wanted = if count == offered {
        BATCH_SIZE.min(offered * 2)
    } else {
        FEW.max(count)
    };
    let average = bytes.checked_div(count).unwrap_or(0).max(1);
    wanted.min((TURN_BYTES / average).max(FEW))
}

fn family_of(address: SocketAddr) -> Family {
    match address {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    }
}

/// What the system says of a source address that is not its own, or that leads nowhere any more.
fn is_bad_address(error: &io::Error) -> bool {
    is_one_of(
        error,
        &[Errno::INVAL, Errno::ADDRNOTAVAIL, Errno::NETUNREACH, Errno::HOSTUNREACH],
    )
}

/// Segments of several cannot be fragmented; datagrams by themselves can.
fn is_too_big(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::MSGSIZE])
}

fn no_ipv6(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL])
}

fn is_one_of(error: &io::Error, codes: &[Errno]) -> bool {
    codes
        .iter()
        .any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

/// How many of the first datagrams make one send: the same path and size, a shorter one ends the run.
fn run_length(pending: &std::collections::VecDeque<ToUdp>, max_segments: usize) -> usize {
    let Some(first) = pending.front() else { return 0 };
    let size = first.datagram.bytes.len();
    let fits = (MAX_SEND / size.max(1)).max(1).min(max_segments.max(1));
    let mut run = 1;
    for next in pending.iter().skip(1).take(fits - 1) {
        let len = next.datagram.bytes.len();
        let same_way = next.datagram.path == first.datagram.path && next.datagram.ecn == first.datagram.ecn;
        if !same_way || len > size || len == 0 {
            break;
        }
        run += 1;
        if len < size {
            break;
        }
    }
    run
}

fn send_run(
    half: &Half,
    pending: &std::collections::VecDeque<ToUdp>,
    run: usize,
    segments: &mut Vec<u8>,
) -> io::Result<()> {
    let Some(first) = pending.front() else { return Ok(()) };
    if run == 1 {
        return send_one(half, first);
    }
    segments.clear();
    for datagram in pending.iter().take(run) {
        segments.extend_from_slice(&datagram.datagram.bytes);
    }
    transmit(half, &first.datagram, segments, Some(first.datagram.bytes.len()))
}

fn send_one(half: &Half, datagram: &ToUdp) -> io::Result<()> {
    transmit(half, &datagram.datagram, &datagram.datagram.bytes, None)
}

/// Sends `contents` where `first` goes, marked as it is.
fn transmit(half: &Half, first: &Datagram, contents: &[u8], segment_size: Option<usize>) -> io::Result<()> {
    let path = first.path;
    let local = path.local.ip();
    let mut transmit = Transmit {
        destination: path.remote,
        ecn: EcnCodepoint::from_bits(first.ecn.bits()),
        contents,
        segment_size,
        src_ip: (!local.is_unspecified()).then_some(local),
    };
    match half.state.try_send((&half.socket).into(), &transmit) {
        // The path's own address may have left this host. Then the system picks another; what comes back to it puts
        // the path right.
        Err(error) if transmit.src_ip.is_some() && is_bad_address(&error) => {
            transmit.src_ip = None;
            half.state.try_send((&half.socket).into(), &transmit)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_offered_as_they_are_used_and_no_more_than_a_turn_takes() {
        assert_eq!(offer(1, 1, 200), 2);
        assert_eq!(offer(32, 32, 32 * 1_500), 32);
        assert_eq!(offer(32, 3, 600), 3);
        assert_eq!(offer(4, 4, 4 * RECEIVE_ROOM), 8);
        assert_eq!(offer(8, 8, 8 * RECEIVE_ROOM), 8);
        assert_eq!(offer(8, 8, 0), 16);
    }
}
