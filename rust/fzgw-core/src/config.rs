//! What the engine is told: plain data, validated by whoever made it. The Python layer reads it from TOML.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::flow::Limits;
use crate::flow::Purpose;

/// Everything that a gateway runs on.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Unique and stable across restarts.
    pub uid: String,
    /// Its name in records.
    pub name: String,
    /// The product's version.
    pub version: String,
    /// WireGuard private key.
    pub private_key: [u8; 32],
    /// UDP port; 0 lets the system choose.
    pub listen: u16,
    /// Name of the TUN device.
    pub interface: String,
    /// MTU of the TUN device.
    pub mtu: u16,
    /// The gateway's own addresses, with their networks.
    pub addresses: Vec<IpNet>,
    /// Who may connect.
    pub peers: Vec<PeerConfig>,
    /// What rules and names are about.
    pub resources: Vec<ResourceConfig>,
    /// Access rules; none at all: everything is allowed (P1).
    pub rules: Option<Vec<RuleConfig>>,
    /// Limits of the flow table.
    pub limits: Limits,
    /// What the flow table is for.
    pub purpose: Purpose,
    /// Whether the TUN device may move super-packets, where the kernel has that.
    pub tun_offload: bool,
    /// Handshake initiations a second above which unknown initiators meet cookies.
    pub handshake_rate: u32,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name.
    pub name: String,
    /// The user behind it.
    pub user: Option<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// WireGuard public key.
    pub public_key: [u8; 32],
    /// WireGuard preshared key.
    pub preshared_key: Option<[u8; 32]>,
    /// Inner addresses that are its own.
    pub allowed_ips: Vec<IpNet>,
    /// Seconds between persistent keepalives.
    pub persistent_keepalive: Option<u16>,
    /// Where it is, if the gateway may start the handshake.
    pub endpoint: Option<SocketAddr>,
}

/// Addresses and ports with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceConfig {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its ports; empty: all, of every protocol.
    pub ports: Vec<PortRange>,
    /// Shown as domain, source `config`.
    pub domain: Option<String>,
}

/// Ports of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRange {
    /// TCP ports, first and last.
    Tcp(u16, u16),
    /// UDP ports, first and last.
    Udp(u16, u16),
    /// ICMP and ICMPv6 echo and other queries (P2).
    Icmp,
}

/// One access rule: an allowance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleConfig {
    /// Its name.
    pub name: String,
    /// Whom it is about: groups, users and peers, any of them. All three empty: every peer.
    pub groups: Vec<String>,
    /// Users.
    pub users: Vec<String>,
    /// Names of peers.
    pub peers: Vec<String>,
    /// Names of resources that are the responder; empty: any.
    pub resources: Vec<String>,
    /// The peer is the responder, and the resources are its addresses and ports.
    pub inbound: bool,
}
