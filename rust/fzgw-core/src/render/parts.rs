//! What several formats say alike, in the same words.

use std::net::IpAddr;

use super::json::{Json, Text, key};
use crate::flow::community;
use crate::flow::record::{
    Direction, Directory, FlowRecord, GatewayInfo, IcmpErrors, PeerId, PeerInfo, TcpRecord, Verdict,
};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// An id that no configuration had is a peer with an empty name, as `Flow.peer` has it.
static UNKNOWN_PEER: PeerInfo = PeerInfo {
    name: String::new(),
    user: None,
    groups: Vec::new(),
    public_key: String::new(),
};

/// The peer, if it is the initiator, and the peer, if it is the responder.
pub(super) fn peers<'a>(flow: &FlowRecord, directory: &'a Directory) -> (Option<&'a PeerInfo>, Option<&'a PeerInfo>) {
    if flow.peer == PeerId::NOBODY {
        return (None, None);
    }
    let peer = directory.peer(flow.peer).unwrap_or(&UNKNOWN_PEER);
    match flow.direction {
        Direction::Outbound => (Some(peer), None),
        Direction::Inbound => (None, Some(peer)),
        Direction::Unknown => (None, None),
    }
}

/// As [`Directory::flow_uid`], without a string of its own.
pub(super) fn flow_uid(text: &mut Text<'_>, flow: &FlowRecord, gateway: &GatewayInfo) {
    text.text(&gateway.boot_id);
    text.char(b'-');
    text.hex(flow.serial);
}

/// As [`FlowRecord::community_id`], without a string of its own.
pub(super) fn community_id(json: &mut Json<'_>, key: &'static str, flow: &FlowRecord) {
    if flow.verdict == Verdict::Deny {
        return;
    }
    let (src, dst) = ((flow.src_ip, flow.src_port), (flow.dst_ip, flow.dst_port));
    let community_id = community::text(src, dst, flow.protocol, flow.icmp);
    json.text_of(key, |text| text.plain(&community_id));
}

/// An address that a denied flow does not have is unspecified (R23).
pub(super) fn shown_ip(flow: &FlowRecord, ip: IpAddr) -> Option<IpAddr> {
    (flow.verdict == Verdict::Allow || !ip.is_unspecified()).then_some(ip)
}

/// Ports are TCP's and UDP's: an ICMP identifier goes to `icmp`. One that a denied flow does not have is 0.
pub(super) fn shown_port(flow: &FlowRecord, port: u16) -> Option<u16> {
    let has_ports = matches!(flow.protocol, TCP | UDP);
    (has_ports && (flow.verdict == Verdict::Allow || port != 0)).then_some(port)
}

/// Protocol 0 of a denied flow is the one of a key that joins several.
pub(super) fn shown_protocol(flow: &FlowRecord) -> Option<u8> {
    (flow.verdict == Verdict::Allow || flow.protocol != 0).then_some(flow.protocol)
}

/// What happened on a TCP connection; nothing where nothing is known of it.
pub(super) fn history(json: &mut Json<'_>, key: &'static str, tcp: &TcpRecord) {
    let letters = tcp.history.as_str().as_bytes();
    if !letters.is_empty() {
        json.text_of(key, |text| text.plain(letters));
    }
}

/// IANA's keyword in lower case, of the protocols that meet an exit node.
pub(super) fn protocol_name(protocol: u8) -> Option<&'static str> {
    match protocol {
        1 => Some("icmp"),
        2 => Some("igmp"),
        4 => Some("ipv4"),
        TCP => Some("tcp"),
        UDP => Some("udp"),
        33 => Some("dccp"),
        41 => Some("ipv6"),
        47 => Some("gre"),
        50 => Some("esp"),
        51 => Some("ah"),
        58 => Some("ipv6-icmp"),
        89 => Some("ospfigp"),
        103 => Some("pim"),
        112 => Some("vrrp"),
        115 => Some("l2tp"),
        132 => Some("sctp"),
        136 => Some("udplite"),
        _ => None,
    }
}

/// What neither OCSF nor ECS has a name for.
pub(super) fn extras(json: &mut Json<'_>, flow: &FlowRecord, directory: &Directory) {
    if let Some(resource) = flow.resource {
        json.text(key!("resource"), directory.name(resource));
    }
    if flow.domain.is_some() {
        json.constant(r#""domain_source":"config","#);
    }
    if matches!(flow.protocol, TCP | UDP) {
        json.number(key!("payload_out"), flow.total.out.payload);
        json.number(key!("payload_in"), flow.total.r#in.payload);
    }
    if flow.verdict == Verdict::Deny {
        json.number(key!("attempts"), flow.attempts.packets);
        json.number(key!("attempted_bytes"), flow.attempts.bytes);
    }
    if let Some(tcp) = &flow.tcp {
        tcp_facts(json, tcp);
    }
    icmp_query(json, flow);
    icmp_errors(json, &flow.icmp_errors);
    paths(json, flow);
}

fn tcp_facts(json: &mut Json<'_>, tcp: &TcpRecord) {
    json.number(key!("tcp_flags_out"), tcp.flags_out);
    json.number(key!("tcp_flags_in"), tcp.flags_in);
    if let Some(nanoseconds) = tcp.syn_to_syn_ack {
        json.number(key!("syn_to_syn_ack_ns"), nanoseconds);
    }
    if let Some(nanoseconds) = tcp.syn_ack_to_ack {
        json.number(key!("syn_ack_to_ack_ns"), nanoseconds);
    }
    json.number(key!("retransmits_out"), tcp.retransmits_out);
    json.number(key!("retransmits_in"), tcp.retransmits_in);
}

fn icmp_query(json: &mut Json<'_>, flow: &FlowRecord) {
    let Some((kind, code)) = flow.icmp else {
        return;
    };
    json.object(key!("icmp"), |json| {
        json.number(key!("type"), kind);
        json.number(key!("code"), code);
        if is_echo(flow.protocol, kind) && flow.verdict == Verdict::Allow {
            json.number(key!("identifier"), flow.src_port);
        }
    });
}

/// Echo alone has an identifier for a key (R12): request and reply, ICMP and ICMPv6.
fn is_echo(protocol: u8, kind: u8) -> bool {
    matches!((protocol, kind), (1, 0 | 8) | (58, 128 | 129))
}

fn icmp_errors(json: &mut Json<'_>, errors: &[IcmpErrors]) {
    if errors.is_empty() {
        return;
    }
    json.array(key!("icmp_errors"), |json| {
        for error in errors {
            json.item(|json| {
                json.number(key!("type"), error.kind);
                json.number(key!("code"), error.code);
                json.number(key!("packets"), error.packets);
                json.number(key!("bytes"), error.bytes);
            });
        }
    });
}

/// A capture has no outer paths.
fn paths(json: &mut Json<'_>, flow: &FlowRecord) {
    if flow.paths.is_empty() {
        return;
    }
    json.array(key!("paths"), |json| {
        for seen in &flow.paths {
            json.item(|json| {
                json.text_of(key!("remote"), |text| text.socket(seen.path.remote));
                json.text_of(key!("local"), |text| text.socket(seen.path.local));
                json.number(key!("since"), milliseconds(seen.since));
            });
        }
    });
    json.number(key!("paths_total"), flow.paths_total);
}

pub(super) fn milliseconds(nanoseconds: u64) -> u64 {
    nanoseconds / 1_000_000
}
