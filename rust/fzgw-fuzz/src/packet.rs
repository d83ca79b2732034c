//! Any bytes as a packet, of any length on the wire.

use fzgw_core::packet::{PacketInfo, Transport, Unreadable};

/// The first byte says how `wire_len` is made of the two behind it and of the packet's length, and how much a snaplen
/// leaves; the packet follows.
pub fn run(data: &[u8]) {
    let Some(([how, a, b], bytes)) = data.split_first_chunk() else {
        return;
    };
    let number = usize::from(u16::from_be_bytes([*a, *b]));
    let wire_len = match how & 3 {
        0 => bytes.len(),
        1 => bytes.len() + number,
        2 => number,
        _ => u32::MAX as usize - number,
    };
    let captured = PacketInfo::parse_captured(bytes, wire_len);
    if let Ok(info) = captured {
        check(&info, wire_len);
    }
    if let Ok(info) = PacketInfo::parse(bytes) {
        check(&info, bytes.len());
    }
    let whole = PacketInfo::parse_captured(bytes, bytes.len());
    assert_ne!(whole, Err(Unreadable::Cut), "nothing was cut off");
    if says_its_length(bytes) {
        let parsed = PacketInfo::parse(bytes).map_err(Unreadable::from);
        assert_eq!(whole, parsed, "a packet captured whole is the packet");
    }
    let kept = bytes.len() * usize::from(how >> 2) / 63;
    check_snaplen(bytes, wire_len.max(bytes.len()), kept);
}

fn check(info: &PacketInfo, wire_len: usize) {
    assert!(info.len as usize <= wire_len, "{info:?} of {wire_len} bytes");
    assert!(info.payload < info.len, "{info:?}");
    assert_eq!(info.src.is_ipv4(), info.dst.is_ipv4(), "{info:?}");
    let later = info.fragment.is_some_and(|fragment| !fragment.first);
    assert!(!later || info.transport == Transport::Fragment, "{info:?}");
}

/// A snaplen changes nothing but that less is known (R20): the packet is the same, or it is cut, or an ICMP error no
/// longer tells what it is about.
fn check_snaplen(bytes: &[u8], wire_len: usize, kept: usize) {
    let (Ok(whole), cut) = (
        PacketInfo::parse_captured(bytes, wire_len),
        PacketInfo::parse_captured(&bytes[..kept], wire_len),
    ) else {
        return;
    };
    match cut {
        Ok(mut cut) => {
            if let Transport::IcmpError {
                original: quoted @ None,
                ..
            } = &mut cut.transport
                && let Transport::IcmpError { original, .. } = whole.transport
            {
                *quoted = original;
            }
            assert_eq!(cut, whole, "{kept} of {} bytes", bytes.len());
        }
        Err(reason) => assert_eq!(reason, Unreadable::Cut, "{kept} of {} bytes of {whole:?}", bytes.len()),
    }
}

fn says_its_length(bytes: &[u8]) -> bool {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => bytes.get(2..4) != Some(&[0, 0]),
        Some(6) => bytes.get(4..6) != Some(&[0, 0]),
        Some(_) | None => true,
    }
}
