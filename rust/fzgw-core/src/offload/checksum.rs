//! The Internet checksum (RFC 1071): of whole packets, and what it takes to keep it when a header changes.

use super::VnetHeader;

/// The sum of 16-bit words in the machine's order, not folded. The last byte of an odd length counts as if a zero
/// followed.
#[inline]
fn sum(bytes: &[u8]) -> u64 {
    // Four lanes of 32 bits: additions do not wait for each other, and carries gather in the upper halves.
    let mut lanes = [0u64; 4];
    let mut blocks = bytes.chunks_exact(16);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let mut words = blocks.remainder().chunks_exact(2);
    for word in &mut words {
        total += u64::from(u16::from_ne_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    total
}

/// A sum folded to 16 bits, in network order.
fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::from_be_bytes((sum as u16).to_ne_bytes())
}

/// The folded sum of `bytes`, in network order, not complemented.
pub fn folded(bytes: &[u8]) -> u16 {
    fold(sum(bytes))
}

/// Ones' complement addition.
pub fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// The header checksum of an IPv4 header whose checksum field is 0.
pub fn ipv4_header(header: &[u8]) -> u16 {
    !folded(header)
}

/// The sum of the pseudo-header of an IP packet without extension headers: addresses, protocol and transport length.
pub fn pseudo_header(packet: &[u8], protocol: u8, transport_len: usize) -> u16 {
    let addresses = if packet[0] >> 4 == 4 {
        &packet[12..20]
    } else {
        &packet[8..40]
    };
    let sum = add(folded(addresses), u16::from(protocol));
    // An IPv6 length beyond 16 bits would be a jumbogram, which nobody sends here.
    add(sum, transport_len as u16)
}

/// Completes the checksum of a packet that holds its pseudo-header's sum so far. `None`: the header is wrong about it.
pub fn complete(header: VnetHeader, packet: &mut [u8]) -> Option<()> {
    let start = usize::from(header.checksum_start);
    let at = start + usize::from(header.checksum_offset);
    if start >= packet.len() || at + 2 > packet.len() {
        return None;
    }
    // The field is part of what is summed: it holds the pseudo-header's sum.
    let complete = !folded(&packet[start..]);
    put(packet, at, if complete == 0 { 0xffff } else { complete });
    Some(())
}

pub(crate) fn put(packet: &mut [u8], at: usize, value: u16) {
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn get(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Whether a packet without extension headers has the checksums that it should.
#[cfg(test)]
pub(crate) fn segment_checksums_are_right(packet: &[u8], ip_header: usize) -> bool {
    let protocol = if packet[0] >> 4 == 4 { packet[9] } else { packet[6] };
    let transport = &packet[ip_header..];
    let whole = add(pseudo_header(packet, protocol, transport.len()), folded(transport));
    whole == 0xffff && (packet[0] >> 4 != 4 || folded(&packet[..ip_header]) == 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, section 3.
    #[test]
    fn the_example_of_the_standard() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(folded(&bytes), 0xddf2);
    }

    #[test]
    fn any_length_and_place_is_summed_as_word_by_word() {
        let bytes: Vec<u8> = (0..200u32).map(|n| (n * 151 + 17) as u8).collect();
        for from in 0..17 {
            for to in from..bytes.len() {
                let slice = &bytes[from..to];
                let mut plain = 0u16;
                for word in slice.chunks(2) {
                    plain = add(plain, u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
                }
                let fast = folded(slice);
                // Both are 0 in ones' complement.
                assert!(fast == plain || (fast == 0xffff && plain == 0), "{from}..{to}");
            }
        }
    }
}
