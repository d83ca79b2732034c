//! Packets that are denied (R23).

use super::super::Standing;
use super::identity::Subject;
use super::{Arrival, Event, Model, Place};
use crate::packet::Transport;

/// Past so many live keys of one peer its denials join by host.
const KEYS_BY_PORT: usize = 256;
/// Past so many, by rule.
const KEYS_BY_HOST: usize = 512;

impl Model {
    pub(super) fn deny(&mut self, number: usize, arrival: Arrival<'_>, standing: Standing) -> Place {
        let Arrival {
            peer,
            side,
            packet,
            now,
        } = arrival;
        let port = match packet.transport {
            Transport::Tcp { dst_port, .. } | Transport::Udp { dst_port, .. } => dst_port,
            _ => 0,
        };
        // From the finest to the coarsest. What joined goes on to be joined while it lives.
        let subjects = [
            Subject::DeniedPort {
                first: packet.src,
                protocol: packet.protocol,
                responder: packet.dst,
                port,
            },
            Subject::DeniedHost(packet.dst),
            Subject::DeniedRule,
        ];
        let known = subjects
            .iter()
            .find_map(|subject| self.find_denied(arrival, subject, standing));
        let flow = known.unwrap_or_else(|| {
            let keys = self
                .flows
                .iter()
                .filter(|flow| flow.is_live() && flow.is_denied() && flow.peer == peer)
                .count();
            let subject = match keys {
                0..KEYS_BY_PORT => subjects[0],
                KEYS_BY_PORT..KEYS_BY_HOST => subjects[1],
                _ => subjects[2],
            };
            self.open(peer, side, true, subject, standing, now)
        });
        self.flows[flow].events.push(Event {
            packet: number,
            at: now,
            from_initiator: true,
            segment: None,
            path: None,
        });
        Place::Denied
    }

    /// The live flow of denials by this rule. Those towards the peer and from it are told apart, because a record says
    /// which it is.
    fn find_denied(&mut self, arrival: Arrival<'_>, subject: &Subject, standing: Standing) -> Option<usize> {
        let same = |other: &Subject| match (*subject, *other) {
            (
                Subject::DeniedPort {
                    protocol,
                    responder,
                    port,
                    ..
                },
                Subject::DeniedPort {
                    protocol: other_protocol,
                    responder: other_responder,
                    port: other_port,
                    ..
                },
            ) => (protocol, responder, port) == (other_protocol, other_responder, other_port),
            (subject, other) => subject == other,
        };
        let flow = (0..self.flows.len()).find(|flow| {
            let flow = &self.flows[*flow];
            flow.is_live()
                && flow.is_denied()
                && (flow.peer, flow.initiator, flow.standing.rule) == (arrival.peer, arrival.side, standing.rule)
                && same(&flow.subject)
        })?;
        self.unless_over(flow, arrival.now)
    }
}
