//! Sockets, devices, threads and the clock: what the rest of the crate does not know.
//!
//! [`Engine::start`] opens the UDP port and the device, then gives everything to one worker thread ([`worker`]).
//! Commands go to it by a channel and a wake-up; batches of records come back by a bounded one ([`handover`]).

mod arena;
pub mod handover;
pub mod notices;
pub mod tun;
mod udp;
mod wait;
mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::event::{EventfdFlags, eventfd};

use self::handover::{Batch, Handover};
use self::notices::Notices;
use self::tun::{MemoryTun, MemoryTunPeer, Tun};
use self::udp::UdpPort;
use self::worker::{Command, Worker};
use crate::config::GatewayConfig;
use crate::gateway::{CUTTINGS, GatewayState};
use crate::offload::Offload;
use crate::stats::Snapshot;

/// Bytes after which a turn takes no more of one direction, about eight super-packets: the other direction, and another
/// peer's ping, wait no longer than that takes.
const TURN_BYTES: usize = 512 << 10;
/// Memory for packets that are read, cut and sent. What is sealed in a turn comes on top, and is gone with it.
const POOLS: usize = udp::POOL + worker::PACKET_ARENA + CUTTINGS;
const _: () = assert!(POOLS <= 5 << 20);

/// Why a gateway cannot start. Each is one clear line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the UDP port.
    #[error("UDP port {port} is in use by another program: choose another with gateway.listen, or end that program")]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// The interface exists.
    #[error("interface {name} exists already: choose another name with gateway.interface, or remove it")]
    InterfaceTaken {
        /// Its name.
        name: String,
    },
    /// The kernel has no TUN devices.
    #[error("/dev/net/tun is missing: load the module with 'modprobe tun', or give the device to the container")]
    NoTun,
    /// Something needs a capability.
    #[error("no privilege to {what}: it needs CAP_NET_ADMIN")]
    Privilege {
        /// What was tried.
        what: &'static str,
    },
    /// Anything else that the system said.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl StartError {
    fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Which device packets go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A TUN device of the kernel.
    Tun,
    /// A pair of sockets in this process, for tests without root.
    Memory,
}

/// A running gateway.
pub struct Engine {
    interface: String,
    offload: Offload,
    port: u16,
    boot_id: String,
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    batches: Receiver<Batch>,
    handover: Arc<handover::Queue>,
    notices: Notices,
    memory: Option<Arc<MemoryTunPeer>>,
    worker: Option<JoinHandle<Snapshot>>,
    last: Option<Snapshot>,
}

impl Engine {
    /// Opens the port and the device and starts the worker. Whatever fails leaves nothing behind. The worker stays in
    /// the network namespace of the calling thread.
    pub fn start(config: &GatewayConfig, device: Device) -> Result<Self, StartError> {
        let notices = Notices::default();
        let port = UdpPort::bind(config.listen, notices.clone())?;
        let (tun, memory): (Box<dyn Tun>, _) = match device {
            Device::Tun => (tun::create(&config.interface, config.tun_offload)?, None),
            Device::Memory => {
                let (tun, peer) = MemoryTun::pair().map_err(StartError::system("make the in-memory device"))?;
                (Box::new(tun), Some(Arc::new(peer)))
            }
        };
        let state = GatewayState::new(config, port.number())
            .map_err(|error| StartError::system("read the system's randomness")(error.into()))?;
        let boot_id = state.boot_id().to_owned();
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|error| StartError::system("make a wake-up")(error.into()))?;
        let wake = Arc::new(wake);
        let (commands, to_do) = unbounded();
        let (handover, queue, batches) = Handover::new();
        let (number, interface, offload) = (port.number(), tun.name().to_owned(), tun.offload());
        let worker = Worker::new(state, port, tun, to_do, wake.clone(), handover)
            .map_err(StartError::system("wait for sockets"))?;
        let worker = std::thread::Builder::new()
            .name("fzgw-worker".to_owned())
            .spawn(move || worker.run())
            .map_err(StartError::system("start the worker thread"))?;
        Ok(Self {
            interface,
            offload,
            port: number,
            boot_id,
            commands,
            wake,
            batches,
            handover: queue,
            notices,
            memory,
            worker: Some(worker),
            last: None,
        })
    }

    /// The name of the device.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// What the device can do beyond one packet a call.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// 16 hex digits, new at each start.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Where batches of records come out. It disconnects when the gateway has ended and all are taken.
    pub fn batches(&self) -> &Receiver<Batch> {
        &self.batches
    }

    /// To be called for each batch that was taken from [`Engine::batches`].
    pub fn queue(&self) -> &Arc<handover::Queue> {
        &self.handover
    }

    /// What the worker has to say to the operator.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// The other end of the in-memory device.
    pub fn memory(&self) -> Option<&Arc<MemoryTunPeer>> {
        self.memory.as_ref()
    }

    /// Takes a new configuration, between two batches of packets; returns when it is in force.
    pub fn reconfigure(&self, config: GatewayConfig) {
        let (done, wait) = bounded(1);
        if self.command(Command::Reconfigure(Box::new(config), done)) {
            // A worker that ends meanwhile drops the sender: nothing is left to configure.
            let _ = wait.recv();
        }
    }

    /// The books, at a moment between two batches; after the end, the last ones. `None` only where the worker died.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        let (reply, answer) = bounded(1);
        if self.command(Command::Snapshot(reply))
            && let Ok(snapshot) = answer.recv()
        {
            return Some(snapshot);
        }
        if let Some(worker) = self.worker.take() {
            self.last = worker.join().ok();
        }
        self.last.clone()
    }

    /// Tells the worker to end every flow, hand over every record and end. Returns at once.
    pub fn stop(&self) {
        self.command(Command::Stop);
    }

    fn command(&self, command: Command) -> bool {
        let sent = self.commands.send(command).is_ok();
        // A full counter is a wake-up too.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        sent
    }
}

impl Drop for Engine {
    /// Ends the worker without waiting for anybody to take its records.
    fn drop(&mut self) {
        self.handover.abandon();
        self.stop();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
