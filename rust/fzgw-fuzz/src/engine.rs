//! A capture, or a script of packets, through a whole replay.

use std::io::Cursor;

use arbitrary::Unstructured;
use fzgw_core::capture::{CaptureError, CaptureReader, Frame, LinkType};
use fzgw_core::flow::{Limits, Record};
use fzgw_core::replay::{ReplayOptions, ReplayState};

use crate::audit::Audit;
use crate::lab;
use crate::script::{self, byte};

/// Frames that are taken from a capture: a few bytes of gzip hold a great many.
const MAX_FRAMES: usize = 2000;
/// Turns of the timers at one moment: each ends or reports thousands of flows, and there are few.
const MAX_TURNS: usize = 64;

/// What a step does: the low three bits of its byte. The upper five are a step of time.
pub mod op {
    /// A packet of the script. Any number up to [`AGAIN`] that has no name here is one too.
    pub const PACKET: u8 = 0;
    /// A packet of which the capture kept so many bytes; a packet.
    pub const CUT: u8 = 4;
    /// A frame of some link type: its number, and a packet for its bytes.
    pub const FRAME: u8 = 5;
    /// The packet before, as it is.
    pub const AGAIN: u8 = 6;
    /// The packet before, one hop on: the second leg from peer to peer.
    pub const ONE_HOP_ON: u8 = 7;
}

/// What the first byte of a script says.
pub mod mode {
    /// With a configuration.
    pub const CONFIGURED: u8 = 1;
    /// Only close records.
    pub const NO_UPDATES: u8 = 2;
    /// The configuration has no rules.
    pub const NO_RULES: u8 = 4;
}

/// A capture file; or three bytes (a mode and limits) and steps.
pub fn run(data: &[u8]) {
    match CaptureReader::open(Box::new(Cursor::new(data.to_vec()))) {
        Err(CaptureError::NotACapture { .. }) => run_script(data),
        Err(_) => {}
        Ok(_) => {
            for mode in [0, mode::CONFIGURED] {
                run_capture(data, mode);
            }
        }
    }
}

fn run_capture(data: &[u8], mode: u8) {
    let (Ok(mut reader), Some(mut run)) = (
        CaptureReader::open(Box::new(Cursor::new(data.to_vec()))),
        Run::new(mode, lab::limits(2, 0)),
    ) else {
        return;
    };
    for _ in 0..MAX_FRAMES {
        let Ok(Some(frame)) = reader.next_frame() else { break };
        run.take(&frame);
    }
    run.end();
}

fn run_script(data: &[u8]) {
    let input = &mut Unstructured::new(data);
    let mode = byte(input);
    let limits = lab::limits(byte(input), byte(input));
    let Some(mut run) = Run::new(mode, limits) else { return };
    let mut time = lab::START;
    let mut packet = Vec::new();
    while !input.is_empty() {
        let what = byte(input);
        time = script::after(time, what >> 3, input);
        let mut link = LinkType::RAW;
        let mut kept = usize::MAX;
        match what & 7 {
            op::CUT => {
                kept = byte(input).into();
                packet = script::packet(input);
            }
            op::FRAME => {
                link = LinkType(byte(input).into());
                packet = script::packet(input);
            }
            op::AGAIN => {}
            op::ONE_HOP_ON => {
                let at = if packet.first().is_some_and(|first| first >> 4 == 6) {
                    7
                } else {
                    8
                };
                if let Some(hops) = packet.get_mut(at) {
                    *hops = hops.wrapping_sub(1);
                }
            }
            _ => packet = script::packet(input),
        }
        run.take(&Frame {
            link,
            time,
            bytes: &packet[..kept.min(packet.len())],
            wire_len: packet.len() as u32,
        });
    }
    run.end();
}

/// A replay whose books are looked at after each frame.
struct Run {
    state: ReplayState,
    audit: Audit,
    records: Vec<Record>,
    frames: u64,
}

impl Run {
    fn new(mode: u8, limits: Limits) -> Option<Self> {
        let mut gateway = (mode & mode::CONFIGURED != 0).then(|| lab::config(limits));
        if mode & mode::NO_RULES != 0
            && let Some(config) = &mut gateway
        {
            config.rules = None;
        }
        let options = ReplayOptions {
            gateway,
            limits,
            purpose: lab::purpose(mode & mode::NO_UPDATES == 0),
            version: "0".to_owned(),
        };
        Some(Self {
            state: ReplayState::new(&options).ok()?,
            audit: Audit::default(),
            records: Vec::new(),
            frames: 0,
        })
    }

    fn take(&mut self, frame: &Frame<'_>) {
        let mut turns = 0;
        while self.state.handle_timers(frame.time) {
            turns += 1;
            assert!(turns < MAX_TURNS, "the timers of one moment come to an end");
        }
        self.state.handle_frame(frame);
        self.frames += 1;
        self.check();
    }

    fn end(mut self) {
        while self.state.close_some(2) {
            self.check();
        }
        self.check();
        let ledger = self.state.ledger();
        self.audit.check_end(&ledger.flows, true);
    }

    fn check(&mut self) {
        self.state.drain_records(&mut self.records, &mut Vec::new());
        self.audit.take(&mut self.records);
        let ledger = self.state.ledger();
        assert!(ledger.balanced(), "L1, L2, L2b: {ledger:?}");
        assert_eq!(
            (ledger.frames, ledger.made),
            (self.frames, self.audit.made()),
            "{ledger:?}"
        );
        self.audit.check(&ledger.flows);
    }
}
