//! Records to bytes: one JSON line a record, rendered once and used by every sink.
//!
//! A renderer walks a [`Record`] from top to bottom and names each field where it stands in the line; [`json`] puts the
//! commas, quotes and escapes. What several formats say alike is in [`parts`]. `docs/records.md` lists every field of
//! every format.

use self::json::Json;
use crate::flow::record::{Directory, Record};

pub mod ecs;
mod json;
pub mod ocsf;
mod parts;
#[cfg(test)]
mod samples;
pub mod zeek;

/// The forms that records can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OCSF Network Activity: every record. The default form, and the one of the live gateway.
    Ocsf,
    /// Elastic Common Schema: close records.
    Ecs,
    /// Zeek's conn.log: close records of allowed flows.
    Zeek,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 3] = [Format::Ocsf, Format::Ecs, Format::Zeek];

    /// The word of the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Ocsf => "ocsf",
            Format::Ecs => "ecs",
            Format::Zeek => "zeek",
        }
    }

    /// The format of that word.
    pub fn parse(word: &str) -> Option<Format> {
        Self::ALL.into_iter().find(|format| format.as_str() == word)
    }

    /// Appends `record` to `out` as one line of JSON with its newline and says true; or says false and leaves `out` as
    /// it is, where the format has no line for such a record.
    ///
    /// `sequence` is the line's place among those of a gateway and boot (L4), `now_ns` (wall clock nanoseconds) when it
    /// is written, and `remarks` what handlers said of the record.
    pub fn record(
        self,
        out: &mut Vec<u8>,
        record: &Record,
        directory: &Directory,
        sequence: u64,
        now_ns: Option<u64>,
        remarks: Remarks<'_>,
    ) -> bool {
        let record_in = match self {
            Format::Ocsf => ocsf::record,
            Format::Ecs => ecs::record,
            Format::Zeek => zeek::record,
        };
        record_in(out, record, directory, sequence, now_ns, remarks)
    }
}

/// What handlers said of a record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Remarks<'a> {
    /// What one of them raised.
    pub handler_error: Option<&'a str>,
    /// What they noted on its flow, by name.
    pub annotations: &'a [(String, Annotation)],
}

impl Remarks<'_> {
    /// Writes them under these keys.
    fn write(&self, json: &mut Json<'_>, [handler_error, annotations]: [&'static str; 2]) {
        if let Some(error) = self.handler_error {
            json.text(handler_error, error);
        }
        if !self.annotations.is_empty() {
            json.object(annotations, |json| {
                for (name, value) in self.annotations {
                    json.annotation(name, value);
                }
            });
        }
    }
}

/// A value that a handler notes on a flow.
#[derive(Debug, Clone, PartialEq)]
pub enum Annotation {
    /// true or false.
    Flag(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number; one that is not finite has no JSON and is left out.
    Real(f64),
    /// A text.
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::record::{Activity, Verdict};

    #[test]
    fn a_format_is_found_by_its_word_alone() {
        for format in Format::ALL {
            assert_eq!(Format::parse(format.as_str()), Some(format));
        }
        for word in ["", "OCSF", "json", "ocsf "] {
            assert_eq!(Format::parse(word), None);
        }
    }

    /// L4: a record is one line of JSON, or none and then no byte, whatever names, counts and times it has.
    #[test]
    fn every_record_is_one_line_of_json_or_none() {
        let mut random = samples::Random::new(20_231_114);
        let mut lines = [0; 3];
        for sequence in 0..4_000 {
            let directory = random.directory();
            let record = random.record();
            let error = random.one_in(8).then(|| random.text());
            let mut annotations = vec![("n".to_owned(), Annotation::Real(f64::NAN))];
            if random.one_in(4) {
                annotations.push((random.text(), Annotation::Text(random.text())));
            }
            let remarks = Remarks {
                handler_error: error.as_deref(),
                annotations: &annotations,
            };
            for (format, lines) in Format::ALL.into_iter().zip(&mut lines) {
                let mut out = b"before\n".to_vec();
                let written = format.record(&mut out, &record, &directory, sequence, None, remarks);
                let has_line = match (format, &record) {
                    (Format::Ocsf, _) => true,
                    (Format::Ecs, Record::Flow(flow)) => flow.activity == Activity::Close,
                    (Format::Zeek, Record::Flow(flow)) => {
                        flow.activity == Activity::Close && flow.verdict == Verdict::Allow
                    }
                    (Format::Ecs | Format::Zeek, Record::Gap(_) | Record::Note(_)) => false,
                };
                assert_eq!(written, has_line, "{format:?} {record:?}");
                let line = out.strip_prefix(b"before\n").unwrap();
                if !written {
                    assert_eq!(line, b"");
                    continue;
                }
                *lines += 1;
                let text = line.strip_suffix(b"\n").unwrap();
                assert!(!text.contains(&b'\n'));
                let first = match format {
                    Format::Ocsf => "class_uid",
                    Format::Ecs => "@timestamp",
                    Format::Zeek => "ts",
                };
                assert!(samples::members(text).contains_key(first));
            }
        }
        assert!(lines.iter().all(|&lines| lines > 1_000), "{lines:?}");
    }
}
