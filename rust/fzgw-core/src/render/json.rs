//! JSON, written to the end of a buffer member by member.
//!
//! [`Json`] puts the commas, quotes and escapes. Nothing is built in between, so that a line costs no allocation beyond
//! the growth of the batch's buffer.

use std::fmt::{self, Display, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use super::Annotation;

/// The key of a member as it stands in the line, colon included, so that it is one copy of known length.
macro_rules! key {
    ($name:literal) => {
        concat!("\"", $name, "\":")
    };
}
pub(super) use key;

/// A JSON object being written to the end of a buffer.
///
/// Each member and item ends in a comma, which the closing brace or bracket overwrites. Keys come from [`key!`].
pub(super) struct Json<'a> {
    out: &'a mut Vec<u8>,
}

impl Json<'_> {
    /// One object as a line of its own.
    pub(super) fn line(out: &mut Vec<u8>, members: impl FnOnce(&mut Json<'_>)) {
        let mut json = Json { out };
        json.item(members);
        json.close(b'\n');
    }

    /// Members that are the same in every line, written out: `"a":1,"b":"c",`.
    #[inline(always)]
    pub(super) fn constant(&mut self, members: &'static str) {
        debug_assert!(members.ends_with(','));
        self.out.extend_from_slice(members.as_bytes());
    }

    /// `"key":{…}`
    #[inline(always)]
    pub(super) fn object(&mut self, key: &'static str, members: impl FnOnce(&mut Self)) {
        self.object_shown(key, members);
    }

    /// `"key":[…]`, filled with [`Json::item`].
    #[inline(always)]
    pub(super) fn array(&mut self, key: &'static str, items: impl FnOnce(&mut Self)) {
        self.key(key);
        self.out.push(b'[');
        items(self);
        self.close(b']');
        self.out.push(b',');
    }

    /// An object in an array.
    #[inline(always)]
    pub(super) fn item(&mut self, members: impl FnOnce(&mut Self)) {
        self.out.push(b'{');
        members(self);
        self.close(b'}');
        self.out.push(b',');
    }

    /// A whole number.
    #[inline(always)]
    pub(super) fn number(&mut self, key: &'static str, value: impl itoa::Integer) {
        self.key(key);
        digits(self.out, value);
        self.out.push(b',');
    }

    /// `true` or `false`.
    #[inline(always)]
    pub(super) fn flag(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true," } else { b"false," });
    }

    /// A word of ours, which needs no escapes.
    #[inline(always)]
    pub(super) fn word(&mut self, key: &'static str, word: &'static str) {
        self.text_of(key, |text| text.out.extend_from_slice(word.as_bytes()));
    }

    /// Anybody's text.
    #[inline(always)]
    pub(super) fn text(&mut self, key: &'static str, text: &str) {
        self.text_of(key, |to| to.text(text));
    }

    /// What a handler noted, under a name that it chose.
    pub(super) fn annotation(&mut self, name: &str, value: &Annotation) {
        if matches!(value, Annotation::Real(real) if !real.is_finite()) {
            return;
        }
        self.out.push(b'"');
        Text { out: self.out }.text(name);
        self.out.extend_from_slice(b"\":");
        // The key is there already.
        match value {
            Annotation::Flag(flag) => self.flag("", *flag),
            Annotation::Integer(integer) => self.number("", *integer),
            Annotation::Real(real) => {
                Text { out: self.out }.display(real);
                self.out.push(b',');
            }
            Annotation::Text(text) => self.text("", text),
        }
    }

    /// Texts in an array.
    pub(super) fn texts<'t>(&mut self, key: &'static str, texts: impl IntoIterator<Item = &'t str>) {
        self.array(key, |json| {
            for text in texts {
                // An item has no key.
                json.text("", text);
            }
        });
    }

    /// Seconds with six decimals, cut off.
    #[inline(always)]
    pub(super) fn seconds(&mut self, key: &'static str, nanoseconds: u64) {
        self.key(key);
        let mut text = Text { out: self.out };
        text.number(nanoseconds / 1_000_000_000);
        text.char(b'.');
        text.padded::<6>((nanoseconds % 1_000_000_000 / 1_000) as u32);
        self.out.push(b',');
    }

    /// As [`Json::object`], and says where its value stands, for [`Json::again`].
    #[inline(always)]
    pub(super) fn object_shown(&mut self, key: &'static str, members: impl FnOnce(&mut Self)) -> Range<usize> {
        self.key(key);
        let from = self.out.len();
        self.item(members);
        from..self.out.len()
    }

    /// A member whose value was written before, further up in this line: numbers are dearer to write than to copy.
    #[inline(always)]
    pub(super) fn again(&mut self, key: &'static str, shown: Range<usize>) {
        self.key(key);
        self.out.extend_from_within(shown);
    }

    /// Text made of parts.
    #[inline(always)]
    pub(super) fn text_of(&mut self, key: &'static str, parts: impl FnOnce(&mut Text<'_>)) {
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
pub(super) struct Text<'a> {
    out: &'a mut Vec<u8>,
}

impl Text<'_> {
    /// Anybody's text, escaped as RFC 8259, section 7, says.
    pub(super) fn text(&mut self, text: &str) {
        let bytes = text.as_bytes();
        // Without an early exit this is a few vector instructions; nearly every text is plain.
        if bytes.iter().fold(false, |special, &byte| special | needs_escape(byte)) {
            escape(self.out, bytes);
        } else {
            self.out.extend_from_slice(bytes);
        }
    }

    /// A character of ours.
    pub(super) fn char(&mut self, ascii: u8) {
        self.out.push(ascii);
    }

    pub(super) fn number(&mut self, value: impl itoa::Integer) {
        digits(self.out, value);
    }

    /// Lower case, without leading zeros.
    pub(super) fn hex(&mut self, value: u64) {
        let nibbles = value.checked_ilog2().map_or(1, |bits| bits / 4 + 1);
        self.out
            .extend((0..nibbles).rev().map(|at| hex_digit((value >> (4 * at)) as u8 & 15)));
    }

    /// Decimal, with leading zeros up to `WIDTH` digits, which it must not need more of.
    fn padded<const WIDTH: usize>(&mut self, mut value: u32) {
        let mut digits = [b'0'; WIDTH];
        for digit in digits.iter_mut().rev() {
            *digit += (value % 10) as u8;
            value /= 10;
        }
        self.out.extend_from_slice(&digits);
    }

    /// ASCII of ours that needs no escapes.
    pub(super) fn plain(&mut self, ascii: &[u8]) {
        self.out.extend_from_slice(ascii);
    }

    /// RFC 3339 in UTC with nanoseconds: `2023-11-14T22:13:20.123456789Z`.
    pub(super) fn date_time(&mut self, nanoseconds: u64) {
        let seconds = nanoseconds / 1_000_000_000;
        let (days, second) = ((seconds / 86_400) as u32, (seconds % 86_400) as u32);
        let (year, month, day) = civil(days);
        self.padded::<4>(year);
        for (mark, value) in [
            (b'-', month),
            (b'-', day),
            (b'T', second / 3_600),
            (b':', second / 60 % 60),
            (b':', second % 60),
        ] {
            self.char(mark);
            self.padded::<2>(value);
        }
        self.char(b'.');
        self.padded::<9>((nanoseconds % 1_000_000_000) as u32);
        self.char(b'Z');
    }

    pub(super) fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.ipv4(ip),
            IpAddr::V6(ip) => self.ipv6(ip),
        }
    }

    /// As RFC 5952 has it: the longest run of zeros, of two at least and the first of equals, is left out.
    fn ipv6(&mut self, ip: Ipv6Addr) {
        // The standard library writes an IPv4 address at the end of these, and is slower.
        if ip.to_ipv4_mapped().is_some() {
            return self.display(ip);
        }
        let segments = ip.segments();
        let (mut zeros, mut run) = (0..0, 0..0);
        for (at, &segment) in segments.iter().enumerate() {
            run = if segment == 0 {
                run.start..at + 1
            } else {
                at + 1..at + 1
            };
            if run.len() > zeros.len().max(1) {
                zeros = run.clone();
            }
        }
        for (at, &segment) in segments.iter().enumerate() {
            if zeros.contains(&at) {
                // The colon that ends a segment before the run is the run's first.
                if at == 0 {
                    self.char(b':');
                }
                if at + 1 == zeros.end {
                    self.char(b':');
                }
                continue;
            }
            self.hex(segment.into());
            if at < 7 {
                self.char(b':');
            }
        }
    }

    pub(super) fn socket(&mut self, socket: SocketAddr) {
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
    pub(super) fn display(&mut self, value: impl Display) {
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

/// Year, month and day of a number of days since the Unix epoch, in the Gregorian calendar.
///
/// Years are taken to begin in March, so that the leap day is a year's last, and counted from year 0 in eras of 400, of
/// which each is as long as any other.
fn civil(days: u32) -> (u32, u32, u32) {
    const DAYS_BEFORE_EPOCH: u32 = 719_468;
    const ERA: u32 = 146_097;
    let days = days + DAYS_BEFORE_EPOCH;
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / (ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = (months_since_march + 2) % 12 + 1;
    (era * 400 + year_of_era + u32::from(month <= 2), month, day)
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
        // Each pattern of zero and other segments.
        for pattern in 0..256u32 {
            let segments: [u16; 8] =
                std::array::from_fn(|at| if pattern >> at & 1 == 0 { 0 } else { 0xa0 + at as u16 });
            let ip = IpAddr::from(segments);
            assert_eq!(text_of(&|text| text.ip(ip)), ip.to_string());
        }
        for hex in [0, 1, 15, 16, 0xabc, 0x1_0000_0000, u64::MAX] {
            assert_eq!(text_of(&|text| text.hex(hex)), format!("{hex:x}"));
        }
        for ip in [
            "0.0.0.0",
            "255.10.1.0",
            "::",
            "::1",
            "1::",
            "2001:db8::7:0:0:1",
            "1:0:0:2::3",
            "1:0:2:3:4:5:6:7",
            "0:1:2:3:4:5:6:0",
            "1:2:3:4:5:6:0:0",
            "fd00:64::abcd",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "::10.0.0.1",
            "::ffff:10.0.0.1",
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(text_of(&|text| text.ip(ip)), ip.to_string());
            let socket = SocketAddr::new(ip, 51820);
            assert_eq!(text_of(&|text| text.socket(socket)), socket.to_string());
        }
    }
    #[test]
    fn times_are_cut_and_not_rounded() {
        let mut out = Vec::new();
        Json::line(&mut out, |json| {
            json.seconds(key!("zero"), 0);
            json.seconds(key!("cut"), 1_000_001_999);
            json.seconds(key!("last"), u64::MAX);
        });
        assert_eq!(
            out,
            b"{\"zero\":0.000000,\"cut\":1.000001,\"last\":18446744073.709551}\n"
        );
    }

    #[test]
    fn dates_are_those_of_the_gregorian_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (978_307_199, "2000-12-31T23:59:59"),
            (1_700_000_000, "2023-11-14T22:13:20"),
            (1_709_210_096, "2024-02-29T12:34:56"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (u64::MAX / 1_000_000_000, "2554-07-21T23:34:33"),
        ] {
            let mut out = Vec::new();
            Text { out: &mut out }.date_time(seconds * 1_000_000_000 + 1_020);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}.000001020Z"));
        }
        let mut next = (1970, 1, 1);
        for days in 0..=213_503 {
            assert_eq!(civil(days), next);
            let (year, month, day) = next;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = [31, 28 + u32::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
            next = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == length => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }
}
