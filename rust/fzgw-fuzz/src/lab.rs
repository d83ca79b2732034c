//! Configurations and limits of the targets: small, so that every bound is met.

use std::sync::LazyLock;

use fzgw_core::config::{GatewayConfig, PeerConfig, PortRange, ResourceConfig, RuleConfig};
use fzgw_core::flow::{Limits, Purpose};
use fzgw_core::peers::public_key;

const SECOND: u64 = 1_000_000_000;
/// The longest duration that a configuration may have.
const LONGEST: u64 = 366 * 86_400 * SECOND;

/// The gateway's private key.
pub const GATEWAY_KEY: [u8; 32] = [0x77; 32];
/// The private key of the peer `laptop`.
pub const LAPTOP_KEY: [u8; 32] = [1; 32];
/// The private key of the peer `phone`.
pub const PHONE_KEY: [u8; 32] = [2; 32];
/// The public keys of gateway, laptop and phone: computed once, since that takes longer than many a run.
static PUBLIC_KEYS: LazyLock<[[u8; 32]; 3]> =
    LazyLock::new(|| [GATEWAY_KEY, LAPTOP_KEY, PHONE_KEY].map(|key| public_key(&key)));
/// Where the gateway's port is.
pub const GATEWAY: &str = "198.51.100.1:51820";
/// When scripts begin, in nanoseconds since the epoch.
pub const START: u64 = 1_700_000_000 * SECOND;

/// Two peers and rules. `phone` has a host out of a network of `laptop`'s.
pub fn config(limits: Limits) -> GatewayConfig {
    let peer =
        |name: &str, public_key: [u8; 32], allowed: &[&str], groups: &[&str], endpoint: Option<&str>| PeerConfig {
            name: name.to_owned(),
            user: Some(format!("{name}@example.com")),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            public_key,
            preshared_key: None,
            allowed_ips: allowed.iter().filter_map(|net| net.parse().ok()).collect(),
            persistent_keepalive: None,
            endpoint: endpoint.and_then(|endpoint| endpoint.parse().ok()),
        };
    let resource = |name: &str, addresses: &[&str], ports: Vec<PortRange>| ResourceConfig {
        name: name.to_owned(),
        addresses: addresses.iter().filter_map(|net| net.parse().ok()).collect(),
        ports,
        domain: Some(format!("{name}.example.com")),
    };
    let rule = |name: &str, group: &str, resource: &str, inbound| RuleConfig {
        name: name.to_owned(),
        groups: vec![group.to_owned()],
        users: vec![],
        peers: vec![],
        resources: vec![resource.to_owned()],
        inbound,
    };
    GatewayConfig {
        uid: "fuzz".to_owned(),
        name: "exit-1".to_owned(),
        version: "0".to_owned(),
        private_key: GATEWAY_KEY,
        listen: 51820,
        interface: "fzgw0".to_owned(),
        mtu: 1420,
        addresses: ["100.64.0.1/16", "fd00:64::1/64"]
            .iter()
            .filter_map(|net| net.parse().ok())
            .collect(),
        peers: vec![
            peer(
                "laptop",
                PUBLIC_KEYS[1],
                &["100.64.0.2/32", "10.20.0.0/16", "fd00:64::2/128"],
                &["engineering"],
                None,
            ),
            peer(
                "phone",
                PUBLIC_KEYS[2],
                &["100.64.0.3/32", "10.20.0.7/32", "fd00:64::3/128"],
                &["engineering"],
                Some("203.0.113.2:40000"),
            ),
        ],
        resources: vec![
            resource(
                "wiki",
                &["10.1.2.0/24", "fd00:1:2::/64"],
                vec![PortRange::Tcp(443, 443), PortRange::Udp(53, 443), PortRange::Icmp],
            ),
            resource("ssh", &["100.64.0.0/16", "fd00:64::/64"], vec![PortRange::Tcp(22, 22)]),
        ],
        rules: Some(vec![
            rule("engineering-wiki", "engineering", "wiki", false),
            rule("engineering-ssh", "engineering", "ssh", false),
            rule("reach-in", "engineering", "ssh", true),
        ]),
        limits,
        purpose: purpose(true),
        tun_offload: true,
        handshake_rate: 200,
    }
}

/// The other end of `laptop`'s tunnel: a gateway too, with one peer whose allowed IPs are everything.
pub fn laptop() -> GatewayConfig {
    let mut config = config(Limits::default());
    config.private_key = LAPTOP_KEY;
    config.addresses = vec![];
    config.resources = vec![];
    config.rules = None;
    config.purpose = Purpose::default();
    config.peers.truncate(1);
    for peer in &mut config.peers {
        peer.public_key = PUBLIC_KEYS[0];
        peer.allowed_ips = ["0.0.0.0/0", "::/0"]
            .iter()
            .filter_map(|net| net.parse().ok())
            .collect();
        peer.endpoint = GATEWAY.parse().ok();
    }
    config
}

/// What the flow table is for: everything, but open and update records only on demand.
pub fn purpose(updates: bool) -> Purpose {
    Purpose {
        records: true,
        updates,
        openings: true,
        rules: false,
    }
}

/// Small limits, by two bytes of a script.
pub fn limits(how_many: u8, how_long: u8) -> Limits {
    let defaults = Limits::default();
    let longer = |time: u64| if how_long & 0x80 != 0 { LONGEST } else { time };
    Limits {
        max_flows: [1, 2, 4, 64][usize::from(how_many & 3)],
        max_flows_per_peer: [None, Some(1), Some(2), Some(0)][usize::from(how_many >> 2 & 3)],
        max_fragments: [0, 1, 4, 4096][usize::from(how_many >> 4 & 3)],
        open_after: [0, SECOND, defaults.open_after, LONGEST][usize::from(how_long & 3)],
        update_every: [1, SECOND, defaults.update_every, LONGEST][usize::from(how_long >> 2 & 3)],
        close_delay: [defaults.close_delay, 0][usize::from(how_long >> 4 & 1)],
        fragment_timeout: [defaults.fragment_timeout, 0][usize::from(how_long >> 5 & 1)],
        // An opening that may be silent for longer than what follows it.
        tcp_opening_idle: [defaults.tcp_opening_idle, LONGEST][usize::from(how_long >> 6 & 1)],
        tcp_idle: longer(defaults.tcp_idle),
        udp_idle: longer(defaults.udp_idle),
        ..defaults
    }
}
