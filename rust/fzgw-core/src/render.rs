//! Records to bytes: one JSON line a record, rendered once and used by every sink.
//!
//! A renderer walks a [`Record`](crate::flow::record::Record) from top to bottom and names each field where it stands
//! in the line; [`Json`] puts the commas, quotes and escapes. Nothing is built in between, so that a line costs no
//! allocation beyond the growth of the batch's buffer.

use std::fmt::{self, Display, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub mod ocsf;

/// The key of a member as it stands in the line, colon included, so that it is one copy of known length.
macro_rules! key {
    ($name:literal) => {
        concat!("\"", $name, "\":")
    };
}
use key;

/// A JSON object being written to the end of a buffer.
///
/// Each member and item ends in a comma, which the closing brace or bracket overwrites. Keys come from [`key!`].
struct Json<'a> {
    out: &'a mut Vec<u8>,
}

impl Json<'_> {
    /// One object as a line of its own.
    fn line(out: &mut Vec<u8>, members: impl FnOnce(&mut Json<'_>)) {
        let mut json = Json { out };
        json.item(members);
        json.close(b'\n');
    }

    /// Members that are the same in every line, written out: `"a":1,"b":"c",`.
    #[inline(always)]
    fn constant(&mut self, members: &'static str) {
        debug_assert!(members.ends_with(','));
        self.out.extend_from_slice(members.as_bytes());
    }

    /// `"key":{…}`
    #[inline(always)]
    fn object(&mut self, key: &'static str, members: impl FnOnce(&mut Self)) {
        self.key(key);
        self.item(members);
    }

    /// `"key":[…]`, filled with [`Json::item`].
    #[inline(always)]
    fn array(&mut self, key: &'static str, items: impl FnOnce(&mut Self)) {
        self.key(key);
        self.out.push(b'[');
        items(self);
        self.close(b']');
        self.out.push(b',');
    }

    /// An object in an array.
    #[inline(always)]
    fn item(&mut self, members: impl FnOnce(&mut Self)) {
        self.out.push(b'{');
        members(self);
        self.close(b'}');
        self.out.push(b',');
    }

    /// A whole number.
    #[inline(always)]
    fn number(&mut self, key: &'static str, value: impl itoa::Integer) {
        self.key(key);
        digits(self.out, value);
        self.out.push(b',');
    }

    /// `true` or `false`.
    #[inline(always)]
    fn flag(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true," } else { b"false," });
    }

    /// A word of ours, which needs no escapes.
    #[inline(always)]
    fn word(&mut self, key: &'static str, word: &'static str) {
        self.text_of(key, |text| text.out.extend_from_slice(word.as_bytes()));
    }

    /// Anybody's text.
    #[inline(always)]
    fn text(&mut self, key: &'static str, text: &str) {
        self.text_of(key, |to| to.text(text));
    }

    /// Text made of parts.
    #[inline(always)]
    fn text_of(&mut self, key: &'static str, parts: impl FnOnce(&mut Text<'_>)) {
        self.key(key);
        self.out.push(b'"');
        parts(&mut Text { out: self.out });
        self.out.extend_from_slice(b"\",");
    }

    #[inline(always)]
    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(key.as_bytes());
    }

    /// `end` in place of the last member's comma, or after the bracket of an empty one.
    #[inline(always)]
    fn close(&mut self, end: u8) {
        match self.out.last_mut() {
            Some(last @ b',') => *last = end,
            _ => self.out.push(end),
        }
    }
}

/// The inside of a JSON string.
struct Text<'a> {
    out: &'a mut Vec<u8>,
}

impl Text<'_> {
    /// Anybody's text, escaped as RFC 8259, section 7, says.
    fn text(&mut self, text: &str) {
        let bytes = text.as_bytes();
        // Without an early exit this is a few vector instructions; nearly every text is plain.
        if bytes.iter().fold(false, |special, &byte| special | needs_escape(byte)) {
            escape(self.out, bytes);
        } else {
            self.out.extend_from_slice(bytes);
        }
    }

    /// A character of ours.
    fn char(&mut self, ascii: u8) {
        self.out.push(ascii);
    }

    fn number(&mut self, value: impl itoa::Integer) {
        digits(self.out, value);
    }

    /// Lower case, without leading zeros.
    fn hex(&mut self, value: u64) {
        let nibbles = value.checked_ilog2().map_or(1, |bits| bits / 4 + 1);
        self.out
            .extend((0..nibbles).rev().map(|at| hex_digit((value >> (4 * at)) as u8 & 15)));
    }

    fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.ipv4(ip),
            IpAddr::V6(ip) => self.display(ip),
        }
    }

    fn socket(&mut self, socket: SocketAddr) {
        match socket {
            SocketAddr::V4(socket) => {
                self.ipv4(*socket.ip());
                self.char(b':');
                self.number(socket.port());
            }
            SocketAddr::V6(socket) => self.display(socket),
        }
    }

    fn ipv4(&mut self, ip: Ipv4Addr) {
        let [a, b, c, d] = ip.octets();
        self.number(a);
        for octet in [b, c, d] {
            self.char(b'.');
            self.number(octet);
        }
    }

    /// Whatever formats itself, escaped: slower than the above.
    fn display(&mut self, value: impl Display) {
        let written = write!(self, "{value}");
        debug_assert!(written.is_ok(), "a vector takes everything");
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}

#[inline(always)]
fn digits(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn needs_escape(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

#[cold]
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control if control < b' ' => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[hex_digit(control >> 4), hex_digit(control & 15)]);
            }
            plain => out.push(plain),
        }
    }
}

fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + nibble - 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_between_members_and_nowhere_else() {
        let mut out = Vec::new();
        Json::line(&mut out, |json| {
            json.object(key!("empty"), |_| {});
            json.array(key!("none"), |_| {});
            json.text(key!("comma"), ",");
            json.number(key!("n"), -1);
            json.constant(r#""c":1,"#);
            json.array(key!("a"), |json| {
                json.item(|json| json.flag(key!("yes"), true));
                json.item(|json| json.word(key!("w"), "["));
            });
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"empty":{},"none":[],"comma":",","n":-1,"c":1,"a":[{"yes":true},{"w":"["}]}"#.to_owned() + "\n"
        );
    }

    #[test]
    fn a_line_goes_after_what_the_buffer_holds() {
        let mut out = b"before,".to_vec();
        Json::line(&mut out, |_| {});
        assert_eq!(out, b"before,{}\n");
    }

    #[test]
    fn every_character_comes_back_from_a_json_reader() {
        let all: String = (0..0x300)
            .chain(0x2020..0x2030)
            .chain([0xfffd, 0x1f980])
            .filter_map(char::from_u32)
            .collect();
        for text in [all.as_str(), "", "\"", "\\u0000", "line\nbreak\u{7f}", "plain"] {
            let mut out = Vec::new();
            Json::line(&mut out, |json| {
                json.text(key!("text"), text);
                json.text_of(key!("display"), |to| to.display(format_args!("<{text}>")));
            });
            assert_eq!(
                out.iter().filter(|&&byte| byte == b'\n').count(),
                1,
                "a line stays one line"
            );
            let back: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(back["text"], text);
            assert_eq!(back["display"], format!("<{text}>"));
        }
    }

    #[test]
    fn numbers_and_addresses_are_written_as_the_standard_library_writes_them() {
        let text_of = |parts: &dyn Fn(&mut Text<'_>)| {
            let mut out = Vec::new();
            parts(&mut Text { out: &mut out });
            String::from_utf8(out).unwrap()
        };
        for hex in [0, 1, 15, 16, 0xabc, 0x1_0000_0000, u64::MAX] {
            assert_eq!(text_of(&|text| text.hex(hex)), format!("{hex:x}"));
        }
        for ip in ["0.0.0.0", "255.10.1.0", "::", "2001:db8::7:0:0:1", "::ffff:10.0.0.1"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(text_of(&|text| text.ip(ip)), ip.to_string());
            let socket = SocketAddr::new(ip, 51820);
            assert_eq!(text_of(&|text| text.socket(socket)), socket.to_string());
        }
    }
}
