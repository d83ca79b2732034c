//! Compressed captures: gzip of several members, zstd of several frames, found out by their magic.
//!
//! The decoders are driven here and not through their `Read` adapters, which lose what a call decoded before it met a
//! fault. What can be decompressed is delivered, to the last byte.

use std::fmt;
use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// Bytes that are read at first, to see what they are.
const HEAD_ROOM: usize = 4 << 10;
/// Compressed bytes that are read at once, where there are more.
const INPUT_ROOM: usize = 128 << 10;
/// The deflate window of gzip: always 32 KiB.
const GZIP_WINDOW_BITS: u8 = 15;
/// The largest zstd window, as a power of two: 128 MiB, which is what the zstd command decompresses unless told to use
/// more memory. Files below level 20 need 8 MiB at most.
const ZSTD_WINDOW_LOG: u32 = 27;
/// A zstd block's header. zstd's hint about what to feed next is a block and the header after it.
const ZSTD_BLOCK_HEADER: usize = 3;
/// What is fed at a zstd frame's start: less than the shortest header.
const ZSTD_FRAME_START: usize = 5;

/// How a source is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    fn by_magic(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame: parallel compressors put one in front.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain data",
            Self::Gzip => "gzip data",
            Self::Zstd => "zstd data",
        })
    }
}

/// Why no more bytes come.
#[derive(Debug)]
pub(super) enum StreamFault {
    Io(io::Error),
    Truncated(String),
    Corrupt(String),
}

/// A source's bytes, decompressed.
pub(super) struct Stream {
    input: Input,
    decoder: Codec,
}

enum Codec {
    Plain,
    Gzip(Gzip),
    Zstd(Zstd),
}

impl Stream {
    /// Reads the first bytes of `source` and looks whether they are compressed.
    pub(super) fn open(source: Box<dyn Read + Send>) -> io::Result<Self> {
        let mut input = Input::new(source);
        while input.front().len() < 4 && input.fill()? {}
        let decoder = match Compression::by_magic(input.front()) {
            Compression::Plain => Codec::Plain,
            Compression::Gzip => Codec::Gzip(Gzip { member: None }),
            Compression::Zstd => Codec::Zstd(Zstd::new()?),
        };
        Ok(Self { input, decoder })
    }

    pub(super) fn compression(&self) -> Compression {
        match self.decoder {
            Codec::Plain => Compression::Plain,
            Codec::Gzip(_) => Compression::Gzip,
            Codec::Zstd(_) => Compression::Zstd,
        }
    }

    /// The next bytes: at least one, none at the end. `out` is not empty.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, StreamFault> {
        match &mut self.decoder {
            Codec::Plain => self.input.read(out).map_err(StreamFault::Io),
            Codec::Gzip(gzip) => gzip.read(&mut self.input, out),
            Codec::Zstd(zstd) => zstd.read(&mut self.input, out),
        }
    }
}

/// The source and what was read of it but not decoded yet.
struct Input {
    source: Box<dyn Read + Send>,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn new(source: Box<dyn Read + Send>) -> Self {
        Self {
            source,
            bytes: vec![0; HEAD_ROOM],
            start: 0,
            end: 0,
        }
    }

    fn front(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn take(&mut self, len: usize) {
        self.start += len;
    }

    /// Reads more behind what is there. False at the end.
    fn fill(&mut self) -> io::Result<bool> {
        if self.end == self.bytes.len() {
            self.bytes.resize(INPUT_ROOM, 0);
        }
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let read = read(&mut self.source, &mut self.bytes[self.end..])?;
        self.end += read;
        Ok(read > 0)
    }

    /// Bytes as they come: what is there already, then straight from the source.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.front().is_empty() {
            return read(&mut self.source, out);
        }
        let len = self.front().len().min(out.len());
        out[..len].copy_from_slice(&self.front()[..len]);
        self.take(len);
        Ok(len)
    }
}

fn read(source: &mut dyn Read, out: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(out) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

struct Gzip {
    /// The member that is being decoded; none between two.
    member: Option<Decompress>,
}

impl Gzip {
    fn read(&mut self, input: &mut Input, out: &mut [u8]) -> Result<usize, StreamFault> {
        loop {
            if self.member.is_none() && input.front().is_empty() && !input.fill().map_err(StreamFault::Io)? {
                return Ok(0);
            }
            let member = self
                .member
                .get_or_insert_with(|| Decompress::new_gzip(GZIP_WINDOW_BITS));
            let (before_in, before_out) = (member.total_in(), member.total_out());
            let result = member.decompress(input.front(), out, FlushDecompress::None);
            // Both are differences within one call, so they are no longer than its slices.
            let (used, made) = (
                (member.total_in() - before_in) as usize,
                (member.total_out() - before_out) as usize,
            );
            input.take(used);
            if matches!(result, Ok(Status::StreamEnd)) {
                self.member = None;
            }
            if made > 0 {
                // A fault in the same call is told by the next one again, though not with the same reason.
                return Ok(made);
            }
            match result {
                Ok(Status::StreamEnd) => {}
                Ok(Status::Ok | Status::BufError) if used > 0 => {}
                Ok(Status::Ok | Status::BufError) => {
                    if !input.fill().map_err(StreamFault::Io)? {
                        return Err(ended("gzip data"));
                    }
                }
                Err(_) => return Err(StreamFault::Corrupt("the gzip data is damaged".to_owned())),
            }
        }
    }
}

struct Zstd {
    decoder: Decoder<'static>,
    /// Compressed bytes to feed next; 0 between two frames.
    hint: usize,
    /// The decoder may hold decoded bytes. At a frame's end it holds none, and must not be asked: it would begin another.
    full: bool,
}

impl Zstd {
    fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
        Ok(Self {
            decoder,
            hint: 0,
            full: false,
        })
    }

    fn read(&mut self, input: &mut Input, out: &mut [u8]) -> Result<usize, StreamFault> {
        loop {
            if !self.full && input.front().is_empty() && !input.fill().map_err(StreamFault::Io)? {
                return match self.hint {
                    0 => Ok(0),
                    _ => Err(ended("zstd data")),
                };
            }
            let piece = if self.full {
                0
            } else {
                self.piece().min(input.front().len())
            };
            let mut fed = InBuffer::around(&input.front()[..piece]);
            let mut made = OutBuffer::around(out);
            self.hint = self
                .decoder
                .run(&mut fed, &mut made)
                .map_err(|error| StreamFault::Corrupt(format!("the zstd data is damaged ({error})")))?;
            let (used, made) = (fed.pos(), made.pos());
            input.take(used);
            self.full = made == out.len() && self.hint != 0;
            if made > 0 {
                return Ok(made);
            }
        }
    }

    /// A call that fails does not tell what it decoded before. So each gets one block without the header of the next,
    /// or one header: then nothing is decoded before the fault.
    fn piece(&self) -> usize {
        match self.hint {
            0 => ZSTD_FRAME_START,
            hint if hint > ZSTD_BLOCK_HEADER => hint - ZSTD_BLOCK_HEADER,
            hint => hint,
        }
    }
}

fn ended(what: &str) -> StreamFault {
    StreamFault::Truncated(format!("the {what} stops before its own end"))
}

#[cfg(test)]
mod tests {
    use super::super::build::{Random, gzip, source, zstd};
    use super::*;

    /// Everything that a stream gives in reads of `step` bytes, and what ended it.
    fn drain(bytes: &[u8], step: usize) -> (Vec<u8>, Option<String>) {
        let mut stream = Stream::open(source(bytes, usize::MAX)).unwrap();
        let (mut all, mut out) = (Vec::new(), vec![0; step]);
        loop {
            match stream.read(&mut out) {
                Ok(0) => return (all, None),
                Ok(read) => all.extend(&out[..read]),
                Err(fault) => return (all, Some(format!("{fault:?}"))),
            }
        }
    }

    /// Words and noise: compressed, stored and repeated blocks.
    fn plain() -> Vec<u8> {
        let mut random = Random(3);
        (0..3000)
            .flat_map(|number| match number / 500 {
                0 | 2 => [number as u8 % 7; 4],
                1 => [0; 4],
                _ => (random.next() as u32).to_le_bytes(),
            })
            .collect()
    }

    /// What comes before a fault does not depend on how much is read at once: no byte that could be decoded is lost.
    #[test]
    fn nothing_decoded_before_a_fault_is_lost() {
        let plain = plain();
        let mut random = Random(5);
        for (bytes, rounds) in [
            (gzip(&plain), 100),
            ([gzip(&plain[..5000]), gzip(&plain[5000..])].concat(), 50),
            (zstd(&plain, 700), 100),
            (zstd(&plain, usize::MAX), 50),
            ([zstd(&plain[..5000], 64), zstd(&plain[5000..], 4000)].concat(), 50),
        ] {
            assert_eq!(drain(&bytes, 1 << 16), (plain.clone(), None));
            for _ in 0..rounds {
                let broken = random.mutate(&bytes);
                let expected = drain(&broken, 1);
                for step in [2, 3, 1000, 1 << 16] {
                    assert!(drain(&broken, step) == expected, "in reads of {step}: {:?}", expected.1);
                }
            }
        }
    }

    /// A read that takes exactly the last bytes leaves an end behind it and no fault, with checksums and without.
    #[test]
    fn an_exact_read_meets_the_end() {
        let plain = plain();
        let unchecked = zstd::encode_all(&plain[..], 3).unwrap();
        for bytes in [unchecked, zstd(&plain, 500), gzip(&plain)] {
            for step in [1, plain.len() / 4, plain.len(), plain.len() + 1] {
                assert_eq!(drain(&bytes, step), (plain.clone(), None), "in reads of {step}");
            }
        }
    }

    /// A zstd frame whose window needs more memory than allowed is refused.
    #[test]
    fn a_huge_window_is_refused() {
        let window_log = |log: u8| [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, (log - 10) << 3][..], &[1, 0, 0]].concat();
        assert_eq!(drain(&window_log(27), 100), (vec![], None));
        let (bytes, fault) = drain(&window_log(28), 100);
        assert!(bytes.is_empty() && fault.unwrap().contains("memory"));
    }
}
