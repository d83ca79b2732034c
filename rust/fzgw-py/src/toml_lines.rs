//! Where in a TOML document each key stands: `tomllib` gives values without places, and errors need lines.
//!
//! [`lines`] walks the parsed document once and notes a line for every table, key and array element. A table that has
//! several places (`[a.b]` names `a` too) has the line of its own header, else of the first key that names it.

use std::ops::Range;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use toml_edit::{Document, Item, TableLike, Value};

/// The line (from 1) of every key path of a TOML document, tables and array elements included:
/// `("peers", 0, "public_key")` -> 37. Raises `ValueError` with the line for a document that is not TOML.
#[pyfunction]
pub(crate) fn toml_lines<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyDict>> {
    let lines =
        lines(text).map_err(|NotToml { line, message }| PyValueError::new_err(format!("line {line}: {message}")))?;
    let dict = PyDict::new(py);
    for (path, line) in lines {
        dict.set_item(PyTuple::new(py, path)?, line)?;
    }
    Ok(dict)
}

/// One step of a key path.
#[derive(Debug, Clone, PartialEq, Eq, IntoPyObject)]
pub(crate) enum Segment {
    /// A table's key.
    Key(String),
    /// An array's element, from 0.
    Index(usize),
}

/// What keeps a text from being TOML, and on which line (from 1).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotToml {
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// Every key path with its line, in the order of the document's tables.
pub(crate) fn lines(text: &str) -> Result<Vec<(Vec<Segment>, usize)>, NotToml> {
    let places = Places::of(text);
    let document = Document::parse(text).map_err(|error| NotToml {
        line: places.line(error.span().unwrap_or(text.len()..text.len())),
        message: error.message().replace('\n', ", "),
    })?;
    let mut walk = Walk {
        places,
        path: Vec::new(),
        found: Vec::new(),
    };
    walk.table(document.as_table());
    Ok(walk.found)
}

struct Walk {
    places: Places,
    path: Vec<Segment>,
    found: Vec<(Vec<Segment>, usize)>,
}

impl Walk {
    fn table(&mut self, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            let key_span = table.key(name).and_then(|key| key.span());
            let span = match item {
                Item::Table(table) if !table.is_implicit() && !table.is_dotted() => table.span().or(key_span),
                Item::None | Item::Value(_) | Item::Table(_) | Item::ArrayOfTables(_) => key_span,
            };
            self.step(Segment::Key(name.to_owned()), span, |walk| walk.item(item));
        }
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::None => {}
            Item::Value(value) => self.value(value),
            Item::Table(table) => self.table(table),
            Item::ArrayOfTables(tables) => {
                for (index, table) in tables.iter().enumerate() {
                    self.step(Segment::Index(index), table.span(), |walk| walk.table(table));
                }
            }
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Array(array) => {
                for (index, element) in array.iter().enumerate() {
                    self.step(Segment::Index(index), element.span(), |walk| walk.value(element));
                }
            }
            Value::InlineTable(table) => self.table(table),
            Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
        }
    }

    /// Notes the line of what lies one segment deeper, and goes there.
    fn step(&mut self, segment: Segment, span: Option<Range<usize>>, inside: impl FnOnce(&mut Self)) {
        self.path.push(segment);
        if let Some(span) = span {
            self.found.push((self.path.clone(), self.places.line(span)));
        }
        inside(self);
        self.path.pop();
    }
}

/// Where the lines of a text end.
struct Places {
    newlines: Vec<usize>,
}

impl Places {
    fn of(text: &str) -> Self {
        Places {
            newlines: text
                .bytes()
                .enumerate()
                .filter(|&(_, byte)| byte == b'\n')
                .map(|(at, _)| at)
                .collect(),
        }
    }

    /// The line (from 1) on which `span` begins.
    fn line(&self, span: Range<usize>) -> usize {
        self.newlines.partition_point(|&newline| newline < span.start) + 1
    }
}
