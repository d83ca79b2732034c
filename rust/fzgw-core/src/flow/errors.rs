//! The list of ICMP errors about a flow (R13): bounded, and its sums are exact.

use super::record::{IcmpErrors, MAX_ICMP_ERRORS};

/// What the last entry of a full list says, which stands for all further types and codes.
const OTHERS: (u8, u8) = (255, 255);

/// Counts an error.
pub(super) fn add(errors: &mut Vec<IcmpErrors>, kind: (u8, u8), bytes: u32) {
    // Once there is an entry for all others, no further kind gets one of its own: none is ever in two places.
    let place = match find(errors, kind).or(find(errors, OTHERS)) {
        Some(place) => place,
        None if errors.len() < MAX_ICMP_ERRORS => {
            errors.push(IcmpErrors {
                kind: kind.0,
                code: kind.1,
                packets: 0,
                bytes: 0,
            });
            errors.len() - 1
        }
        None => {
            let last = errors.len() - 1;
            (errors[last].kind, errors[last].code) = OTHERS;
            last
        }
    };
    errors[place].packets += 1;
    errors[place].bytes += u64::from(bytes);
}

/// Takes an error back.
pub(super) fn take(errors: &mut Vec<IcmpErrors>, kind: (u8, u8), bytes: u32) {
    let Some(place) = find(errors, kind).or(find(errors, OTHERS)) else {
        return;
    };
    let entry = &mut errors[place];
    entry.packets = entry.packets.saturating_sub(1);
    entry.bytes = entry.bytes.saturating_sub(bytes.into());
    if entry.packets == 0 {
        errors.remove(place);
    }
}

fn find(errors: &[IcmpErrors], kind: (u8, u8)) -> Option<usize> {
    errors.iter().position(|entry| (entry.kind, entry.code) == kind)
}
