//! Datagrams that travel in fragments (R15).

use std::net::IpAddr;

use super::super::record::OuterPath;
use super::super::{Limits, PeerId, Side, Untracked};
use super::{Arrival, Event, Model, Place};

/// A datagram that travels in pieces.
pub(super) struct Datagram {
    key: DatagramKey,
    created: u64,
    state: DatagramState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct DatagramKey {
    peer: PeerId,
    side: Side,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    identification: u32,
}

#[derive(Clone)]
enum DatagramState {
    Waiting(Vec<usize>),
    Flow(usize),
    Untracked,
}

impl Datagram {
    pub(super) fn deadline(&self, limits: &Limits) -> u64 {
        self.created.saturating_add(limits.fragment_timeout).saturating_add(1)
    }
}

impl DatagramKey {
    fn of(arrival: Arrival<'_>) -> Option<Self> {
        Some(Self {
            peer: arrival.peer,
            side: arrival.side,
            src: arrival.packet.src,
            dst: arrival.packet.dst,
            protocol: arrival.packet.protocol,
            identification: arrival.packet.fragment?.identification,
        })
    }
}

impl Model {
    /// The place of the packet's datagram. One whose time is over is forgotten here.
    fn datagram(&mut self, arrival: Arrival<'_>) -> Option<usize> {
        let key = DatagramKey::of(arrival)?;
        let place = self.fragments.iter().position(|datagram| datagram.key == key)?;
        if self.fragments[place].deadline(&self.limits) <= arrival.now.mono {
            self.forget_datagram(place);
            return None;
        }
        Some(place)
    }

    pub(super) fn flow_of_datagram(&mut self, arrival: Arrival<'_>) -> Option<usize> {
        let place = self.datagram(arrival)?;
        match self.fragments[place].state {
            DatagramState::Flow(flow) if self.flows[flow].is_live() => self.unless_over(flow, arrival.now),
            DatagramState::Flow(_) | DatagramState::Waiting(_) | DatagramState::Untracked => None,
        }
    }

    /// What waited there belongs to no flow.
    pub(super) fn forget_datagram(&mut self, place: usize) {
        if let DatagramState::Waiting(packets) = self.fragments.remove(place).state {
            for packet in packets {
                self.packets[packet].place = Place::Untracked(Untracked::Fragment);
            }
        }
    }

    /// A fragment without ports.
    pub(super) fn join_datagram(&mut self, number: usize, arrival: Arrival<'_>, path: OuterPath) -> Place {
        let first = arrival.packet.fragment.is_some_and(|fragment| fragment.first);
        if first {
            // Too short for its ports.
            return Place::Untracked(Untracked::Fragment);
        }
        if let Some(flow) = self.flow_of_datagram(arrival) {
            self.add(flow, number, arrival, None, path);
            return Place::Flow(flow);
        }
        match self.datagram(arrival) {
            Some(place) => match &mut self.fragments[place].state {
                DatagramState::Waiting(packets) => {
                    packets.push(number);
                    Place::Waiting
                }
                DatagramState::Flow(_) | DatagramState::Untracked => Place::Untracked(Untracked::Fragment),
            },
            None if self.remember_datagram(arrival, DatagramState::Waiting(vec![number])) => Place::Waiting,
            None => Place::Untracked(Untracked::Fragment),
        }
    }

    /// A first fragment, which was counted at `place`: what waited for it follows, and what comes will.
    pub(super) fn begin_datagram(&mut self, arrival: Arrival<'_>, place: Place) {
        let state = match place {
            Place::Flow(flow) => DatagramState::Flow(flow),
            // An error is counted in nothing but `icmp_errors` (R13), so its pieces belong to no flow.
            Place::Untracked(_) | Place::IcmpError(_) | Place::Waiting | Place::Denied => DatagramState::Untracked,
        };
        let Some(entry) = self.datagram(arrival) else {
            self.remember_datagram(arrival, state);
            return;
        };
        let datagram = &mut self.fragments[entry];
        datagram.created = arrival.now.mono;
        let before = std::mem::replace(&mut datagram.state, state);
        let DatagramState::Waiting(packets) = before else {
            return;
        };
        for packet in packets {
            match place {
                Place::Flow(flow) => {
                    let from_initiator = arrival.side == self.flows[flow].initiator;
                    self.flows[flow].events.push(Event {
                        packet,
                        at: arrival.now,
                        from_initiator,
                        segment: None,
                        path: None,
                    });
                    self.packets[packet].place = place;
                }
                Place::Untracked(_) | Place::IcmpError(_) | Place::Waiting | Place::Denied => {
                    self.packets[packet].place = Place::Untracked(Untracked::Fragment);
                }
            }
        }
    }

    /// Makes an entry where there is room, and says whether there was.
    fn remember_datagram(&mut self, arrival: Arrival<'_>, state: DatagramState) -> bool {
        let Some(key) = DatagramKey::of(arrival) else {
            return false;
        };
        let own = self
            .fragments
            .iter()
            .filter(|datagram| datagram.key.peer == key.peer)
            .count();
        let most = self.limits.max_fragments;
        let room = self.fragments.len() < most && (self.configured_peers <= 1 || own < most / 4);
        if room {
            self.fragments.push(Datagram {
                key,
                created: arrival.now.mono,
                state,
            });
        }
        room
    }
}
