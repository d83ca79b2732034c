//! Zeek's conn.log as JSON lines: one line for a flow that was let through and has ended.
//!
//! [`record`] writes one line, its fields in the order and under the names of Zeek's own: dots in them are part of the
//! name. What conn.log has no field for and its reader may want comes last, under names that begin with `fzgw_`.
//! `docs/records.md` says where a value is not Zeek's to the letter.

use super::Remarks;
use super::json::{Json, key};
use super::parts::{TCP, UDP, community_id, flow_uid, history, peers};
use crate::flow::community::icmp_ports;
use crate::flow::record::{Activity, Directory, FlowRecord, Record, Traffic, Verdict};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Appends `record` to `out` as one line of JSON with its newline and says true; or writes nothing and says false: open
/// and update records, denied flows, gaps and notes have no line.
///
/// `remarks` are what handlers said of it. A conn.log shows neither `sequence` nor `now_ns`.
pub fn record(
    out: &mut Vec<u8>,
    record: &Record,
    directory: &Directory,
    _sequence: u64,
    _now_ns: Option<u64>,
    remarks: Remarks<'_>,
) -> bool {
    match record {
        Record::Flow(flow) if flow.activity == Activity::Close && flow.verdict == Verdict::Allow => {
            Json::line(out, |json| {
                conn(json, flow, directory);
                beyond_zeek(json, flow, directory, remarks);
            });
            true
        }
        Record::Flow(_) | Record::Gap(_) | Record::Note(_) => false,
    }
}

fn conn(json: &mut Json<'_>, flow: &FlowRecord, directory: &Directory) {
    json.seconds(key!("ts"), flow.start);
    json.text_of(key!("uid"), |text| flow_uid(text, flow, &directory.gateway));
    let (orig_port, resp_port) = ports(flow);
    json.text_of(key!("id.orig_h"), |text| text.ip(flow.src_ip));
    json.number(key!("id.orig_p"), orig_port);
    json.text_of(key!("id.resp_h"), |text| text.ip(flow.dst_ip));
    json.number(key!("id.resp_p"), resp_port);
    json.word(
        key!("proto"),
        match flow.protocol {
            TCP => "tcp",
            UDP => "udp",
            ICMP | ICMPV6 => "icmp",
            _ => "unknown_transport",
        },
    );
    json.seconds(key!("duration"), flow.duration());
    let Traffic { out, r#in } = flow.total;
    // Payload is counted above TCP and UDP alone.
    if matches!(flow.protocol, TCP | UDP) {
        json.number(key!("orig_bytes"), out.payload);
        json.number(key!("resp_bytes"), r#in.payload);
    }
    json.word(key!("conn_state"), flow.conn_state.as_str());
    // The gateway knows where its peer is. The other end may be one of its peers too, or anywhere.
    match peers(flow, directory) {
        (Some(_), _) => json.flag(key!("local_orig"), true),
        (None, Some(_)) => json.flag(key!("local_resp"), true),
        (None, None) => {}
    }
    match (&flow.tcp, flow.protocol) {
        (Some(tcp), _) => history(json, key!("history"), tcp),
        (None, UDP) => udp_history(json, flow.total),
        (None, _) => {}
    }
    json.number(key!("orig_pkts"), out.packets);
    json.number(key!("orig_ip_bytes"), out.bytes);
    json.number(key!("resp_pkts"), r#in.packets);
    json.number(key!("resp_ip_bytes"), r#in.bytes);
    json.number(key!("ip_proto"), flow.protocol);
    community_id(json, key!("community_id"), flow);
}

/// The record of a query has its type and code where Zeek has ports. Protocols without ports have 0.
fn ports(flow: &FlowRecord) -> (u16, u16) {
    match (flow.protocol, flow.icmp) {
        (TCP | UDP, _) => (flow.src_port, flow.dst_port),
        (_, Some(message)) => {
            let (orig, resp, _) = icmp_ports(flow.protocol, message);
            (orig, resp)
        }
        (_, None) => (0, 0),
    }
}

/// The initiator is who sent the first datagram (R3), so its letter comes first.
fn udp_history(json: &mut Json<'_>, traffic: Traffic) {
    match (traffic.out.packets > 0, traffic.r#in.packets > 0) {
        (true, true) => json.word(key!("history"), "Dd"),
        (true, false) => json.word(key!("history"), "D"),
        (false, true) => json.word(key!("history"), "d"),
        (false, false) => {}
    }
}

fn beyond_zeek(json: &mut Json<'_>, flow: &FlowRecord, directory: &Directory, remarks: Remarks<'_>) {
    let (orig, resp) = peers(flow, directory);
    if let Some(peer) = orig.or(resp) {
        json.text(key!("fzgw_peer"), &peer.name);
        if let Some(user) = &peer.user {
            json.text(key!("fzgw_user"), user);
        }
    }
    if let Some(rule) = flow.rule {
        json.text(key!("fzgw_rule"), directory.name(rule));
    }
    if let Some(reason) = flow.end_reason {
        json.word(key!("fzgw_end_reason"), reason.as_str());
    }
    remarks.write(json, [key!("fzgw_handler_error"), key!("fzgw_annotations")]);
}

#[cfg(test)]
mod tests {
    use super::super::samples::{
        START, denied, denied_joined, directory, echo, golden, tcp, tcp_of_nobody, udp_inbound, udp_unreachable,
    };
    use super::*;
    use crate::flow::record::{ConnState, Counts, Gap, Note};

    fn line(flow: FlowRecord, handler_error: Option<&str>) -> String {
        let mut out = Vec::new();
        let remarks = Remarks {
            handler_error,
            ..<_>::default()
        };
        assert!(record(
            &mut out,
            &Record::Flow(flow),
            &directory(),
            5,
            Some(START),
            remarks
        ));
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
                r#"{"ts":1700000000.123456,"uid":"00c0ffee12345678-2a","id.orig_h":"100.64.0.2","id.orig_p":49152,
                "id.resp_h":"10.1.2.3","id.resp_p":443,"proto":"tcp","duration":90.000000,"orig_bytes":980,
                "resp_bytes":8376,"conn_state":"SF","local_orig":true,"history":"ShADadTFf","orig_pkts":10,
                "orig_ip_bytes":1500,"resp_pkts":12,"resp_ip_bytes":9000,"ip_proto":6,
                "community_id":"1:rAUtp6NuGf26YLDWwCE2Do5hEz4=","fzgw_peer":"laptop-7",
                "fzgw_user":"someone@example.com","fzgw_rule":"engineering-wiki","fzgw_end_reason":"fin"}"#
            )
        );
    }

    #[test]
    fn tcp_without_a_peer() {
        assert_eq!(
            line(tcp_of_nobody(), None),
            golden(
                r#"{"ts":1700000000.123456,"uid":"00c0ffee12345678-2a","id.orig_h":"100.64.0.2","id.orig_p":49152,
                "id.resp_h":"10.1.2.3","id.resp_p":443,"proto":"tcp","duration":90.000000,"orig_bytes":980,
                "resp_bytes":8376,"conn_state":"SF","history":"ShADadTFf","orig_pkts":10,"orig_ip_bytes":1500,
                "resp_pkts":12,"resp_ip_bytes":9000,"ip_proto":6,"community_id":"1:rAUtp6NuGf26YLDWwCE2Do5hEz4=",
                "fzgw_end_reason":"capture_end"}"#
            )
        );
    }

    #[test]
    fn udp_inbound_over_ipv6() {
        assert_eq!(
            line(udp_inbound(), None),
            golden(
                r#"{"ts":1700000000.123456,"uid":"00c0ffee12345678-2a","id.orig_h":"2001:db8::53","id.orig_p":53,
                "id.resp_h":"fd00:64::8","id.resp_p":40001,"proto":"udp","duration":90.000000,"orig_bytes":980,
                "resp_bytes":8376,"conn_state":"SF","local_resp":true,"history":"Dd","orig_pkts":10,
                "orig_ip_bytes":1500,"resp_pkts":12,"resp_ip_bytes":9000,"ip_proto":17,
                "community_id":"1:pT0E9XqPwPT89XaPNZ4iMTLgjdg=","fzgw_peer":"printer","fzgw_end_reason":"idle"}"#
            )
        );
    }

    #[test]
    fn udp_that_nobody_answered() {
        assert_eq!(
            line(udp_unreachable(), Some("KeyError: \"x\"")),
            golden(
                r#"{"ts":1700000000.123456,"uid":"00c0ffee12345678-2a","id.orig_h":"100.64.0.2","id.orig_p":49152,
                "id.resp_h":"10.1.2.3","id.resp_p":9,"proto":"udp","duration":90.000000,"orig_bytes":39,
                "resp_bytes":0,"conn_state":"S0","local_orig":true,"history":"D","orig_pkts":3,"orig_ip_bytes":123,
                "resp_pkts":0,"resp_ip_bytes":0,"ip_proto":17,"community_id":"1:GGLw5kADs/6SrJy5HCfrsvwmxok=",
                "fzgw_peer":"laptop-7","fzgw_user":"someone@example.com","fzgw_end_reason":"icmp_unreachable",
                "fzgw_handler_error":"KeyError: \"x\""}"#
            )
        );
    }

    #[test]
    fn icmp_echo() {
        assert_eq!(
            line(echo(), None),
            golden(
                r#"{"ts":1700000000.123456,"uid":"00c0ffee12345678-2a","id.orig_h":"100.64.0.2","id.orig_p":8,
                "id.resp_h":"10.1.2.3","id.resp_p":0,"proto":"icmp","duration":90.000000,"conn_state":"OTH",
                "local_orig":true,"orig_pkts":10,"orig_ip_bytes":1500,"resp_pkts":12,"resp_ip_bytes":9000,
                "ip_proto":1,"community_id":"1:HKRwC7RfCXr72QRPKRB7ENvYxz8=","fzgw_peer":"laptop-7",
                "fzgw_user":"someone@example.com","fzgw_end_reason":"idle"}"#
            )
        );
    }

    /// R12: a message's type and the type of its answer stand where ports are; its code, where it knows no answer.
    #[test]
    fn icmp_messages_stand_in_place_of_ports() {
        for (protocol, icmp, ports) in [
            (1, (8, 0), (8, 0)),
            (1, (13, 0), (13, 14)),
            (1, (40, 2), (40, 2)),
            (58, (128, 0), (128, 129)),
            (58, (200, 1), (200, 1)),
        ] {
            let value = json(FlowRecord {
                protocol,
                icmp: Some(icmp),
                ..echo()
            });
            assert_eq!(
                (&value["id.orig_p"], &value["id.resp_p"]),
                (&ports.0.into(), &ports.1.into())
            );
            assert_eq!(value["proto"], "icmp");
            assert_eq!(value["ip_proto"], protocol);
        }
    }

    #[test]
    fn a_protocol_that_zeek_does_not_know_has_no_ports_and_no_payload() {
        let value = json(FlowRecord {
            protocol: 47,
            src_port: 0,
            dst_port: 0,
            conn_state: ConnState::Oth,
            tcp: None,
            ..tcp()
        });
        assert_eq!(value["proto"], "unknown_transport");
        assert_eq!((&value["id.orig_p"], &value["id.resp_p"]), (&0.into(), &0.into()));
        for absent in ["orig_bytes", "resp_bytes", "history"] {
            assert_eq!(value.get(absent), None);
        }
    }

    #[test]
    fn udp_history_has_a_letter_for_each_side_that_sent() {
        let counts = udp_inbound().total.out;
        for (out, r#in, history) in [
            (counts, counts, Some("Dd")),
            (counts, Counts::default(), Some("D")),
            (Counts::default(), counts, Some("d")),
            (Counts::default(), Counts::default(), None),
        ] {
            let value = json(FlowRecord {
                total: Traffic { out, r#in },
                ..udp_inbound()
            });
            assert_eq!(value.get("history").and_then(serde_json::Value::as_str), history);
        }
    }

    /// conn.log has no verdict: a denied flow (R23) would be read as one that went through.
    #[test]
    fn only_the_end_of_an_allowed_flow_has_a_line() {
        let update = FlowRecord {
            activity: Activity::Update,
            ..tcp()
        };
        let mut out = Vec::new();
        for other in [
            Record::Flow(update),
            Record::Flow(denied()),
            Record::Flow(denied_joined()),
            Record::Gap(Gap::default()),
            Record::Note(Note::ClockStep { at: START, by: 1 }),
        ] {
            assert!(!record(&mut out, &other, &directory(), 5, None, Remarks::default()));
        }
        assert_eq!(out, b"");
    }
}
