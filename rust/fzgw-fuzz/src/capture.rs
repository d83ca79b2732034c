//! Any bytes as a capture file.

use std::io::{self, Cursor, Read};

use fzgw_core::capture::{CaptureError, CaptureReader, Frame, IpFrame, MAX_CAPTURED, MAX_TIME, ip_packet};

/// A few bytes of gzip or zstd can hold a gigabyte: a caller stops when it has enough, and so does this one.
const MAX_FRAMES: usize = 2000;
/// No reader's buffer is larger, so the offset moves by no more with one frame and what is passed over before it.
const BETWEEN_LOOKS: u64 = 1 << 32;

/// The bytes are the file. It is read twice: as one piece, and as one that comes a few bytes at a time.
pub fn run(data: &[u8]) {
    let at_once = read(Box::new(Cursor::new(data.to_vec())), data);
    let dripping = Drip {
        data: data.to_vec(),
        at: 0,
    };
    assert_eq!(
        read(Box::new(dripping), data),
        at_once,
        "a file is the same however its bytes arrive"
    );
}

/// What is told of a file: of each frame its time, lengths and first bytes; and how it ends.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    frames: Vec<(u16, u64, u32, usize, Vec<u8>)>,
    end: Result<u64, String>,
}

fn read(source: Box<dyn Read + Send>, data: &[u8]) -> Told {
    let mut frames = Vec::new();
    let mut reader = match CaptureReader::open(source) {
        Ok(reader) => reader,
        Err(error) => {
            return Told {
                frames,
                end: Err(told(&error)),
            };
        }
    };
    let compressed = matches!(
        data,
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [_, 0x2a, 0x4d, 0x18, ..]
    );
    let mut offset = reader.offset();
    let end = loop {
        if frames.len() == MAX_FRAMES {
            break Ok(reader.offset());
        }
        match reader.next_frame() {
            Ok(Some(frame)) => {
                check(&frame);
                let head = frame.bytes.iter().take(64).copied().collect();
                frames.push((frame.link.0, frame.time, frame.wire_len, frame.bytes.len(), head));
            }
            Ok(None) => break Ok(reader.offset()),
            Err(error) => {
                let place = error.offset();
                assert!(place.is_some(), "what began as a capture is one: {error}");
                assert!(
                    compressed || place.is_some_and(|place| place <= data.len() as u64),
                    "{error}"
                );
                assert!(
                    matches!(reader.next_frame(), Ok(None)),
                    "a fault is told once, and then there is nothing"
                );
                break Err(told(&error));
            }
        }
        let before = std::mem::replace(&mut offset, reader.offset());
        assert!((before..before + BETWEEN_LOOKS).contains(&offset), "{before} {offset}");
        assert!(compressed || offset <= data.len() as u64, "{offset} of {}", data.len());
    };
    Told { frames, end }
}

fn told(error: &CaptureError) -> String {
    let told = error.to_string();
    assert!(!told.contains('\n'), "one clear line: {told}");
    told
}

fn check(frame: &Frame<'_>) {
    assert!(frame.bytes.len() <= MAX_CAPTURED);
    assert!(frame.wire_len as usize >= frame.bytes.len());
    assert!(frame.time <= MAX_TIME);
    if let Ok(IpFrame { bytes, wire_len }) = ip_packet(frame) {
        assert!(!bytes.is_empty() && bytes.len() <= wire_len);
        assert!(wire_len <= frame.wire_len as usize);
        let inside = frame.bytes.as_ptr_range();
        let range = bytes.as_ptr_range();
        assert!(inside.start <= range.start && range.end <= inside.end);
    }
}

/// A source that gives one to seven bytes a call.
struct Drip {
    data: Vec<u8>,
    at: usize,
}

impl Read for Drip {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = &self.data[self.at..];
        let len = rest.len().min(out.len()).min(1 + self.at % 7);
        out[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        Ok(len)
    }
}
