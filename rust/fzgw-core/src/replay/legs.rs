//! A packet from peer to peer crosses the TUN device twice: out of one tunnel, and, one hop older, into the other.

/// Packets whose second leg is still to come, at most: those on their way through the kernel at one time are few.
const REMEMBERED: usize = 1024;

/// The first legs seen lately.
pub(super) struct Legs {
    /// At most one a place. Whoever makes packets collide hides second legs of their own capture, no more.
    seen: Vec<Option<Mark>>,
}

impl Legs {
    pub(super) fn new() -> Self {
        Self {
            seen: vec![None; REMEMBERED],
        }
    }

    /// Whether this is the second leg of a packet whose first was seen: the same packet with one hop less. If not, it is
    /// remembered as a first.
    pub(super) fn is_second(&mut self, mark: &Mark) -> bool {
        let place = &mut self.seen[mark.place()];
        let first = Mark {
            hops: mark.hops.wrapping_add(1),
            ..*mark
        };
        if *place == Some(first) {
            *place = None;
            return true;
        }
        *place = Some(*mark);
        false
    }
}

/// What tells a packet from others on both legs, and the hop limit, which a router lowers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    hops: u8,
    /// IPv4: length, identification and fragment offset. IPv6: traffic class, flow label and length.
    header: [u8; 6],
    /// The last byte of both addresses, and what follows the fixed header: ports and sequence number, mostly.
    above: [u8; 10],
}

impl Mark {
    /// The mark of an IP packet. What is not there is 0.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let (hops, header, src, dst, above) = match byte(0) >> 4 {
            4 => (8, 2, 15, 19, 20),
            _ => (7, 1, 23, 39, 40),
        };
        let mut mark = Mark {
            hops: byte(hops),
            header: std::array::from_fn(|at| byte(header + at)),
            above: [0; 10],
        };
        mark.above = std::array::from_fn(|at| match at {
            0 => byte(src),
            1 => byte(dst),
            _ => byte(above + at - 2),
        });
        mark
    }

    fn place(&self) -> usize {
        let sum = self.header.iter().chain(&self.above).fold(0usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(*byte))
        });
        sum % REMEMBERED
    }
}
