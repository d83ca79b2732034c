//! The loop: the only clock, the only thread that touches the state.
//!
//! A turn waits until something is ready, takes `now` once, does what is due, moves one bounded batch each way, flushes
//! it, takes back what failed, and hands records over. Neither direction can hold up the other for longer than its
//! batch.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender};

use super::TURN_BYTES;
use super::arena::Arena;
use super::handover::{BATCH, Batch, Handover, LINGER, MAX_BATCH};
use super::tun::{READ_ROOM, Read, Tun};
use super::udp::{Family, UdpPort};
use super::wait::{Interest, Ready, Source, Waiter};
use crate::config::GatewayConfig;
use crate::flow::record::{FlowRecord, Record, Timestamp};
use crate::gateway::{GatewayState, Receipt};
use crate::offload::Arrived;
use crate::peers::MAX_FILL;
use crate::stats::Snapshot;

/// Packets read from the device in one turn: one full send of segments.
const TURN_PACKETS: usize = 64;
/// The longest packet that a device gives.
const PACKET_ROOM: usize = READ_ROOM + MAX_FILL;
/// Memory that packets are read into; it outlives the turn only in part of a turn's packets.
pub(super) const PACKET_ARENA: usize = 4 * PACKET_ROOM;
/// Flows that are ended at a time at the end.
const CLOSE_STEP: usize = 1024;

/// How long to wait for room in a full queue at the end.
const FULL_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

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
    waiter: Waiter,
    /// The socket that was full at the last wait.
    blocked: Option<Family>,
    handover: Handover,
    records: Vec<Record>,
    openings: Vec<FlowRecord>,
    /// When the first of `records` or `openings` came.
    since: u64,
    failed: Vec<Receipt>,
    /// The device is gone: why the worker ends by itself.
    lost: Option<std::io::Error>,
}

impl Worker {
    pub(super) fn new(
        state: GatewayState,
        port: UdpPort,
        tun: Box<dyn Tun>,
        commands: Receiver<Command>,
        wake: Arc<OwnedFd>,
        handover: Handover,
    ) -> std::io::Result<Self> {
        let waiter = Waiter::new()?;
        for family in [Family::V4, Family::V6] {
            if let Some(fd) = port.poll_fd(family) {
                waiter.add(family.into(), fd)?;
            }
        }
        waiter.add(Source::Tun, tun.poll_fd())?;
        waiter.add(Source::Wake, wake.as_fd())?;
        Ok(Self {
            clock: Clock::start(),
            state,
            port,
            tun,
            arena: Arena::new(PACKET_ARENA, PACKET_ROOM),
            commands,
            wake,
            waiter,
            blocked: None,
            handover,
            records: Vec::new(),
            openings: Vec::new(),
            since: 0,
            failed: Vec::new(),
            lost: None,
        })
    }

    /// Runs until it is told to stop, and returns the last books.
    pub(super) fn run(mut self) -> Snapshot {
        let mut now = self.clock.now();
        loop {
            let ready = self.wait(now);
            now = self.clock.now();
            self.state.handle_timeout(now);
            self.flush();
            if ready.has(Source::V4) {
                self.receive(Family::V4, now);
            }
            if ready.has(Source::V6) {
                self.receive(Family::V6, now);
            }
            if ready.has(Source::Tun) && !self.port.is_blocked() {
                self.read_packets(now);
            }
            self.hand_over(now, false);
            if self.lost.is_some() {
                return self.finish(now);
            }
            if ready.has(Source::Wake) && !self.obey(now) {
                return self.finish(now);
            }
        }
    }

    fn wait(&mut self, now: Timestamp) -> Ready {
        let mut until = self.state.poll_timeout();
        if self.has_records() {
            until = until.min(self.since + LINGER);
        }
        self.watch_blocked();
        self.waiter.wait(until.saturating_sub(now.mono))
    }

    /// A full socket is waited for instead of the device: what would be read now could not be sent.
    fn watch_blocked(&mut self) {
        let blocked = self.port.blocked_family();
        if blocked == self.blocked {
            return;
        }
        let changes = [
            (self.blocked, Interest::Read, Interest::Read),
            (blocked, Interest::ReadAndWrite, Interest::Nothing),
        ];
        for (family, socket, device) in changes {
            let Some(family) = family else { continue };
            let of_socket = self
                .port
                .poll_fd(family)
                .map(|fd| self.waiter.change(family.into(), fd, socket))
                .transpose();
            let of_device = self.waiter.change(Source::Tun, self.tun.poll_fd(), device);
            if let Err(error) = of_socket.and(of_device) {
                tracing::warn!(%error, "cannot change what is waited for");
            }
        }
        self.blocked = blocked;
    }

    fn receive(&mut self, family: Family, now: Timestamp) {
        let state = &mut self.state;
        let received = self.port.receive(family, |path, ecn, datagram| {
            state.handle_datagram(now, path, ecn, datagram)
        });
        if let Err(error) = received {
            tracing::debug!(%error, "receive");
        }
        self.flush();
    }

    fn read_packets(&mut self, now: Timestamp) {
        let mut bytes = 0;
        for _ in 0..TURN_PACKETS {
            let room = self.arena.room();
            match self.tun.read(room) {
                Ok(Read { len: 0, .. }) => break,
                Ok(Read { len, what }) => {
                    match what {
                        Arrived::Packet => {
                            // Room to pad without a copy.
                            let packet = self.arena.take(len, len.next_multiple_of(16) + MAX_FILL);
                            self.state.handle_packet(now, packet);
                        }
                        Arrived::Super(how) => self.state.handle_super_packet(now, &room[..len], &how),
                        Arrived::Broken => self.state.handle_broken_packet(len),
                    }
                    bytes += len;
                    if bytes >= TURN_BYTES {
                        break;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // A device that is down is waited for; one that was removed is readable for ever.
                Err(error) => {
                    self.lost = Some(error);
                    break;
                }
            }
        }
        self.flush();
    }

    /// Writes what the state has made, and takes back what could not be written.
    fn flush(&mut self) {
        if !self.state.has_output() && !self.port.is_blocked() {
            return;
        }
        let mut output = self.state.take_output();
        if !output.tun.is_empty() {
            self.tun.write(&output.tun, &mut self.failed);
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
        if enough || due || (at_once && self.has_records()) {
            // Once at least: a gap that waits is told without records too.
            loop {
                let batch = self.take_batch();
                self.handover.offer(batch, now.wall);
                if self.records.is_empty() {
                    break;
                }
            }
            self.since = now.mono;
        }
    }

    /// The oldest records, not too many for the queue at once, with all openings: they come before.
    fn take_batch(&mut self) -> Batch {
        let rest = self.records.split_off(self.records.len().min(MAX_BATCH));
        Batch {
            directory: self.state.directory(),
            records: std::mem::replace(&mut self.records, rest),
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
            while !self.records.is_empty() || !self.openings.is_empty() {
                self.deliver(now);
            }
            self.answer(now);
            if !more {
                break;
            }
        }
        if self.handover.has_gap() {
            self.deliver(now);
        }
        let failure = self.lost.map(|error| format!("the TUN device is gone: {error}"));
        Snapshot {
            failure,
            ..self.state.snapshot(now, self.handover.stats())
        }
    }

    /// Hands one batch over, as soon as the queue has room.
    fn deliver(&mut self, now: Timestamp) {
        let mut batch = self.take_batch();
        while let Err(full) = self.handover.try_deliver(batch, now.wall) {
            batch = full;
            // Whoever takes the records may be waiting for an answer first.
            self.answer(now);
            std::thread::sleep(FULL_PAUSE);
        }
    }

    /// Answers whoever asks while the gateway ends.
    fn answer(&mut self, now: Timestamp) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                // There is nothing left to configure.
                Command::Reconfigure(_, done) => {
                    let _ = done.send(());
                }
                Command::Snapshot(reply) => {
                    let _ = reply.send(self.state.snapshot(now, self.handover.stats()));
                }
                Command::Stop => {}
            }
        }
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
