//! The loop: the only clock, the only thread that touches the state.
//!
//! A turn waits until something is ready, takes `now` once, does what is due, moves one bounded batch each way, flushes
//! it, takes back what failed, and hands records over. Neither direction can hold up the other for longer than its
//! batch.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::arena::Arena;
use super::handover::{BATCH, Batch, Handover, LINGER};
use super::tun::Tun;
use super::udp::{Family, UdpPort};
use crate::config::GatewayConfig;
use crate::flow::record::{FlowRecord, Record, Timestamp};
use crate::gateway::{GatewayState, Receipt};
use crate::stats::Snapshot;

/// Packets read from the device in one turn: one full send of segments.
pub(super) const TURN_PACKETS: usize = 64;
/// The longest packet that a device gives.
const PACKET_ROOM: usize = 65_535 + 16;
/// Memory that packets are read into; it outlives the turn only in part of a turn's packets.
const PACKET_ARENA: usize = 4 * PACKET_ROOM;
/// Flows that are ended at a time at the end.
const CLOSE_STEP: usize = 1024;

/// What the owner of the engine wants.
pub(super) enum Command {
    Reconfigure(Box<GatewayConfig>, Sender<()>),
    Snapshot(Sender<Snapshot>),
    Stop,
}

/// The worker: everything that its thread owns.
pub(super) struct Worker {
    clock: Clock,
    state: GatewayState,
    port: UdpPort,
    tun: Box<dyn Tun>,
    arena: Arena,
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
    handover: Handover,
    records: Vec<Record>,
    openings: Vec<FlowRecord>,
    /// When the first of `records` or `openings` came.
    since: u64,
    failed: Vec<Receipt>,
}

/// What a wait found.
#[derive(Debug, Clone, Copy, Default)]
struct Ready {
    v4: bool,
    v6: bool,
    tun: bool,
    wake: bool,
}

impl Worker {
    pub(super) fn new(
        state: GatewayState,
        port: UdpPort,
        tun: Box<dyn Tun>,
        commands: Receiver<Command>,
        wake: Arc<OwnedFd>,
        handover: Handover,
        mtu: u16,
    ) -> Self {
        let room = usize::from(mtu).next_multiple_of(16).max(2048);
        debug_assert!(room <= PACKET_ROOM);
        Self {
            clock: Clock::start(),
            state,
            port,
            tun,
            arena: Arena::new(PACKET_ARENA, PACKET_ROOM),
            commands,
            wake,
            handover,
            records: Vec::new(),
            openings: Vec::new(),
            since: 0,
            failed: Vec::new(),
        }
    }

    /// Runs until it is told to stop, and returns the last books.
    pub(super) fn run(mut self) -> Snapshot {
        let mut now = self.clock.now();
        loop {
            let ready = self.wait(now);
            now = self.clock.now();
            self.state.handle_timeout(now);
            self.flush();
            if ready.v4 {
                self.receive(Family::V4, now);
            }
            if ready.v6 {
                self.receive(Family::V6, now);
            }
            if ready.tun && !self.port.is_blocked() {
                self.read_packets(now);
            }
            self.hand_over(now, false);
            if ready.wake && !self.obey(now) {
                return self.finish(now);
            }
        }
    }

    fn wait(&mut self, now: Timestamp) -> Ready {
        let mut until = self.state.poll_timeout();
        if self.has_records() {
            until = until.min(self.since + LINGER);
        }
        let timeout = nanoseconds(until.saturating_sub(now.mono));
        // A full socket is waited for instead of the device: what is read now could not be sent.
        let blocked = self.port.blocked_family();
        let interest = |family| {
            if blocked == Some(family) {
                PollFlags::IN | PollFlags::OUT
            } else {
                PollFlags::IN
            }
        };
        let device = if blocked.is_some() {
            PollFlags::empty()
        } else {
            PollFlags::IN
        };
        let wake = self.wake.as_fd();
        let v4 = self.port.poll_fd(Family::V4).unwrap_or(wake);
        let v6: BorrowedFd<'_> = self.port.poll_fd(Family::V6).unwrap_or(wake);
        let mut fds = [
            PollFd::from_borrowed_fd(v4, interest(Family::V4)),
            PollFd::from_borrowed_fd(v6, interest(Family::V6)),
            PollFd::from_borrowed_fd(self.tun.poll_fd(), device),
            PollFd::from_borrowed_fd(wake, PollFlags::IN),
        ];
        // Interrupted or out of memory: the turn looks at everything that is due and waits again.
        if poll(&mut fds, Some(&timeout)).is_err() {
            return Ready::default();
        }
        // Whoever sends is often about to send more: one turn for two packets costs less than two turns.
        rustix::thread::sched_yield();
        let ready = |at: usize| !fds[at].revents().is_empty();
        Ready {
            v4: ready(0),
            v6: ready(1),
            tun: ready(2),
            wake: ready(3),
        }
    }

    fn receive(&mut self, family: Family, now: Timestamp) {
        let state = &mut self.state;
        let received = self
            .port
            .receive(family, |path, datagram| state.handle_datagram(now, path, datagram));
        if let Err(error) = received {
            tracing::debug!(%error, "receive");
        }
        self.flush();
    }

    fn read_packets(&mut self, now: Timestamp) {
        for _ in 0..TURN_PACKETS {
            match self.tun.read(self.arena.room()) {
                Ok(0) => break,
                Ok(len) => {
                    // Room to pad without a copy.
                    let packet = self.arena.take(len, len.next_multiple_of(16));
                    self.state.handle_packet(now, packet);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::debug!(%error, "read from the device");
                    break;
                }
            }
        }
        self.flush();
    }

    /// Writes what the state has made, and takes back what could not be written.
    fn flush(&mut self) {
        let mut output = self.state.take_output();
        for packet in &output.tun {
            if let Err(error) = self.tun.write(&packet.packet) {
                tracing::trace!(%error, "write to the device");
                self.failed.push(packet.receipt);
            }
        }
        self.port.send(&mut output.udp, &mut self.failed);
        self.state.datagrams_sent(self.port.take_sent());
        for receipt in self.failed.drain(..) {
            self.state.not_written(receipt);
        }
        self.state.written(output);
    }

    fn has_records(&self) -> bool {
        !self.records.is_empty() || !self.openings.is_empty() || self.handover.has_gap()
    }

    /// Hands records over when there are enough of them, or the first has waited long enough.
    fn hand_over(&mut self, now: Timestamp, at_once: bool) {
        // Records of packets that wait for a full socket may still change.
        if self.state.has_records() && !self.port.is_blocked() {
            if !self.has_records() {
                self.since = now.mono;
            }
            self.state.drain_records(&mut self.records, &mut self.openings);
        }
        let enough = self.records.len() + self.openings.len() >= BATCH;
        let due = self.has_records() && now.mono >= self.since + LINGER;
        if self.has_records() && (enough || due || at_once) {
            let batch = self.take_batch();
            self.handover.offer(batch, now.wall);
            self.since = now.mono;
        }
    }

    fn take_batch(&mut self) -> Batch {
        Batch {
            directory: self.state.directory(),
            records: std::mem::take(&mut self.records),
            openings: std::mem::take(&mut self.openings),
        }
    }

    /// Does what was asked. False: it is time to end.
    fn obey(&mut self, now: Timestamp) -> bool {
        let mut count = [0; 8];
        // The counter is only there to wake: what it says does not matter.
        let _ = rustix::io::read(&*self.wake, &mut count);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Reconfigure(config, done) => {
                    self.hand_over(now, true);
                    self.state.reconfigure(&config);
                    self.flush();
                    self.hand_over(now, true);
                    let _ = done.send(());
                }
                Command::Snapshot(reply) => {
                    self.hand_over(now, true);
                    let _ = reply.send(self.state.snapshot(now, self.handover.stats()));
                }
                Command::Stop => return false,
            }
        }
        true
    }

    /// Ends every flow and delivers every record (R27).
    fn finish(mut self, now: Timestamp) -> Snapshot {
        self.port.flush(&mut self.failed);
        let mut unsent = Vec::new();
        self.port.give_up(&mut unsent);
        for receipt in self.failed.drain(..).chain(unsent) {
            self.state.not_written(receipt);
        }
        self.state.give_up_waiting();
        loop {
            let more = self.state.close_some(CLOSE_STEP);
            self.state.drain_records(&mut self.records, &mut self.openings);
            if self.has_records() {
                let batch = self.take_batch();
                self.handover.deliver(batch, now.wall);
            }
            if !more {
                break;
            }
        }
        self.state.snapshot(now, self.handover.stats())
    }
}

/// Both clocks, read together.
struct Clock {
    start: Instant,
}

impl Clock {
    #[allow(clippy::disallowed_methods)]
    fn start() -> Self {
        Self { start: Instant::now() }
    }

    #[allow(clippy::disallowed_methods)]
    fn now(&self) -> Timestamp {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // 64 bits of nanoseconds last for 584 years.
        Timestamp {
            mono: self.start.elapsed().as_nanos() as u64,
            wall: wall.as_nanos() as u64,
        }
    }
}

fn nanoseconds(count: u64) -> Timespec {
    const SECOND: u64 = 1_000_000_000;
    // Ten seconds are as good as for ever, and fit every field.
    let count = count.min(10 * SECOND);
    Timespec {
        tv_sec: (count / SECOND) as i64,
        tv_nsec: (count % SECOND) as i64,
    }
}
