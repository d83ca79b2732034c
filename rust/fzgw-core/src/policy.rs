//! Access rules (P1–P4): who may open what. An immutable value, swapped whole on reload.
//!
//! Rules judge the packet that opens a flow. What belongs to an open flow follows it and never comes here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::config::{GatewayConfig, PeerConfig, PortRange, ResourceConfig, RuleConfig};
use crate::flow::Side;
use crate::flow::record::{NameId, PeerId, Standing, Verdict};
use crate::packet::{Original, PacketInfo, Transport, protocol};

/// The rule that denies what no other allows.
pub const DEFAULT_DENY: &str = "default-deny";

/// Texts with numbers that stay the same across reloads, so that a flow's rule keeps its name.
#[derive(Debug, Default)]
pub struct Names {
    texts: Vec<String>,
    numbers: HashMap<String, NameId>,
}

impl Names {
    /// The number of this text.
    pub fn intern(&mut self, text: &str) -> NameId {
        if let Some(id) = self.numbers.get(text) {
            return *id;
        }
        let id = NameId(self.texts.len() as u32);
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), id);
        id
    }

    /// All texts, by number.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

/// The compiled rules.
#[derive(Debug)]
pub struct Policy {
    default_deny: NameId,
    resources: Vec<Resource>,
    rules: Option<Rules>,
    /// Directed broadcast addresses of the gateway's own networks (P3).
    broadcasts: Vec<Ipv4Addr>,
}

#[derive(Debug)]
struct Resource {
    name: NameId,
    domain: Option<NameId>,
    addresses: Vec<IpNet>,
    ports: Vec<PortRange>,
}

#[derive(Debug, Default)]
struct Rules {
    /// By peer, in the configuration's order.
    outbound: HashMap<PeerId, Vec<Rule>>,
    inbound: HashMap<PeerId, Vec<Rule>>,
}

#[derive(Debug, Clone)]
struct Rule {
    name: NameId,
    /// Indexes into [`Policy::resources`]; none: any responder.
    resources: Option<Vec<usize>>,
}

/// The side of a packet that answers: its address and what it is asked for.
#[derive(Debug, Clone, Copy)]
struct Responder {
    address: IpAddr,
    service: Service,
}

#[derive(Debug, Clone, Copy)]
enum Service {
    Tcp(u16),
    Udp(u16),
    Icmp,
    Other,
}

impl Policy {
    /// Compiles the rules of a configuration for these peers.
    pub fn new<'a>(
        config: &GatewayConfig,
        peers: impl Iterator<Item = (PeerId, &'a PeerConfig)>,
        names: &mut Names,
    ) -> Self {
        let default_deny = names.intern(DEFAULT_DENY);
        let resources: Vec<Resource> = config
            .resources
            .iter()
            .map(|resource| Resource::new(resource, names))
            .collect();
        let rules = config.rules.as_ref().map(|rules| {
            let mut compiled = Rules::default();
            for (id, peer) in peers {
                for rule in rules.iter().filter(|rule| rule.is_about(peer)) {
                    let side = if rule.inbound {
                        &mut compiled.inbound
                    } else {
                        &mut compiled.outbound
                    };
                    side.entry(id)
                        .or_default()
                        .push(Rule::new(rule, &config.resources, names));
                }
            }
            compiled
        });
        let broadcasts = config.addresses.iter().filter_map(|net| match net {
            IpNet::V4(v4) if v4.prefix_len() < 31 => Some(v4.broadcast()),
            IpNet::V4(_) | IpNet::V6(_) => None,
        });
        Self {
            default_deny,
            resources,
            rules,
            broadcasts: broadcasts.collect(),
        }
    }

    /// Whether there are rules at all. Without them everything is allowed but P3.
    pub fn has_rules(&self) -> bool {
        self.rules.is_some()
    }

    /// Judges a packet that has no flow.
    pub fn judge(&self, peer: PeerId, side: Side, packet: &PacketInfo) -> Standing {
        if self.is_never_allowed(packet.dst) {
            return self.denied();
        }
        let Some(rules) = &self.rules else {
            let responder = Responder::of(packet);
            let resource = self.resources.iter().find(|resource| resource.has(responder));
            return Standing {
                verdict: Verdict::Allow,
                rule: None,
                resource: resource.map(|resource| resource.name),
                domain: resource.and_then(|resource| resource.domain),
            };
        };
        let opened = self.allow(rules, peer, side, Responder::of(packet));
        opened
            .or_else(|| self.allow_turned(rules, peer, side, packet))
            .unwrap_or_else(|| self.denied())
    }

    /// P4: the log forgets a flow before the conversation is over. Such a packet passes if a rule would allow its
    /// flow, opened from the other end. A SYN does open, so for TCP it is not forgiven.
    fn allow_turned(&self, rules: &Rules, peer: PeerId, side: Side, packet: &PacketInfo) -> Option<Standing> {
        let responder = match packet.transport {
            Transport::Tcp { flags, .. } if flags.is_syn() => return None,
            // What a peer sends by a rule for those who reach in may only be TCP, which nobody answers who did not
            // open the connection: anything else would be a way out that no rule allows.
            Transport::Udp { .. } | Transport::Echo { .. } | Transport::Other | Transport::IcmpError { .. }
                if side == Side::FromPeer =>
            {
                return None;
            }
            Transport::Tcp { src_port, .. } => Responder {
                address: packet.src,
                service: Service::Tcp(src_port),
            },
            Transport::Udp { src_port, .. } => Responder {
                address: packet.src,
                service: Service::Udp(src_port),
            },
            Transport::Echo { request: false, .. } => Responder {
                address: packet.src,
                service: Service::Icmp,
            },
            // An error passes where the packet that it complains about would (P2).
            Transport::IcmpError {
                original: Some(original),
                ..
            } => Responder::of_original(&original),
            Transport::Other => Responder {
                address: packet.src,
                service: Service::Other,
            },
            Transport::Echo { request: true, .. }
            | Transport::Icmp { .. }
            | Transport::IcmpError { original: None, .. }
            | Transport::Redirect
            | Transport::Fragment => return None,
        };
        if self.is_never_allowed(responder.address) {
            return None;
        }
        self.allow(rules, peer, side.turned(), responder)
    }

    fn allow(&self, rules: &Rules, peer: PeerId, opened_from: Side, responder: Responder) -> Option<Standing> {
        let rules = match opened_from {
            Side::FromPeer => rules.outbound.get(&peer)?,
            Side::ToPeer => rules.inbound.get(&peer)?,
        };
        rules.iter().find_map(|rule| {
            let resource = match &rule.resources {
                Some(of_rule) => {
                    let index = of_rule.iter().find(|index| self.resources[**index].has(responder))?;
                    Some(&self.resources[*index])
                }
                None => self.resources.iter().find(|resource| resource.has(responder)),
            };
            Some(Standing {
                verdict: Verdict::Allow,
                rule: Some(rule.name),
                resource: resource.map(|resource| resource.name),
                domain: resource.and_then(|resource| resource.domain),
            })
        })
    }

    /// Denied by the rule that stands behind all others.
    pub fn denied(&self) -> Standing {
        Standing {
            verdict: Verdict::Deny,
            rule: Some(self.default_deny),
            resource: None,
            domain: None,
        }
    }

    /// P3: destinations that nothing in a tunnel has to reach.
    fn is_never_allowed(&self, destination: IpAddr) -> bool {
        match destination {
            IpAddr::V4(v4) => {
                v4.is_link_local()
                    || v4.is_loopback()
                    || v4.is_multicast()
                    || v4.is_broadcast()
                    || v4.octets()[0] == 0
                    || self.broadcasts.contains(&v4)
            }
            IpAddr::V6(v6) => {
                let hidden = v6
                    .to_ipv4_mapped()
                    .is_some_and(|v4| v4.is_loopback() || v4.is_link_local());
                v6.is_loopback() || v6.is_multicast() || v6.is_unspecified() || v6.is_unicast_link_local() || hidden
            }
        }
    }
}

impl Rule {
    fn new(rule: &RuleConfig, resources: &[ResourceConfig], names: &mut Names) -> Self {
        let indexes = || {
            let known = rule.resources.iter();
            known
                .filter_map(|name| resources.iter().position(|resource| resource.name == *name))
                .collect()
        };
        Self {
            name: names.intern(&rule.name),
            resources: (!rule.resources.is_empty()).then(indexes),
        }
    }
}

impl RuleConfig {
    fn is_about(&self, peer: &PeerConfig) -> bool {
        let everybody = self.groups.is_empty() && self.users.is_empty() && self.peers.is_empty();
        everybody
            || self.groups.iter().any(|group| peer.groups.contains(group))
            || self.users.iter().any(|user| peer.user.as_ref() == Some(user))
            || self.peers.contains(&peer.name)
    }
}

impl Resource {
    fn new(resource: &ResourceConfig, names: &mut Names) -> Self {
        Self {
            name: names.intern(&resource.name),
            domain: resource.domain.as_deref().map(|domain| names.intern(domain)),
            addresses: resource.addresses.clone(),
            ports: resource.ports.clone(),
        }
    }

    fn has(&self, responder: Responder) -> bool {
        let serves = self.ports.is_empty()
            || self.ports.iter().any(|range| match (*range, responder.service) {
                (PortRange::Tcp(first, last), Service::Tcp(port)) => (first..=last).contains(&port),
                (PortRange::Udp(first, last), Service::Udp(port)) => (first..=last).contains(&port),
                (PortRange::Icmp, Service::Icmp) => true,
                (PortRange::Tcp(..) | PortRange::Udp(..) | PortRange::Icmp, _) => false,
            });
        serves && self.addresses.iter().any(|net| net.contains(&responder.address))
    }
}

impl Responder {
    /// The responder of the flow that this packet opens.
    fn of(packet: &PacketInfo) -> Self {
        let service = match packet.transport {
            Transport::Tcp { dst_port, .. } => Service::Tcp(dst_port),
            Transport::Udp { dst_port, .. } => Service::Udp(dst_port),
            Transport::Echo { .. } | Transport::Icmp { .. } => Service::Icmp,
            Transport::IcmpError { .. } | Transport::Redirect | Transport::Fragment | Transport::Other => {
                Service::Other
            }
        };
        Self {
            address: packet.dst,
            service,
        }
    }

    /// The responder of the flow that a quoted packet opened.
    fn of_original(original: &Original) -> Self {
        let service = match original.protocol {
            protocol::TCP => Service::Tcp(original.dst_port),
            protocol::UDP => Service::Udp(original.dst_port),
            protocol::ICMP | protocol::ICMPV6 => Service::Icmp,
            _ => Service::Other,
        };
        Self {
            address: original.dst,
            service,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::TcpFlags;
    use crate::testkit::{self, config, peer};

    fn compile(config: &GatewayConfig) -> (Policy, Names) {
        let mut names = Names::default();
        let peers = config.peers.iter().zip(1..).map(|(peer, id)| (PeerId(id), peer));
        (Policy::new(config, peers, &mut names), names)
    }

    fn with_rules() -> GatewayConfig {
        let mut config = config();
        config.peers = vec![
            PeerConfig {
                groups: vec!["engineering".into()],
                ..peer("laptop", 1, "100.64.0.2/32")
            },
            peer("guest", 2, "100.64.0.3/32"),
        ];
        config.resources = vec![
            ResourceConfig {
                name: "wiki".into(),
                addresses: vec!["10.1.2.0/24".parse().unwrap()],
                ports: vec![PortRange::Tcp(443, 443), PortRange::Icmp],
                domain: Some("wiki.example.com".into()),
            },
            ResourceConfig {
                name: "ssh".into(),
                addresses: vec!["100.64.0.0/16".parse().unwrap()],
                ports: vec![PortRange::Tcp(22, 22)],
                domain: None,
            },
        ];
        let rule = |name: &str, resource: &str, inbound| RuleConfig {
            name: name.into(),
            groups: vec!["engineering".into()],
            users: vec![],
            peers: vec![],
            resources: vec![resource.into()],
            inbound,
        };
        config.rules = Some(vec![
            rule("engineering-wiki", "wiki", false),
            rule("reach-in", "ssh", true),
        ]);
        config
    }

    fn verdict(policy: &Policy, peer: u32, side: Side, packet: &[u8]) -> Verdict {
        policy
            .judge(PeerId(peer), side, &PacketInfo::parse(packet).unwrap())
            .verdict
    }

    /// P1: without rules everything is allowed; P3: but not everywhere.
    #[test]
    fn p1_p3_without_rules_everything_but_special_destinations_is_allowed() {
        let (policy, _) = compile(&config());
        for (destination, expected) in [
            ("192.0.2.1:80", Verdict::Allow),
            ("100.64.0.1:80", Verdict::Allow),
            ("169.254.169.254:80", Verdict::Deny),
            ("127.0.0.1:80", Verdict::Deny),
            ("224.0.0.1:80", Verdict::Deny),
            ("255.255.255.255:80", Verdict::Deny),
            ("100.64.255.255:80", Verdict::Deny),
        ] {
            let packet = testkit::tcp("100.64.0.2:4000", destination, TcpFlags::SYN, b"");
            assert_eq!(verdict(&policy, 1, Side::FromPeer, &packet), expected, "{destination}");
        }
    }

    /// P1: the rule names what it allows; anything else, inbound flows and other peers included, is default-deny.
    #[test]
    fn p1_rules_allow_what_they_name() {
        let (policy, names) = compile(&with_rules());
        let syn = |src, dst| testkit::tcp(src, dst, TcpFlags::SYN, b"");
        let wiki = syn("100.64.0.2:4000", "10.1.2.3:443");
        let standing = policy.judge(PeerId(1), Side::FromPeer, &PacketInfo::parse(&wiki).unwrap());
        let name = |id: Option<NameId>| id.map(|id| names.texts()[id.0 as usize].as_str());
        assert_eq!(standing.verdict, Verdict::Allow);
        assert_eq!(name(standing.rule), Some("engineering-wiki"));
        assert_eq!(
            (name(standing.resource), name(standing.domain)),
            (Some("wiki"), Some("wiki.example.com"))
        );
        assert_eq!(
            verdict(&policy, 2, Side::FromPeer, &wiki),
            Verdict::Deny,
            "another peer"
        );
        assert_eq!(
            verdict(&policy, 1, Side::FromPeer, &syn("100.64.0.2:1", "10.1.2.3:80")),
            Verdict::Deny,
            "port"
        );
        assert_eq!(
            verdict(&policy, 1, Side::ToPeer, &syn("192.0.2.1:1", "100.64.0.2:22")),
            Verdict::Allow,
            "inbound"
        );
        assert_eq!(
            verdict(&policy, 1, Side::ToPeer, &syn("192.0.2.1:1", "100.64.0.2:80")),
            Verdict::Deny,
            "inbound"
        );
        let denied = policy.judge(PeerId(2), Side::FromPeer, &PacketInfo::parse(&wiki).unwrap());
        assert_eq!(name(denied.rule), Some(DEFAULT_DENY));
    }

    /// P2: `icmp` is echo and other queries.
    #[test]
    fn p2_icmp_in_ports_means_queries() {
        let (policy, _) = compile(&with_rules());
        let echo = testkit::echo("100.64.0.2", "10.1.2.3", 7, true);
        assert_eq!(verdict(&policy, 1, Side::FromPeer, &echo), Verdict::Allow);
        let udp = testkit::udp("100.64.0.2:1", "10.1.2.3:443", b"");
        assert_eq!(verdict(&policy, 1, Side::FromPeer, &udp), Verdict::Deny);
    }

    /// P4: a packet from outside without a flow passes if, turned round, a rule would allow it; a SYN does not.
    #[test]
    fn p4_the_logs_limits_cut_no_traffic() {
        let (policy, _) = compile(&with_rules());
        let back = |flags| testkit::tcp("10.1.2.3:443", "100.64.0.2:4000", flags, b"data");
        assert_eq!(verdict(&policy, 1, Side::ToPeer, &back(TcpFlags::ACK)), Verdict::Allow);
        assert_eq!(
            verdict(&policy, 1, Side::ToPeer, &back(TcpFlags::SYN | TcpFlags::ACK)),
            Verdict::Allow
        );
        assert_eq!(verdict(&policy, 1, Side::ToPeer, &back(TcpFlags::SYN)), Verdict::Deny);
        let other = testkit::tcp("10.1.2.3:80", "100.64.0.2:4000", TcpFlags::ACK, b"data");
        assert_eq!(verdict(&policy, 1, Side::ToPeer, &other), Verdict::Deny);
        let inner = testkit::tcp("100.64.0.2:4000", "10.1.2.3:443", TcpFlags::ACK, b"");
        let error = testkit::icmp_error("192.0.2.9", "100.64.0.2", 3, 4, &inner);
        assert_eq!(
            verdict(&policy, 1, Side::ToPeer, &error),
            Verdict::Allow,
            "P2: errors of an allowed flow"
        );
    }
}
