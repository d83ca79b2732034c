//! The Python configuration (`fzgw.config.Config`) as the engine's. It was validated there; what does not fit here is
//! a `ValueError` all the same.

use std::net::SocketAddr;

use fzgw_core::config::{GatewayConfig, PeerConfig, PortRange, ResourceConfig, RuleConfig};
use fzgw_core::flow::{Limits, Purpose};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

#[derive(FromPyObject)]
struct Config {
    gateway: Gateway,
    flow_logs: FlowLogs,
    limits: GatewayLimits,
    peers: Vec<Peer>,
    resources: Vec<Resource>,
    rules: Vec<Rule>,
}

#[derive(FromPyObject)]
struct Gateway {
    uid: String,
    name: String,
    private_key: [u8; 32],
    listen: u16,
    interface: String,
    mtu: u16,
    tun_offload: String,
    addresses: Vec<String>,
}

#[derive(FromPyObject)]
struct FlowLogs {
    max_flows: usize,
    max_flows_per_peer: Option<usize>,
    open_after: f64,
    update_every: f64,
    close_delay: f64,
    idle: Idle,
}

#[derive(FromPyObject)]
struct Idle {
    tcp: f64,
    tcp_opening: f64,
    udp: f64,
    icmp: f64,
    other: f64,
}

#[derive(FromPyObject)]
struct GatewayLimits {
    handshake_rate: u32,
}

#[derive(FromPyObject)]
struct Peer {
    name: String,
    user: Option<String>,
    groups: Vec<String>,
    public_key: [u8; 32],
    preshared_key: Option<[u8; 32]>,
    allowed_ips: Vec<String>,
    persistent_keepalive: Option<u16>,
    endpoint: Option<String>,
}

#[derive(FromPyObject)]
struct Resource {
    name: String,
    addresses: Vec<String>,
    ports: Vec<String>,
    domain: Option<String>,
}

#[derive(FromPyObject)]
struct Rule {
    name: String,
    groups: Vec<String>,
    users: Vec<String>,
    peers: Vec<String>,
    resources: Vec<String>,
    direction: String,
}

/// Reads a `fzgw.config.Config`.
pub(crate) fn config(config: &Bound<'_, PyAny>, flow_logs: bool, open_events: bool) -> PyResult<GatewayConfig> {
    let Config {
        gateway,
        flow_logs: logs,
        limits,
        peers,
        resources,
        rules,
    } = config.extract()?;
    Ok(GatewayConfig {
        uid: gateway.uid,
        name: gateway.name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        private_key: gateway.private_key,
        listen: gateway.listen,
        interface: gateway.interface,
        mtu: gateway.mtu,
        tun_offload: gateway.tun_offload != "off",
        addresses: parse_all(&gateway.addresses)?,
        peers: peers.into_iter().map(peer).collect::<PyResult<_>>()?,
        resources: resources.into_iter().map(resource).collect::<PyResult<_>>()?,
        rules: (!rules.is_empty()).then(|| rules.into_iter().map(rule).collect()),
        limits: flow_limits(&logs),
        purpose: Purpose {
            records: flow_logs,
            updates: true,
            openings: open_events,
            rules: false,
        },
        handshake_rate: limits.handshake_rate,
    })
}

/// Reads a `fzgw.config.FlowLogsConfig`.
pub(crate) fn limits(flow_logs: &Bound<'_, PyAny>) -> PyResult<Limits> {
    let logs = flow_logs.extract()?;
    Ok(flow_limits(&logs))
}

fn flow_limits(logs: &FlowLogs) -> Limits {
    Limits {
        max_flows: logs.max_flows,
        max_flows_per_peer: logs.max_flows_per_peer,
        tcp_idle: nanoseconds(logs.idle.tcp),
        tcp_opening_idle: nanoseconds(logs.idle.tcp_opening),
        udp_idle: nanoseconds(logs.idle.udp),
        icmp_idle: nanoseconds(logs.idle.icmp),
        other_idle: nanoseconds(logs.idle.other),
        close_delay: nanoseconds(logs.close_delay),
        open_after: nanoseconds(logs.open_after),
        update_every: nanoseconds(logs.update_every),
        ..Limits::default()
    }
}

fn peer(peer: Peer) -> PyResult<PeerConfig> {
    Ok(PeerConfig {
        name: peer.name,
        user: peer.user,
        groups: peer.groups,
        public_key: peer.public_key,
        preshared_key: peer.preshared_key,
        allowed_ips: parse_all(&peer.allowed_ips)?,
        persistent_keepalive: peer.persistent_keepalive,
        endpoint: peer.endpoint.as_deref().map(parse::<SocketAddr>).transpose()?,
    })
}

fn resource(resource: Resource) -> PyResult<ResourceConfig> {
    let mut ports = Vec::new();
    let mut any = resource.ports.is_empty();
    for text in &resource.ports {
        match range(text) {
            Some(range) => ports.push(range),
            None if text == "any" => any = true,
            None => return Err(PyValueError::new_err(format!("{text:?} is not a port rule"))),
        }
    }
    if any {
        ports.clear();
    }
    Ok(ResourceConfig {
        name: resource.name,
        addresses: parse_all(&resource.addresses)?,
        ports,
        domain: resource.domain,
    })
}

/// `tcp/443`, `udp/8000-8100`, `tcp`, `icmp`.
fn range(text: &str) -> Option<PortRange> {
    let (protocol, ports) = text.split_once('/').unwrap_or((text, "0-65535"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    match protocol {
        "tcp" => Some(PortRange::Tcp(first, last)),
        "udp" => Some(PortRange::Udp(first, last)),
        "icmp" => Some(PortRange::Icmp),
        _ => None,
    }
}

fn rule(rule: Rule) -> RuleConfig {
    RuleConfig {
        name: rule.name,
        groups: rule.groups,
        users: rule.users,
        peers: rule.peers,
        resources: rule.resources,
        inbound: rule.direction == "inbound",
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> PyResult<T>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error| PyValueError::new_err(format!("{text:?}: {error}")))
}

fn parse_all<T: std::str::FromStr>(texts: &[String]) -> PyResult<Vec<T>>
where
    T::Err: std::fmt::Display,
{
    texts.iter().map(|text| parse(text)).collect()
}

/// Seconds as nanoseconds; what is out of range is as long as can be.
fn nanoseconds(seconds: f64) -> u64 {
    // A float as an integer saturates.
    (seconds * 1e9) as u64
}
