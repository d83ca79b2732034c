//! What happened on a TCP connection, in Zeek's letters (R10).

/// A letter an event in the order in which they came, upper case from the initiator and lower case from the responder:
/// `S` SYN, `H` SYN-ACK, `A` a bare ACK, `D` payload, `F` FIN, `R` RST, `T` retransmission, `I` FIN with RST, `Q` SYN
/// with FIN or RST.
///
/// A letter stands once for each direction, but for `T`, which comes again with the 10th, 100th, … retransmission.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct History {
    len: u8,
    letters: [u8; History::CAPACITY],
}

impl History {
    /// More than there can be: 8 letters once and `T` ten times (a counter has ten digits), from both sides.
    const CAPACITY: usize = 39;

    /// Nothing happened yet.
    pub const EMPTY: History = History {
        len: 0,
        letters: [0; Self::CAPACITY],
    };

    /// The letters.
    pub fn as_str(&self) -> &str {
        // Only ASCII letters come in, so this always holds.
        std::str::from_utf8(&self.letters[..usize::from(self.len)]).unwrap_or_default()
    }

    /// Adds a letter given in upper case.
    pub(super) fn push(&mut self, letter: u8, from_initiator: bool) {
        let letter = if from_initiator {
            letter
        } else {
            letter.to_ascii_lowercase()
        };
        if let Some(place) = self.letters.get_mut(usize::from(self.len)) {
            *place = letter;
            self.len += 1;
        }
    }
}

/// Reads what [`History::as_str`] writes; for tests and tools. Letters past the capacity are left out.
impl From<&str> for History {
    fn from(letters: &str) -> Self {
        let mut history = History::EMPTY;
        for letter in letters.bytes().filter(u8::is_ascii_alphabetic) {
            history.push(letter.to_ascii_uppercase(), letter.is_ascii_uppercase());
        }
        history
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}
