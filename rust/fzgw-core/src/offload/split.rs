//! A super-packet cut into the packets that travel.

use bytes::BytesMut;

use super::checksum::{add, folded, get, ipv4_header, put};
use super::{Kind, Segmentation};
use crate::packet::IPV6_HEADER;

/// TCP flags that the last segment alone has: FIN and PSH.
const LAST_ONLY: u8 = 0x01 | 0x08;
/// The TCP flag that the first segment alone has: CWR.
const FIRST_ONLY: u8 = 0x80;

/// Appends segment `index` of a super-packet to `out`.
///
/// `packet` and `how` are what [`super::arrived`] made of a read, so that every offset is within the packet.
pub fn segment(packet: &[u8], how: &Segmentation, index: usize, out: &mut BytesMut) {
    let (ip_header, headers, size) = (
        usize::from(how.ip_header),
        usize::from(how.headers),
        usize::from(how.size),
    );
    let from = headers + index * size;
    let payload = &packet[from..packet.len().min(from + size)];
    let last = from + payload.len() == packet.len();
    let start = out.len();
    out.extend_from_slice(&packet[..headers]);
    out.extend_from_slice(payload);
    let out = &mut out[start..];
    let len = out.len();
    let whole_transport = packet.len() - ip_header;
    let transport_len = len - ip_header;

    if out[0] >> 4 == 4 {
        put(out, 2, len as u16);
        put(out, 4, get(packet, 4).wrapping_add(index as u16));
        put(out, 10, 0);
        let sum = ipv4_header(&out[..ip_header]);
        put(out, 10, sum);
    } else {
        put(out, 4, (len - IPV6_HEADER) as u16);
    }

    let transport = &mut out[ip_header..];
    let checksum_at = match how.kind {
        Kind::Tcp => {
            let sequence = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
            let sequence = sequence.wrapping_add((index * size) as u32);
            transport[4..8].copy_from_slice(&sequence.to_be_bytes());
            if !last {
                transport[13] &= !LAST_ONLY;
            }
            if index > 0 {
                transport[13] &= !FIRST_ONLY;
            }
            16
        }
        Kind::Udp => {
            put(transport, 4, transport_len as u16);
            6
        }
    };
    // The field holds the sum of the pseudo-header with the length of the whole.
    let pseudo = get(transport, checksum_at);
    let pseudo = add(add(pseudo, !(whole_transport as u16)), transport_len as u16);
    put(transport, checksum_at, 0);
    let sum = !add(pseudo, folded(transport));
    // A UDP checksum of 0 would say that there is none.
    put(
        transport,
        checksum_at,
        if sum == 0 && how.kind == Kind::Udp { 0xffff } else { sum },
    );
}

/// The length of segment `index` of a super-packet of `len` bytes.
pub fn segment_len(len: usize, how: &Segmentation, index: usize) -> usize {
    let (headers, size) = (usize::from(how.headers), usize::from(how.size));
    headers + (len - headers - index * size).min(size)
}
