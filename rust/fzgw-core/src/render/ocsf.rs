//! OCSF 1.8.0: flows as Network Activity (4001), gaps and notes as Base Events (0).
//!
//! [`record`] writes one line. A flow goes down in this order: what it is (class, activity, time, outcome), who and
//! where (the two endpoints, the connection), how much (delta, then total), who saw it (the gateway, the metadata), and
//! under `unmapped` what OCSF has no name for. `docs/records.md` lists every field.
//!
//! OCSF's captions of numbers (`class_name` beside `class_uid`) are left out but for the two that say what happened to
//! a reader's eye: whoever stores records pays by the byte, and the numbers say it all.
//!
//! OCSF times are milliseconds. The exact nanoseconds stand beside them in `unmapped`.

use std::net::IpAddr;

use super::Remarks;
use super::json::{Json, key};
use super::parts::{
    TCP, community_id, extras, flow_uid, history, milliseconds, peers, protocol_name, shown_ip, shown_port,
    shown_protocol,
};
use crate::flow::record::{
    Activity, ConnState, Direction, Directory, EndReason, FlowRecord, Gap, GatewayInfo, Note, PeerInfo, Record,
    Traffic, Verdict,
};

/// Appends `record` to `out` as one line of JSON with its newline, and says true: OCSF has a line for every record.
///
/// `sequence` becomes `metadata.sequence` (L4), `now_ns` (wall clock nanoseconds) `metadata.logged_time`, and
/// `remarks` what handlers said of it.
pub fn record(
    out: &mut Vec<u8>,
    record: &Record,
    directory: &Directory,
    sequence: u64,
    now_ns: Option<u64>,
    remarks: Remarks<'_>,
) -> bool {
    let written = Written {
        gateway: &directory.gateway,
        sequence,
        now_ns,
        remarks,
    };
    Json::line(out, |json| match record {
        Record::Flow(flow) => network_activity(json, flow, directory, &written),
        Record::Gap(gap) => gap_event(json, gap, &written),
        Record::Note(note) => note_event(json, *note, &written),
    });
    true
}

/// What every line tells of its own making.
struct Written<'a> {
    gateway: &'a GatewayInfo,
    sequence: u64,
    now_ns: Option<u64>,
    remarks: Remarks<'a>,
}

/// OCSF's activities of a network connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Open,
    Close,
    Reset,
    Fail,
    Refuse,
    Traffic,
}

impl Outcome {
    fn of(flow: &FlowRecord) -> Self {
        if flow.verdict == Verdict::Deny {
            return Outcome::Refuse;
        }
        match flow.activity {
            Activity::Open => Outcome::Open,
            Activity::Update => Outcome::Traffic,
            Activity::Close if flow.conn_state == ConnState::Rej => Outcome::Refuse,
            Activity::Close if flow.end_reason == Some(EndReason::Rst) => Outcome::Reset,
            Activity::Close if flow.conn_state == ConnState::S0 && flow.protocol == TCP => Outcome::Fail,
            Activity::Close => Outcome::Close,
        }
    }

    /// Class, category, activity, type and severity.
    fn members(self) -> &'static str {
        macro_rules! members {
            ($id:literal, $name:literal) => {
                concat!(
                    r#""class_uid":4001,"category_uid":4,"activity_id":"#,
                    $id,
                    r#","activity_name":""#,
                    $name,
                    r#"","type_uid":40010"#,
                    $id,
                    r#","severity_id":1,"#,
                )
            };
        }
        match self {
            Outcome::Open => members!(1, "Open"),
            Outcome::Close => members!(2, "Close"),
            Outcome::Reset => members!(3, "Reset"),
            Outcome::Fail => members!(4, "Fail"),
            Outcome::Refuse => members!(5, "Refuse"),
            Outcome::Traffic => members!(6, "Traffic"),
        }
    }
}

fn network_activity(json: &mut Json<'_>, flow: &FlowRecord, directory: &Directory, written: &Written<'_>) {
    json.constant(Outcome::of(flow).members());
    json.number(key!("time"), milliseconds(event_time(flow)));
    json.number(key!("start_time"), milliseconds(flow.start));
    json.number(key!("end_time"), milliseconds(flow.end));
    // OCSF wants the difference of the two times shown, which may be one more than the whole milliseconds that passed.
    json.number(key!("duration"), milliseconds(flow.end) - milliseconds(flow.start));
    if let Some(reason) = flow.end_reason {
        json.word(key!("status_code"), reason.as_str());
    }
    json.word(key!("status_detail"), flow.conn_state.as_str());
    json.constant(match flow.verdict {
        Verdict::Allow => r#""action_id":1,"action":"Allowed","disposition_id":1,"#,
        Verdict::Deny => r#""action_id":2,"action":"Denied","disposition_id":2,"#,
    });
    if let Some(rule) = flow.rule {
        json.object(key!("firewall_rule"), |json| {
            json.text(key!("name"), directory.name(rule))
        });
    }

    endpoints(json, flow, directory);
    json.flag(key!("is_src_dst_assignment_known"), flow.initiator_known);
    json.object(key!("connection_info"), |json| {
        connection_info(json, flow, written.gateway)
    });
    let delta = json.object_shown(key!("traffic"), |json| traffic(json, flow.delta));
    if flow.total == flow.delta {
        json.again(key!("cumulative_traffic"), delta);
    } else {
        json.object(key!("cumulative_traffic"), |json| traffic(json, flow.total));
    }

    json.constant(r#""observation_point_id":3,"#);
    json.object(key!("network_observation_point"), |json| {
        gateway_names(json, written.gateway)
    });
    json.object(key!("metadata"), |json| {
        product(json, written.gateway);
        json.constant(r#""profiles":["security_control"],"#);
        json.text_of(key!("uid"), |text| {
            flow_uid(text, flow, written.gateway);
            text.char(b'.');
            text.number(flow.number);
        });
        json.text_of(key!("correlation_uid"), |text| flow_uid(text, flow, written.gateway));
        log_entry(json, written);
    });
    json.object(key!("unmapped"), |json| unmapped(json, flow, directory, written));
}

/// When the thing that the record tells happened: an opening at the first packet, all else with the last one.
fn event_time(flow: &FlowRecord) -> u64 {
    match flow.activity {
        Activity::Open => flow.start,
        Activity::Update | Activity::Close => flow.end,
    }
}

/// Initiator and responder; one of the two is the peer. An endpoint of which nothing is known is left out.
fn endpoints(json: &mut Json<'_>, flow: &FlowRecord, directory: &Directory) {
    let domain = flow.domain.map(|domain| directory.name(domain));
    let (src_peer, dst_peer) = peers(flow, directory);
    let src = Endpoint {
        ip: shown_ip(flow, flow.src_ip),
        port: shown_port(flow, flow.src_port),
        peer: src_peer,
        domain: None,
    };
    let dst = Endpoint {
        ip: shown_ip(flow, flow.dst_ip),
        port: shown_port(flow, flow.dst_port),
        peer: dst_peer,
        domain,
    };
    src.write(json, key!("src_endpoint"));
    dst.write(json, key!("dst_endpoint"));
}

struct Endpoint<'a> {
    ip: Option<IpAddr>,
    port: Option<u16>,
    peer: Option<&'a PeerInfo>,
    domain: Option<&'a str>,
}

impl Endpoint<'_> {
    fn write(&self, json: &mut Json<'_>, key: &'static str) {
        // A port alone names nothing, to the schema as well.
        if self.ip.is_none() && self.peer.is_none() && self.domain.is_none() {
            return;
        }
        json.object(key, |json| {
            if let Some(ip) = self.ip {
                json.text_of(key!("ip"), |text| text.ip(ip));
            }
            if let Some(port) = self.port {
                json.number(key!("port"), port);
            }
            if let Some(domain) = self.domain {
                json.text(key!("domain"), domain);
            }
            if let Some(peer) = self.peer {
                json.text(key!("name"), &peer.name);
                json.text(key!("uid"), &peer.public_key);
                owner(json, peer);
            }
        });
    }
}

/// The user behind a peer. Groups without a user need a principal too, and the peer's key is the one that there is.
fn owner(json: &mut Json<'_>, peer: &PeerInfo) {
    if peer.user.is_none() && peer.groups.is_empty() {
        return;
    }
    json.object(key!("owner"), |json| {
        match &peer.user {
            Some(user) => json.text(key!("name"), user),
            None => json.text(key!("uid"), &peer.public_key),
        }
        if peer.groups.is_empty() {
            return;
        }
        json.array(key!("groups"), |json| {
            for group in &peer.groups {
                json.item(|json| json.text(key!("name"), group));
            }
        });
    });
}

fn connection_info(json: &mut Json<'_>, flow: &FlowRecord, gateway: &GatewayInfo) {
    json.text_of(key!("uid"), |text| flow_uid(text, flow, gateway));
    community_id(json, key!("community_uid"), flow);
    json.constant(match flow.direction {
        Direction::Inbound => r#""direction_id":1,"direction":"Inbound","#,
        Direction::Outbound => r#""direction_id":2,"direction":"Outbound","#,
        Direction::Unknown => r#""direction_id":0,"direction":"Unknown","#,
    });
    if let Some(protocol) = shown_protocol(flow) {
        json.number(key!("protocol_num"), protocol);
    }
    if let Some(name) = protocol_name(flow.protocol) {
        json.word(key!("protocol_name"), name);
    }
    match shown_ip(flow, flow.dst_ip).or(shown_ip(flow, flow.src_ip)) {
        Some(IpAddr::V4(_)) => json.constant(r#""protocol_ver_id":4,"#),
        Some(IpAddr::V6(_)) => json.constant(r#""protocol_ver_id":6,"#),
        None => {}
    }
    if let Some(tcp) = &flow.tcp {
        json.number(key!("tcp_flags"), tcp.flags_out | tcp.flags_in);
        history(json, key!("flag_history"), tcp);
    }
}

fn traffic(json: &mut Json<'_>, traffic: Traffic) {
    let Traffic { out, r#in } = traffic;
    json.number(key!("bytes"), out.bytes + r#in.bytes);
    json.number(key!("bytes_out"), out.bytes);
    json.number(key!("bytes_in"), r#in.bytes);
    json.number(key!("packets"), out.packets + r#in.packets);
    json.number(key!("packets_out"), out.packets);
    json.number(key!("packets_in"), r#in.packets);
}

fn unmapped(json: &mut Json<'_>, flow: &FlowRecord, directory: &Directory, written: &Written<'_>) {
    json.word(key!("activity"), flow.activity.as_str());
    json.number(key!("number"), flow.number);
    json.number(key!("start_ns"), flow.start);
    json.number(key!("end_ns"), flow.end);
    if flow.verdict == Verdict::Deny {
        json.number(key!("attempts_delta"), flow.attempts_delta.packets);
        json.number(key!("attempted_bytes_delta"), flow.attempts_delta.bytes);
    }
    extras(json, flow, directory);
    common(json, written);
}

fn gap_event(json: &mut Json<'_>, gap: &Gap, written: &Written<'_>) {
    base_event(json, "Gap", gap.until);
    json.number(key!("start_time"), milliseconds(gap.from));
    json.number(key!("end_time"), milliseconds(gap.until));
    json.number(
        key!("duration"),
        milliseconds(gap.until).saturating_sub(milliseconds(gap.from)),
    );
    json.number(key!("count"), gap.records);
    json.text_of(key!("message"), |text| {
        text.number(gap.records);
        text.text(" records are missing: the queue to Python was full");
    });
    observer(json, written);
    json.object(key!("unmapped"), |json| {
        json.word(key!("kind"), "gap");
        json.word(key!("reason"), "ring_full");
        json.number(key!("records"), gap.records);
        json.number(key!("packets"), gap.packets);
        json.number(key!("bytes"), gap.bytes);
        json.number(key!("from_ns"), gap.from);
        json.number(key!("until_ns"), gap.until);
        common(json, written);
    });
}

fn note_event(json: &mut Json<'_>, note: Note, written: &Written<'_>) {
    match note {
        Note::ClockStep { at, by } => {
            base_event(json, "Note", at);
            json.text_of(key!("message"), |text| {
                text.display(format_args!("the wall clock was stepped by {by:+} ns"));
            });
            observer(json, written);
            json.object(key!("unmapped"), |json| {
                json.word(key!("kind"), "note");
                json.word(key!("note"), "clock_step");
                json.number(key!("at_ns"), at);
                json.number(key!("by_ns"), by);
                common(json, written);
            });
        }
    }
}

/// Activity 99 is OCSF's "Other", whose name the source gives.
fn base_event(json: &mut Json<'_>, activity_name: &'static str, time: u64) {
    json.constant(r#""class_uid":0,"category_uid":0,"#);
    json.constant(r#""activity_id":99,"#);
    json.word(key!("activity_name"), activity_name);
    json.constant(r#""type_uid":99,"severity_id":1,"#);
    json.number(key!("time"), milliseconds(time));
}

/// The gateway and the metadata of a Base Event, which has no observation point.
fn observer(json: &mut Json<'_>, written: &Written<'_>) {
    json.object(key!("device"), |json| {
        json.constant(r#""type_id":99,"type":"WireGuard gateway","#);
        gateway_names(json, written.gateway);
    });
    json.object(key!("metadata"), |json| {
        product(json, written.gateway);
        json.constant(r#""profiles":["host"],"#);
        json.text_of(key!("uid"), |text| {
            text.text(&written.gateway.boot_id);
            text.char(b'.');
            text.number(written.sequence);
        });
        log_entry(json, written);
    });
}

fn gateway_names(json: &mut Json<'_>, gateway: &GatewayInfo) {
    json.text(key!("name"), &gateway.name);
    json.text(key!("uid"), &gateway.uid);
}

fn product(json: &mut Json<'_>, gateway: &GatewayInfo) {
    json.constant(r#""version":"1.8.0","#);
    json.object(key!("product"), |json| {
        json.constant(r#""name":"fzgw","vendor_name":"fzgw","#);
        json.text(key!("version"), &gateway.version);
    });
}

fn log_entry(json: &mut Json<'_>, written: &Written<'_>) {
    json.constant(r#""log_name":"flow_logs","#);
    json.number(key!("sequence"), written.sequence);
    if let Some(now) = written.now_ns {
        json.number(key!("logged_time"), milliseconds(now));
    }
}

/// The end of every `unmapped`.
fn common(json: &mut Json<'_>, written: &Written<'_>) {
    json.text(key!("boot_id"), &written.gateway.boot_id);
    written
        .remarks
        .write(json, [key!("handler_error"), key!("annotations")]);
}

#[cfg(test)]
mod tests {
    use super::super::Annotation;
    use super::super::samples::{
        SECOND, START, denied, denied_joined, directory, echo, golden, tcp, tcp_of_nobody, udp_inbound, udp_unreachable,
    };
    use super::*;
    use crate::flow::record::PeerId;

    fn line(what: &Record, handler_error: Option<&str>) -> String {
        let remarks = Remarks {
            handler_error,
            ..<_>::default()
        };
        remarked(what, remarks)
    }

    fn remarked(what: &Record, remarks: Remarks<'_>) -> String {
        let mut out = Vec::new();
        record(&mut out, what, &directory(), 5, Some(START + 100 * SECOND), remarks);
        String::from_utf8(out).unwrap()
    }

    fn json(flow: FlowRecord) -> serde_json::Value {
        serde_json::from_str(&line(&Record::Flow(flow), None)).unwrap()
    }

    #[test]
    fn tcp_closed_by_fin() {
        assert_eq!(
            line(&Record::Flow(tcp()), None),
            golden(
                r#"{"class_uid":4001,"category_uid":4,
                "activity_id":2,"activity_name":"Close","type_uid":400102,
                "severity_id":1,"time":1700000090123,"start_time":1700000000123,
                "end_time":1700000090123,"duration":90000,"status_code":"fin","status_detail":"SF","action_id":1,
                "action":"Allowed","disposition_id":1,
                "firewall_rule":{"name":"engineering-wiki"},"src_endpoint":{"ip":"100.64.0.2","port":49152,
                "name":"laptop-7","uid":"bGFwdG9w","owner":{"name":"someone@example.com",
                "groups":[{"name":"engineering"},{"name":"staff"}]}},"dst_endpoint":{"ip":"10.1.2.3","port":443,
                "domain":"wiki.example.com"},"is_src_dst_assignment_known":true,
                "connection_info":{"uid":"00c0ffee12345678-2a","community_uid":"1:rAUtp6NuGf26YLDWwCE2Do5hEz4=",
                "direction_id":2,"direction":"Outbound","protocol_num":6,"protocol_name":"tcp","protocol_ver_id":4,
                "tcp_flags":27,"flag_history":"ShADadTFf"},"traffic":{"bytes":156,"bytes_out":104,"bytes_in":52,
                "packets":3,"packets_out":2,"packets_in":1},"cumulative_traffic":{"bytes":10500,"bytes_out":1500,
                "bytes_in":9000,"packets":22,"packets_out":10,"packets_in":12},"observation_point_id":3,
                "network_observation_point":{"name":"exit-1","uid":"gw-1"},
                "metadata":{"version":"1.8.0","product":{"name":"fzgw","vendor_name":"fzgw","version":"0.1.0"},
                "profiles":["security_control"],"uid":"00c0ffee12345678-2a.3","correlation_uid":"00c0ffee12345678-2a",
                "log_name":"flow_logs","sequence":5,"logged_time":1700000100123},"unmapped":{"activity":"close",
                "number":3,
                "start_ns":1700000000123456789,"end_ns":1700000090123456789,
                "resource":"wiki","domain_source":"config","payload_out":980,"payload_in":8376,"tcp_flags_out":27,
                "tcp_flags_in":19,"syn_to_syn_ack_ns":12345678,"syn_ack_to_ack_ns":345678,"retransmits_out":1,
                "retransmits_in":0,"paths":[{"remote":"203.0.113.7:40000","local":"198.51.100.1:51820",
                "since":1700000000123}],"paths_total":1,"boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    /// R19: an update shows what came since the record before and, beside it, what came since the flow began.
    #[test]
    fn tcp_update() {
        let update = FlowRecord {
            activity: Activity::Update,
            number: 2,
            conn_state: ConnState::S1,
            end_reason: None,
            ..tcp()
        };
        assert_eq!(
            line(&Record::Flow(update), None),
            golden(
                r#"{"class_uid":4001,"category_uid":4,
                "activity_id":6,"activity_name":"Traffic","type_uid":400106,
                "severity_id":1,"time":1700000090123,"start_time":1700000000123,
                "end_time":1700000090123,"duration":90000,"status_detail":"S1","action_id":1,"action":"Allowed",
                "disposition_id":1,"firewall_rule":{"name":"engineering-wiki"},
                "src_endpoint":{"ip":"100.64.0.2","port":49152,"name":"laptop-7","uid":"bGFwdG9w",
                "owner":{"name":"someone@example.com","groups":[{"name":"engineering"},{"name":"staff"}]}},
                "dst_endpoint":{"ip":"10.1.2.3","port":443,"domain":"wiki.example.com"},
                "is_src_dst_assignment_known":true,"connection_info":{"uid":"00c0ffee12345678-2a",
                "community_uid":"1:rAUtp6NuGf26YLDWwCE2Do5hEz4=","direction_id":2,"direction":"Outbound",
                "protocol_num":6,"protocol_name":"tcp","protocol_ver_id":4,"tcp_flags":27,"flag_history":"ShADadTFf"},
                "traffic":{"bytes":156,"bytes_out":104,"bytes_in":52,"packets":3,"packets_out":2,"packets_in":1},
                "cumulative_traffic":{"bytes":10500,"bytes_out":1500,"bytes_in":9000,"packets":22,"packets_out":10,
                "packets_in":12},"observation_point_id":3,
                "network_observation_point":{"name":"exit-1","uid":"gw-1"},"metadata":{"version":"1.8.0",
                "product":{"name":"fzgw","vendor_name":"fzgw","version":"0.1.0"},"profiles":["security_control"],
                "uid":"00c0ffee12345678-2a.2","correlation_uid":"00c0ffee12345678-2a","log_name":"flow_logs",
                "sequence":5,"logged_time":1700000100123},"unmapped":{"activity":"update","number":2,
                "start_ns":1700000000123456789,
                "end_ns":1700000090123456789,"resource":"wiki","domain_source":"config",
                "payload_out":980,"payload_in":8376,"tcp_flags_out":27,"tcp_flags_in":19,"syn_to_syn_ack_ns":12345678,
                "syn_ack_to_ack_ns":345678,"retransmits_out":1,"retransmits_in":0,
                "paths":[{"remote":"203.0.113.7:40000","local":"198.51.100.1:51820","since":1700000000123}],
                "paths_total":1,"boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    /// R18: what a flow's first record tells since the record before is what it tells since the flow began.
    #[test]
    fn tcp_open_without_a_peer() {
        let open = FlowRecord {
            activity: Activity::Open,
            conn_state: ConnState::S1,
            end_reason: None,
            ..tcp_of_nobody()
        };
        assert_eq!(
            line(&Record::Flow(open), None),
            golden(
                r#"{"class_uid":4001,"category_uid":4,
                "activity_id":1,"activity_name":"Open","type_uid":400101,
                "severity_id":1,"time":1700000000123,"start_time":1700000000123,
                "end_time":1700000090123,"duration":90000,"status_detail":"S1","action_id":1,"action":"Allowed",
                "disposition_id":1,"src_endpoint":{"ip":"100.64.0.2","port":49152},
                "dst_endpoint":{"ip":"10.1.2.3","port":443},"is_src_dst_assignment_known":true,
                "connection_info":{"uid":"00c0ffee12345678-2a","community_uid":"1:rAUtp6NuGf26YLDWwCE2Do5hEz4=",
                "direction_id":0,"direction":"Unknown","protocol_num":6,"protocol_name":"tcp","protocol_ver_id":4,
                "tcp_flags":27,"flag_history":"ShADadTFf"},"traffic":{"bytes":10500,"bytes_out":1500,"bytes_in":9000,
                "packets":22,"packets_out":10,"packets_in":12},"cumulative_traffic":{"bytes":10500,"bytes_out":1500,
                "bytes_in":9000,"packets":22,"packets_out":10,"packets_in":12},"observation_point_id":3,
                "network_observation_point":{"name":"exit-1","uid":"gw-1"},
                "metadata":{"version":"1.8.0","product":{"name":"fzgw","vendor_name":"fzgw","version":"0.1.0"},
                "profiles":["security_control"],"uid":"00c0ffee12345678-2a.1","correlation_uid":"00c0ffee12345678-2a",
                "log_name":"flow_logs","sequence":5,"logged_time":1700000100123},"unmapped":{"activity":"open",
                "number":1,
                "start_ns":1700000000123456789,"end_ns":1700000090123456789,
                "payload_out":980,"payload_in":8376,"tcp_flags_out":27,"tcp_flags_in":19,"syn_to_syn_ack_ns":12345678,
                "syn_ack_to_ack_ns":345678,"retransmits_out":1,"retransmits_in":0,"boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    #[test]
    fn udp_inbound_over_ipv6() {
        assert_eq!(
            line(&Record::Flow(udp_inbound()), None),
            golden(
                r#"{"class_uid":4001,"category_uid":4,
                "activity_id":2,"activity_name":"Close","type_uid":400102,
                "severity_id":1,"time":1700000090123,"start_time":1700000000123,
                "end_time":1700000090123,"duration":90000,"status_code":"idle","status_detail":"SF","action_id":1,
                "action":"Allowed","disposition_id":1,"src_endpoint":{"ip":"2001:db8::53",
                "port":53},"dst_endpoint":{"ip":"fd00:64::8","port":40001,"name":"printer","uid":"cHJpbnRlcg=="},
                "is_src_dst_assignment_known":true,"connection_info":{"uid":"00c0ffee12345678-2a",
                "community_uid":"1:pT0E9XqPwPT89XaPNZ4iMTLgjdg=","direction_id":1,"direction":"Inbound",
                "protocol_num":17,"protocol_name":"udp","protocol_ver_id":6},"traffic":{"bytes":156,"bytes_out":104,
                "bytes_in":52,"packets":3,"packets_out":2,"packets_in":1},"cumulative_traffic":{"bytes":10500,
                "bytes_out":1500,"bytes_in":9000,"packets":22,"packets_out":10,"packets_in":12},
                "observation_point_id":3,"network_observation_point":{"name":"exit-1",
                "uid":"gw-1"},"metadata":{"version":"1.8.0","product":{"name":"fzgw","vendor_name":"fzgw",
                "version":"0.1.0"},"profiles":["security_control"],"uid":"00c0ffee12345678-2a.3",
                "correlation_uid":"00c0ffee12345678-2a","log_name":"flow_logs","sequence":5,
                "logged_time":1700000100123},"unmapped":{"activity":"close","number":3,
                "start_ns":1700000000123456789,"end_ns":1700000090123456789,
                "payload_out":980,"payload_in":8376,"boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    /// R13: errors stand by type and code, and are none of the flow's packets.
    #[test]
    fn udp_that_met_icmp_errors() {
        assert_eq!(
            line(&Record::Flow(udp_unreachable()), None),
            golden(
                r#"{"class_uid":4001,"category_uid":4,
                "activity_id":2,"activity_name":"Close","type_uid":400102,
                "severity_id":1,"time":1700000090123,"start_time":1700000000123,
                "end_time":1700000090123,"duration":90000,"status_code":"icmp_unreachable","status_detail":"S0",
                "action_id":1,"action":"Allowed","disposition_id":1,
                "src_endpoint":{"ip":"100.64.0.2","port":49152,"name":"laptop-7","uid":"bGFwdG9w",
                "owner":{"name":"someone@example.com","groups":[{"name":"engineering"},{"name":"staff"}]}},
                "dst_endpoint":{"ip":"10.1.2.3","port":9},"is_src_dst_assignment_known":true,
                "connection_info":{"uid":"00c0ffee12345678-2a","community_uid":"1:GGLw5kADs/6SrJy5HCfrsvwmxok=",
                "direction_id":2,"direction":"Outbound","protocol_num":17,"protocol_name":"udp","protocol_ver_id":4},
                "traffic":{"bytes":123,"bytes_out":123,"bytes_in":0,"packets":3,"packets_out":3,"packets_in":0},
                "cumulative_traffic":{"bytes":123,"bytes_out":123,"bytes_in":0,"packets":3,"packets_out":3,
                "packets_in":0},"observation_point_id":3,
                "network_observation_point":{"name":"exit-1","uid":"gw-1"},"metadata":{"version":"1.8.0",
                "product":{"name":"fzgw","vendor_name":"fzgw","version":"0.1.0"},"profiles":["security_control"],
                "uid":"00c0ffee12345678-2a.1","correlation_uid":"00c0ffee12345678-2a","log_name":"flow_logs",
                "sequence":5,"logged_time":1700000100123},"unmapped":{"activity":"close","number":1,
                "start_ns":1700000000123456789,
                "end_ns":1700000090123456789,"payload_out":39,"payload_in":0,
                "icmp_errors":[{"type":11,"code":0,"packets":1,"bytes":68},{"type":3,"code":3,"packets":2,
                "bytes":138}],"paths":[{"remote":"203.0.113.7:40000","local":"198.51.100.1:51820",
                "since":1700000000123}],"paths_total":1,"boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    /// R23: a denied flow's update tells what was tried since the record before and since its first packet.
    #[test]
    fn denied_update() {
        assert_eq!(
            line(&Record::Flow(denied()), None),
            golden(
                r#"{"class_uid":4001,"category_uid":4,
                "activity_id":5,"activity_name":"Refuse","type_uid":400105,
                "severity_id":1,"time":1700000090123,"start_time":1700000000123,
                "end_time":1700000090123,"duration":90000,"status_detail":"OTH","action_id":2,"action":"Denied",
                "disposition_id":2,"firewall_rule":{"name":"default-deny"},
                "src_endpoint":{"ip":"100.64.0.2","name":"laptop-7","uid":"bGFwdG9w",
                "owner":{"name":"someone@example.com","groups":[{"name":"engineering"},{"name":"staff"}]}},
                "dst_endpoint":{"ip":"10.1.2.3","port":22},"is_src_dst_assignment_known":true,
                "connection_info":{"uid":"00c0ffee12345678-2a","direction_id":2,"direction":"Outbound",
                "protocol_num":6,"protocol_name":"tcp","protocol_ver_id":4},"traffic":{"bytes":0,"bytes_out":0,
                "bytes_in":0,"packets":0,"packets_out":0,"packets_in":0},"cumulative_traffic":{"bytes":0,
                "bytes_out":0,"bytes_in":0,"packets":0,"packets_out":0,"packets_in":0},"observation_point_id":3,
                "network_observation_point":{"name":"exit-1","uid":"gw-1"},
                "metadata":{"version":"1.8.0","product":{"name":"fzgw","vendor_name":"fzgw","version":"0.1.0"},
                "profiles":["security_control"],"uid":"00c0ffee12345678-2a.2","correlation_uid":"00c0ffee12345678-2a",
                "log_name":"flow_logs","sequence":5,"logged_time":1700000100123},"unmapped":{"activity":"update",
                "number":2,
                "start_ns":1700000000123456789,"end_ns":1700000090123456789,
                "attempts_delta":1,"attempted_bytes_delta":60,"payload_out":0,"payload_in":0,"attempts":4,
                "attempted_bytes":240,"paths":[{"remote":"203.0.113.7:40000","local":"198.51.100.1:51820",
                "since":1700000000123}],"paths_total":1,"boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    #[test]
    fn denied_with_a_joined_key() {
        assert_eq!(
            line(&Record::Flow(denied_joined()), None),
            golden(
                r#"{"class_uid":4001,"category_uid":4,
                "activity_id":5,"activity_name":"Refuse","type_uid":400105,
                "severity_id":1,"time":1700000090123,"start_time":1700000000123,
                "end_time":1700000090123,"duration":90000,"status_code":"idle","status_detail":"OTH","action_id":2,
                "action":"Denied","disposition_id":2,"firewall_rule":{"name":"default-deny"},
                "src_endpoint":{"name":"laptop-7","uid":"bGFwdG9w","owner":{"name":"someone@example.com",
                "groups":[{"name":"engineering"},{"name":"staff"}]}},"is_src_dst_assignment_known":true,
                "connection_info":{"uid":"00c0ffee12345678-2a","direction_id":2,"direction":"Outbound"},
                "traffic":{"bytes":0,"bytes_out":0,"bytes_in":0,"packets":0,"packets_out":0,"packets_in":0},
                "cumulative_traffic":{"bytes":0,"bytes_out":0,"bytes_in":0,"packets":0,"packets_out":0,
                "packets_in":0},"observation_point_id":3,
                "network_observation_point":{"name":"exit-1","uid":"gw-1"},"metadata":{"version":"1.8.0",
                "product":{"name":"fzgw","vendor_name":"fzgw","version":"0.1.0"},"profiles":["security_control"],
                "uid":"00c0ffee12345678-2a.1","correlation_uid":"00c0ffee12345678-2a","log_name":"flow_logs",
                "sequence":5,"logged_time":1700000100123},"unmapped":{"activity":"close","number":1,
                "start_ns":1700000000123456789,
                "end_ns":1700000090123456789,"attempts_delta":40,
                "attempted_bytes_delta":2400,"attempts":40,"attempted_bytes":2400,
                "paths":[{"remote":"203.0.113.7:40000","local":"198.51.100.1:51820","since":1700000000123}],
                "paths_total":1,"boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    #[test]
    fn gap() {
        let gap = Gap {
            records: 3,
            packets: 40,
            bytes: 5000,
            from: START,
            until: START + SECOND,
        };
        assert_eq!(
            line(&Record::Gap(gap), None),
            golden(
                r#"{"class_uid":0,"category_uid":0,
                "activity_id":99,"activity_name":"Gap","type_uid":99,
                "severity_id":1,
                "time":1700000001123,"start_time":1700000000123,"end_time":1700000001123,"duration":1000,"count":3,
                "message":"3 records are missing: the queue to Python was full",
                "device":{"type_id":99,"type":"WireGuard gateway","name":"exit-1","uid":"gw-1"},
                "metadata":{"version":"1.8.0","product":{"name":"fzgw","vendor_name":"fzgw","version":"0.1.0"},
                "profiles":["host"],"uid":"00c0ffee12345678.5","log_name":"flow_logs","sequence":5,
                "logged_time":1700000100123},
                "unmapped":{"kind":"gap","reason":"ring_full","records":3,"packets":40,"bytes":5000,
                "from_ns":1700000000123456789,"until_ns":1700000001123456789,"boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    #[test]
    fn clock_step_note() {
        let note = Note::ClockStep {
            at: START,
            by: -3600 * 1_000_000_000,
        };
        assert_eq!(
            line(&Record::Note(note), None),
            golden(
                r#"{"class_uid":0,"category_uid":0,
                "activity_id":99,"activity_name":"Note","type_uid":99,
                "severity_id":1,"time":1700000000123,
                "message":"the wall clock was stepped by -3600000000000 ns",
                "device":{"type_id":99,"type":"WireGuard gateway","name":"exit-1","uid":"gw-1"},
                "metadata":{"version":"1.8.0","product":{"name":"fzgw","vendor_name":"fzgw","version":"0.1.0"},
                "profiles":["host"],"uid":"00c0ffee12345678.5","log_name":"flow_logs","sequence":5,
                "logged_time":1700000100123},
                "unmapped":{"kind":"note","note":"clock_step","at_ns":1700000000123456789,"by_ns":-3600000000000,
                "boot_id":"00c0ffee12345678"}}"#
            )
        );
    }

    #[test]
    fn a_handlers_error_is_escaped() {
        let error = "ValueError: \"bad\"\n\tat C:\\x\u{1}";
        let line = line(&Record::Flow(tcp()), Some(error));
        let escaped = r#""handler_error":"ValueError: \"bad\"\n\tat C:\\x\u0001"}}"#;
        assert!(line.ends_with(&format!("{escaped}\n")), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["unmapped"]["handler_error"], error);
    }

    #[test]
    fn annotations_stand_together_and_are_escaped() {
        let annotations = [
            ("ticket".to_owned(), Annotation::Text("NET-7 \"new\"\n".to_owned())),
            ("sco\"re".to_owned(), Annotation::Real(0.5)),
            ("tries".to_owned(), Annotation::Integer(-3)),
            ("known".to_owned(), Annotation::Flag(true)),
            ("never".to_owned(), Annotation::Real(f64::INFINITY)),
        ];
        let remarks = Remarks {
            annotations: &annotations,
            ..<_>::default()
        };
        let value: serde_json::Value = serde_json::from_str(&remarked(&Record::Flow(tcp()), remarks)).unwrap();
        let expected = serde_json::json!({"ticket": "NET-7 \"new\"\n", "sco\"re": 0.5, "tries": -3, "known": true});
        assert_eq!(value["unmapped"]["annotations"], expected);
    }

    #[test]
    fn icmp_has_no_ports() {
        let value = json(echo());
        assert_eq!(value["src_endpoint"].get("port"), None);
        assert_eq!(value["dst_endpoint"].get("port"), None);
        assert_eq!(value["connection_info"]["protocol_name"], "icmp");
        assert_eq!(value["connection_info"].get("tcp_flags"), None);
        assert_eq!(value["unmapped"].get("payload_out"), None);
        assert_eq!(
            value["unmapped"]["icmp"],
            serde_json::json!({"type": 8, "code": 0, "identifier": 777})
        );

        let timestamp = FlowRecord {
            icmp: Some((13, 0)),
            ..echo()
        };
        assert_eq!(
            json(timestamp)["unmapped"]["icmp"],
            serde_json::json!({"type": 13, "code": 0})
        );
    }

    #[test]
    fn activity_follows_the_life_of_a_flow_and_its_end() {
        let ended = |conn_state, end_reason| FlowRecord {
            conn_state,
            end_reason: Some(end_reason),
            ..tcp()
        };
        let going_on = |activity, flow| FlowRecord {
            activity,
            end_reason: None,
            ..flow
        };
        let cases = [
            ("Open", going_on(Activity::Open, tcp())),
            ("Traffic", going_on(Activity::Update, tcp())),
            ("Close", tcp()),
            ("Close", ended(ConnState::S1, EndReason::CaptureEnd)),
            ("Reset", ended(ConnState::Rstr, EndReason::Rst)),
            // Its own RST is no answer, and no refusal either.
            ("Reset", ended(ConnState::Rstos0, EndReason::Rst)),
            ("Refuse", ended(ConnState::Rej, EndReason::Rst)),
            ("Fail", ended(ConnState::S0, EndReason::Idle)),
            ("Fail", ended(ConnState::S0, EndReason::IcmpUnreachable)),
            // Met in the middle, it may have had an answer before.
            ("Close", ended(ConnState::Oth, EndReason::Idle)),
            ("Close", udp_unreachable()),
            ("Refuse", going_on(Activity::Open, denied())),
            ("Refuse", denied()),
            ("Refuse", denied_joined()),
        ];
        for (name, flow) in cases {
            let value = json(flow);
            assert_eq!(value["activity_name"], name);
            assert_eq!(
                value["type_uid"].as_u64(),
                value["activity_id"].as_u64().map(|id| 400_100 + id)
            );
        }
    }

    #[test]
    fn an_opening_happened_at_the_first_packet() {
        let value = json(FlowRecord {
            activity: Activity::Open,
            end_reason: None,
            ..tcp()
        });
        assert_eq!(value["time"], value["start_time"]);
        assert_ne!(value["time"], value["end_time"]);
    }

    #[test]
    fn duration_is_the_difference_of_the_times_shown() {
        let value = json(FlowRecord {
            start: 1_999_999,
            end: 2_000_001,
            ..tcp()
        });
        assert_eq!(
            (&value["start_time"], &value["end_time"], &value["duration"]),
            (&1.into(), &2.into(), &1.into())
        );
    }

    #[test]
    fn a_denied_flow_shows_what_its_key_has() {
        let joined_ports = FlowRecord {
            protocol: TCP,
            dst_ip: "10.1.2.3".parse().unwrap(),
            ..denied_joined()
        };
        let value = json(joined_ports.clone());
        assert_eq!(value["dst_endpoint"], serde_json::json!({"ip": "10.1.2.3"}));
        assert_eq!(value["connection_info"]["protocol_ver_id"], 4);
        assert_eq!(value["connection_info"]["protocol_num"], 6);
        let one_port = FlowRecord {
            dst_port: 22,
            ..joined_ports
        };
        assert_eq!(
            json(one_port)["dst_endpoint"],
            serde_json::json!({"ip": "10.1.2.3", "port": 22})
        );
        let allowed_port_zero = FlowRecord { src_port: 0, ..tcp() };
        assert_eq!(json(allowed_port_zero)["src_endpoint"]["port"], 0);
    }

    #[test]
    fn groups_without_a_user_belong_to_the_key() {
        let mut directory = directory();
        directory.peers.get_mut(&7).unwrap().user = None;
        let mut out = Vec::new();
        record(&mut out, &Record::Flow(tcp()), &directory, 1, None, Remarks::default());
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value["src_endpoint"]["owner"],
            serde_json::json!({"uid": "bGFwdG9w", "groups": [{"name": "engineering"}, {"name": "staff"}]})
        );
        assert_eq!(value["metadata"].get("logged_time"), None);
    }

    #[test]
    fn an_unknown_peer_has_an_empty_name_and_nobody_has_none() {
        let value = json(FlowRecord {
            peer: PeerId(99),
            ..denied_joined()
        });
        assert_eq!(value["src_endpoint"], serde_json::json!({"name": "", "uid": ""}));
        let value = json(tcp_of_nobody());
        assert_eq!(
            (&value["src_endpoint"], &value["dst_endpoint"]),
            (
                &serde_json::json!({"ip": "100.64.0.2", "port": 49152}),
                &serde_json::json!({"ip": "10.1.2.3", "port": 443})
            )
        );
        assert_eq!(value["connection_info"]["direction_id"], 0);
    }

    #[test]
    fn flow_uid_is_the_directorys() {
        for serial in [0, 1, 0xdead_beef, u64::MAX] {
            let value = json(FlowRecord { serial, ..tcp() });
            let uid = directory().flow_uid(serial);
            assert_eq!(value["connection_info"]["uid"], uid);
            assert_eq!(value["metadata"]["correlation_uid"], uid);
            assert_eq!(value["metadata"]["uid"], format!("{uid}.3"));
        }
    }
}
