//! Elastic Common Schema 8.17: one line for a flow that has ended.
//!
//! [`record`] writes one line of nested objects. It goes down in this order: the event (what, when, how it went), its
//! two ends, the network between them, the rule, the user and the gateway, and under `fzgw` what ECS has no name for.
//! `docs/records.md` lists every field.

use std::net::IpAddr;

use super::Remarks;
use super::json::{Json, key};
use super::parts::{
    TCP, community_id, extras, flow_uid, history, peers, protocol_name, shown_ip, shown_port, shown_protocol,
};
use crate::flow::record::{
    Activity, ConnState, Counts, Direction, Directory, EndReason, FlowRecord, PeerInfo, Record, Verdict,
};

/// Appends `record` to `out` as one line of JSON with its newline and says true; or writes nothing and says false: open
/// and update records, gaps and notes have no line.
///
/// `sequence` becomes `event.sequence` (L4), `now_ns` (wall clock nanoseconds) `event.created`, and `remarks` are
/// what handlers said of it.
pub fn record(
    out: &mut Vec<u8>,
    record: &Record,
    directory: &Directory,
    sequence: u64,
    now_ns: Option<u64>,
    remarks: Remarks<'_>,
) -> bool {
    match record {
        Record::Flow(flow) if flow.activity == Activity::Close => {
            Json::line(out, |json| {
                json.text_of(key!("@timestamp"), |text| text.date_time(flow.end));
                json.constant(r#""ecs":{"version":"8.17.0"},"#);
                json.object(key!("event"), |json| event(json, flow, directory, sequence, now_ns));
                ends(json, flow, directory);
                json.object(key!("network"), |json| network(json, flow));
                context(json, flow, directory);
                json.object(key!("fzgw"), |json| beyond_ecs(json, flow, directory, remarks));
            });
            true
        }
        Record::Flow(_) | Record::Gap(_) | Record::Note(_) => false,
    }
}

fn event(json: &mut Json<'_>, flow: &FlowRecord, directory: &Directory, sequence: u64, now_ns: Option<u64>) {
    json.constant(r#""kind":"event","category":["network"],"#);
    json.constant(match flow.verdict {
        Verdict::Allow => r#""type":["connection","end","allowed"],"#,
        Verdict::Deny => r#""type":["connection","end","denied"],"#,
    });
    json.constant(r#""action":"network_flow","module":"fzgw","dataset":"fzgw.flow","#);
    json.word(key!("outcome"), outcome(flow));
    if let Some(reason) = flow.end_reason {
        json.word(key!("reason"), reason.as_str());
    }
    json.text_of(key!("id"), |text| flow_uid(text, flow, &directory.gateway));
    json.number(key!("sequence"), sequence);
    json.text_of(key!("start"), |text| text.date_time(flow.start));
    json.text_of(key!("end"), |text| text.date_time(flow.end));
    json.number(key!("duration"), flow.duration());
    if let Some(now) = now_ns {
        json.text_of(key!("created"), |text| text.date_time(now));
    }
}

/// Failure: denied, refused, unreachable, or a TCP connection that nobody answered. Success: both ends sent. Any other
/// one-way traffic may have reached its end or not.
fn outcome(flow: &FlowRecord) -> &'static str {
    let unanswered = match flow.conn_state {
        ConnState::Rej | ConnState::Rstos0 | ConnState::Sh => true,
        ConnState::S0 => flow.protocol == TCP,
        ConnState::S1
        | ConnState::Sf
        | ConnState::S2
        | ConnState::S3
        | ConnState::Rsto
        | ConnState::Rstr
        | ConnState::Rstrh
        | ConnState::Shr
        | ConnState::Oth => false,
    };
    let unreachable = flow.end_reason == Some(EndReason::IcmpUnreachable);
    if flow.verdict == Verdict::Deny || unanswered || unreachable {
        return "failure";
    }
    match (flow.total.out.packets, flow.total.r#in.packets) {
        (0, _) | (_, 0) => "unknown",
        (_, _) => "success",
    }
}

fn ends(json: &mut Json<'_>, flow: &FlowRecord, directory: &Directory) {
    let (src_peer, dst_peer) = peers(flow, directory);
    json.object(key!("source"), |json| {
        end(json, flow, (flow.src_ip, flow.src_port), flow.total.out);
        user(json, src_peer);
    });
    json.object(key!("destination"), |json| {
        end(json, flow, (flow.dst_ip, flow.dst_port), flow.total.r#in);
        if let Some(domain) = flow.domain {
            json.text(key!("domain"), directory.name(domain));
        }
        user(json, dst_peer);
    });
    // The user at the root is who acts: who opened the flow.
    user(json, src_peer);
}

fn end(json: &mut Json<'_>, flow: &FlowRecord, (ip, port): (IpAddr, u16), sent: Counts) {
    if let Some(ip) = shown_ip(flow, ip) {
        json.text_of(key!("ip"), |text| text.ip(ip));
    }
    if let Some(port) = shown_port(flow, port) {
        json.number(key!("port"), port);
    }
    json.number(key!("bytes"), sent.bytes);
    json.number(key!("packets"), sent.packets);
}

fn user(json: &mut Json<'_>, peer: Option<&PeerInfo>) {
    let Some(peer) = peer.filter(|peer| peer.user.is_some() || !peer.groups.is_empty()) else {
        return;
    };
    json.object(key!("user"), |json| {
        if let Some(user) = &peer.user {
            json.text(key!("name"), user);
        }
        if !peer.groups.is_empty() {
            json.object(key!("group"), |json| {
                json.texts(key!("name"), peer.groups.iter().map(String::as_str));
            });
        }
    });
}

fn network(json: &mut Json<'_>, flow: &FlowRecord) {
    match shown_ip(flow, flow.dst_ip).or(shown_ip(flow, flow.src_ip)) {
        Some(IpAddr::V4(_)) => json.constant(r#""type":"ipv4","#),
        Some(IpAddr::V6(_)) => json.constant(r#""type":"ipv6","#),
        None => {}
    }
    if let Some(name) = protocol_name(flow.protocol) {
        json.word(key!("transport"), name);
    }
    // A keyword in ECS.
    if let Some(protocol) = shown_protocol(flow) {
        json.text_of(key!("iana_number"), |text| text.number(protocol));
    }
    match flow.direction {
        Direction::Outbound => json.constant(r#""direction":"outbound","#),
        Direction::Inbound => json.constant(r#""direction":"inbound","#),
        Direction::Unknown => json.constant(r#""direction":"unknown","#),
    }
    json.number(key!("bytes"), flow.total.out.bytes + flow.total.r#in.bytes);
    json.number(key!("packets"), flow.total.out.packets + flow.total.r#in.packets);
    community_id(json, key!("community_id"), flow);
}

fn context(json: &mut Json<'_>, flow: &FlowRecord, directory: &Directory) {
    if let Some(rule) = flow.rule {
        json.object(key!("rule"), |json| json.text(key!("name"), directory.name(rule)));
    }
    json.object(key!("observer"), |json| {
        json.text(key!("name"), &directory.gateway.name);
        json.text(key!("serial_number"), &directory.gateway.uid);
        json.constant(r#""type":"vpn","vendor":"fzgw","product":"fzgw","#);
        json.text(key!("version"), &directory.gateway.version);
    });
}

fn beyond_ecs(json: &mut Json<'_>, flow: &FlowRecord, directory: &Directory, remarks: Remarks<'_>) {
    let (src_peer, dst_peer) = peers(flow, directory);
    if let Some(peer) = src_peer.or(dst_peer) {
        json.object(key!("peer"), |json| {
            json.text(key!("name"), &peer.name);
            json.text(key!("public_key"), &peer.public_key);
        });
    }
    json.flag(key!("initiator_known"), flow.initiator_known);
    json.word(key!("conn_state"), flow.conn_state.as_str());
    if let Some(tcp) = &flow.tcp {
        history(json, key!("history"), tcp);
    }
    extras(json, flow, directory);
    json.text(key!("boot_id"), &directory.gateway.boot_id);
    remarks.write(json, [key!("handler_error"), key!("annotations")]);
}

#[cfg(test)]
mod tests {
    use super::super::samples::{
        SECOND, START, denied, denied_joined, directory, echo, golden, tcp, tcp_of_nobody, udp_inbound, udp_unreachable,
    };
    use super::*;
    use crate::flow::record::{Gap, Note, PeerId, TcpRecord, Traffic};

    fn line(flow: FlowRecord, handler_error: Option<&str>) -> String {
        let mut out = Vec::new();
        let remarks = Remarks {
            handler_error,
            ..<_>::default()
        };
        let now = Some(START + 100 * SECOND);
        assert!(record(&mut out, &Record::Flow(flow), &directory(), 5, now, remarks));
        String::from_utf8(out).unwrap()
    }

    fn json(flow: FlowRecord) -> serde_json::Value {
        serde_json::from_str(&line(flow, None)).unwrap()
    }

    #[test]
    fn tcp_closed_by_fin() {
        assert_eq!(
            line(tcp(), None),
            golden(
                r#"{"@timestamp":"2023-11-14T22:14:50.123456789Z","ecs":{"version":"8.17.0"},"event":{"kind":"event",
                "category":["network"],"type":["connection","end","allowed"],"action":"network_flow","module":"fzgw",
                "dataset":"fzgw.flow","outcome":"success","reason":"fin","id":"00c0ffee12345678-2a","sequence":5,
                "start":"2023-11-14T22:13:20.123456789Z","end":"2023-11-14T22:14:50.123456789Z",
                "duration":90000000000,"created":"2023-11-14T22:15:00.123456789Z"},"source":{"ip":"100.64.0.2",
                "port":49152,"bytes":1500,"packets":10,"user":{"name":"someone@example.com",
                "group":{"name":["engineering","staff"]}}},"destination":{"ip":"10.1.2.3","port":443,"bytes":9000,
                "packets":12,"domain":"wiki.example.com"},"user":{"name":"someone@example.com",
                "group":{"name":["engineering","staff"]}},"network":{"type":"ipv4","transport":"tcp",
                "iana_number":"6","direction":"outbound","bytes":10500,"packets":22,
                "community_id":"1:rAUtp6NuGf26YLDWwCE2Do5hEz4="},"rule":{"name":"engineering-wiki"},
                "observer":{"name":"exit-1","serial_number":"gw-1","type":"vpn","vendor":"fzgw","product":"fzgw",
                "version":"0.1.0"},"fzgw":{"peer":{"name":"laptop-7","public_key":"bGFwdG9w"},"initiator_known":true,
                "conn_state":"SF","history":"ShADadTFf","resource":"wiki","domain_source":"config","payload_out":980,
                "payload_in":8376,"tcp_flags_out":27,"tcp_flags_in":19,"syn_to_syn_ack_ns":12345678,
                "syn_ack_to_ack_ns":345678,"retransmits_out":1,"retransmits_in":0,
                "paths":[{"remote":"203.0.113.7:40000","local":"198.51.100.1:51820","since":1700000000123}],
                "paths_total":1,"boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    #[test]
    fn tcp_without_a_peer() {
        assert_eq!(
            line(tcp_of_nobody(), None),
            golden(
                r#"{"@timestamp":"2023-11-14T22:14:50.123456789Z","ecs":{"version":"8.17.0"},"event":{"kind":"event",
                "category":["network"],"type":["connection","end","allowed"],"action":"network_flow","module":"fzgw",
                "dataset":"fzgw.flow","outcome":"success","reason":"capture_end","id":"00c0ffee12345678-2a",
                "sequence":5,"start":"2023-11-14T22:13:20.123456789Z","end":"2023-11-14T22:14:50.123456789Z",
                "duration":90000000000,"created":"2023-11-14T22:15:00.123456789Z"},"source":{"ip":"100.64.0.2",
                "port":49152,"bytes":1500,"packets":10},"destination":{"ip":"10.1.2.3","port":443,"bytes":9000,
                "packets":12},"network":{"type":"ipv4","transport":"tcp","iana_number":"6","direction":"unknown",
                "bytes":10500,"packets":22,"community_id":"1:rAUtp6NuGf26YLDWwCE2Do5hEz4="},
                "observer":{"name":"exit-1","serial_number":"gw-1","type":"vpn","vendor":"fzgw","product":"fzgw",
                "version":"0.1.0"},"fzgw":{"initiator_known":true,"conn_state":"SF","history":"ShADadTFf",
                "payload_out":980,"payload_in":8376,"tcp_flags_out":27,"tcp_flags_in":19,"syn_to_syn_ack_ns":12345678,
                "syn_ack_to_ack_ns":345678,"retransmits_out":1,"retransmits_in":0,"boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    #[test]
    fn udp_inbound_over_ipv6() {
        assert_eq!(
            line(udp_inbound(), None),
            golden(
                r#"{"@timestamp":"2023-11-14T22:14:50.123456789Z","ecs":{"version":"8.17.0"},"event":{"kind":"event",
                "category":["network"],"type":["connection","end","allowed"],"action":"network_flow","module":"fzgw",
                "dataset":"fzgw.flow","outcome":"success","reason":"idle","id":"00c0ffee12345678-2a","sequence":5,
                "start":"2023-11-14T22:13:20.123456789Z","end":"2023-11-14T22:14:50.123456789Z",
                "duration":90000000000,"created":"2023-11-14T22:15:00.123456789Z"},"source":{"ip":"2001:db8::53",
                "port":53,"bytes":1500,"packets":10},"destination":{"ip":"fd00:64::8","port":40001,"bytes":9000,
                "packets":12},"network":{"type":"ipv6","transport":"udp","iana_number":"17","direction":"inbound",
                "bytes":10500,"packets":22,"community_id":"1:pT0E9XqPwPT89XaPNZ4iMTLgjdg="},
                "observer":{"name":"exit-1","serial_number":"gw-1","type":"vpn","vendor":"fzgw","product":"fzgw",
                "version":"0.1.0"},"fzgw":{"peer":{"name":"printer","public_key":"cHJpbnRlcg=="},
                "initiator_known":true,"conn_state":"SF","payload_out":980,"payload_in":8376,
                "boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    /// R13: what the errors say is a failure of the flow, and they are none of its packets.
    #[test]
    fn udp_that_met_icmp_errors() {
        assert_eq!(
            line(udp_unreachable(), Some("KeyError: \"x\"")),
            golden(
                r#"{"@timestamp":"2023-11-14T22:14:50.123456789Z","ecs":{"version":"8.17.0"},"event":{"kind":"event",
                "category":["network"],"type":["connection","end","allowed"],"action":"network_flow","module":"fzgw",
                "dataset":"fzgw.flow","outcome":"failure","reason":"icmp_unreachable","id":"00c0ffee12345678-2a",
                "sequence":5,"start":"2023-11-14T22:13:20.123456789Z","end":"2023-11-14T22:14:50.123456789Z",
                "duration":90000000000,"created":"2023-11-14T22:15:00.123456789Z"},"source":{"ip":"100.64.0.2",
                "port":49152,"bytes":123,"packets":3,"user":{"name":"someone@example.com",
                "group":{"name":["engineering","staff"]}}},"destination":{"ip":"10.1.2.3","port":9,"bytes":0,
                "packets":0},"user":{"name":"someone@example.com","group":{"name":["engineering","staff"]}},
                "network":{"type":"ipv4","transport":"udp","iana_number":"17","direction":"outbound","bytes":123,
                "packets":3,"community_id":"1:GGLw5kADs/6SrJy5HCfrsvwmxok="},"observer":{"name":"exit-1",
                "serial_number":"gw-1","type":"vpn","vendor":"fzgw","product":"fzgw","version":"0.1.0"},
                "fzgw":{"peer":{"name":"laptop-7","public_key":"bGFwdG9w"},"initiator_known":true,"conn_state":"S0",
                "payload_out":39,"payload_in":0,"icmp_errors":[{"type":11,"code":0,"packets":1,"bytes":68},{"type":3,
                "code":3,"packets":2,"bytes":138}],"paths":[{"remote":"203.0.113.7:40000",
                "local":"198.51.100.1:51820","since":1700000000123}],"paths_total":1,"boot_id":"00c0ffee12345678",
                "handler_error":"KeyError: \"x\""}}"#
            )
        );
    }

    #[test]
    fn icmp_echo() {
        assert_eq!(
            line(echo(), None),
            golden(
                r#"{"@timestamp":"2023-11-14T22:14:50.123456789Z","ecs":{"version":"8.17.0"},"event":{"kind":"event",
                "category":["network"],"type":["connection","end","allowed"],"action":"network_flow","module":"fzgw",
                "dataset":"fzgw.flow","outcome":"success","reason":"idle","id":"00c0ffee12345678-2a","sequence":5,
                "start":"2023-11-14T22:13:20.123456789Z","end":"2023-11-14T22:14:50.123456789Z",
                "duration":90000000000,"created":"2023-11-14T22:15:00.123456789Z"},"source":{"ip":"100.64.0.2",
                "bytes":1500,"packets":10,"user":{"name":"someone@example.com","group":{"name":["engineering",
                "staff"]}}},"destination":{"ip":"10.1.2.3","bytes":9000,"packets":12},
                "user":{"name":"someone@example.com","group":{"name":["engineering","staff"]}},
                "network":{"type":"ipv4","transport":"icmp","iana_number":"1","direction":"outbound","bytes":10500,
                "packets":22,"community_id":"1:HKRwC7RfCXr72QRPKRB7ENvYxz8="},"observer":{"name":"exit-1",
                "serial_number":"gw-1","type":"vpn","vendor":"fzgw","product":"fzgw","version":"0.1.0"},
                "fzgw":{"peer":{"name":"laptop-7","public_key":"bGFwdG9w"},"initiator_known":true,"conn_state":"OTH",
                "icmp":{"type":8,"code":0,"identifier":777},"paths":[{"remote":"203.0.113.7:40000",
                "local":"198.51.100.1:51820","since":1700000000123}],"paths_total":1,"boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    #[test]
    fn denied_with_a_joined_key() {
        assert_eq!(
            line(denied_joined(), None),
            golden(
                r#"{"@timestamp":"2023-11-14T22:14:50.123456789Z","ecs":{"version":"8.17.0"},"event":{"kind":"event",
                "category":["network"],"type":["connection","end","denied"],"action":"network_flow","module":"fzgw",
                "dataset":"fzgw.flow","outcome":"failure","reason":"idle","id":"00c0ffee12345678-2a","sequence":5,
                "start":"2023-11-14T22:13:20.123456789Z","end":"2023-11-14T22:14:50.123456789Z",
                "duration":90000000000,"created":"2023-11-14T22:15:00.123456789Z"},"source":{"bytes":0,"packets":0,
                "user":{"name":"someone@example.com","group":{"name":["engineering","staff"]}}},
                "destination":{"bytes":0,"packets":0},"user":{"name":"someone@example.com",
                "group":{"name":["engineering","staff"]}},"network":{"direction":"outbound","bytes":0,"packets":0},
                "rule":{"name":"default-deny"},"observer":{"name":"exit-1","serial_number":"gw-1","type":"vpn",
                "vendor":"fzgw","product":"fzgw","version":"0.1.0"},"fzgw":{"peer":{"name":"laptop-7",
                "public_key":"bGFwdG9w"},"initiator_known":true,"conn_state":"OTH","attempts":40,
                "attempted_bytes":2400,"paths":[{"remote":"203.0.113.7:40000","local":"198.51.100.1:51820",
                "since":1700000000123}],"paths_total":1,"boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    /// R23: a denied flow shows the port that was tried, and none of its own.
    #[test]
    fn denied_at_one_port() {
        let value = json(FlowRecord {
            activity: Activity::Close,
            ..denied()
        });
        assert_eq!(value["destination"]["port"], 22);
        assert_eq!(value["source"].get("port"), None);
        assert_eq!(value["network"].get("community_id"), None);
    }

    #[test]
    fn only_the_end_of_a_flow_has_a_line() {
        let gap = Gap::default();
        let note = Note::ClockStep { at: START, by: 1 };
        let open = FlowRecord {
            activity: Activity::Open,
            ..tcp()
        };
        let mut out = Vec::new();
        for other in [
            Record::Flow(open),
            Record::Flow(denied()),
            Record::Gap(gap),
            Record::Note(note),
        ] {
            assert!(!record(&mut out, &other, &directory(), 5, None, Remarks::default()));
        }
        assert_eq!(out, b"");
    }

    #[test]
    fn the_outcome_follows_the_state_the_verdict_and_the_end() {
        let one_way = Traffic {
            r#in: Counts::default(),
            ..tcp().total
        };
        let tcp_in = |conn_state, total| FlowRecord {
            conn_state,
            total,
            ..tcp()
        };
        let both = tcp().total;
        let silent_udp = FlowRecord {
            end_reason: Some(EndReason::Idle),
            ..udp_unreachable()
        };
        for (expected, flow) in [
            ("success", tcp()),
            ("success", udp_inbound()),
            ("success", tcp_in(ConnState::Rstr, both)),
            ("failure", tcp_in(ConnState::Rej, both)),
            ("failure", tcp_in(ConnState::S0, one_way)),
            ("failure", tcp_in(ConnState::Rstos0, one_way)),
            ("failure", tcp_in(ConnState::Sh, one_way)),
            // Met in the middle, and one direction alone is seen.
            ("unknown", tcp_in(ConnState::Oth, one_way)),
            ("unknown", silent_udp),
            ("failure", udp_unreachable()),
            ("failure", denied_joined()),
        ] {
            assert_eq!(json(flow.clone())["event"]["outcome"], expected, "{flow:?}");
        }
    }

    #[test]
    fn groups_without_a_user_and_a_peer_that_nobody_knows() {
        let mut directory = directory();
        directory.peers.get_mut(&7).unwrap().user = None;
        let value_of = |flow| -> serde_json::Value {
            let mut out = Vec::new();
            record(&mut out, &Record::Flow(flow), &directory, 1, None, Remarks::default());
            serde_json::from_slice(&out).unwrap()
        };
        let value = value_of(tcp());
        let groups = serde_json::json!({"group": {"name": ["engineering", "staff"]}});
        assert_eq!((&value["source"]["user"], &value["user"]), (&groups, &groups));
        assert_eq!(value["event"].get("created"), None);
        let value = value_of(FlowRecord {
            peer: PeerId(99),
            ..tcp()
        });
        assert_eq!(value["fzgw"]["peer"], serde_json::json!({"name": "", "public_key": ""}));
        assert_eq!(value.get("user"), None);
    }

    /// R10: a handshake that was not seen has no times, and no letters where nothing is known.
    #[test]
    fn tcp_met_in_the_middle_has_no_handshake() {
        let met = TcpRecord {
            history: "".into(),
            syn_to_syn_ack: None,
            syn_ack_to_ack: None,
            ..tcp().tcp.unwrap()
        };
        let value = json(FlowRecord {
            tcp: Some(met),
            ..tcp()
        });
        for absent in ["history", "syn_to_syn_ack_ns", "syn_ack_to_ack_ns"] {
            assert_eq!(value["fzgw"].get(absent), None);
        }
        assert_eq!(value["fzgw"]["tcp_flags_out"], 0x1b);
    }
}
