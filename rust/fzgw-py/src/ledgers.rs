//! Ledgers L1 and L2 as dictionaries, the same for a gateway and for captures.

use fzgw_core::flow::{FlowLedger, Side, Tally, Untracked};
use fzgw_core::stats::{Drop, SideStats, Stats};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// L1 in packets, by side.
pub(crate) fn packets<'py>(py: Python<'py>, stats: &Stats) -> PyResult<Bound<'py, PyDict>> {
    both_sides(py, stats, |tally| tally.packets)
}

/// L1 in IP bytes, by side.
pub(crate) fn bytes<'py>(py: Python<'py>, stats: &Stats) -> PyResult<Bound<'py, PyDict>> {
    both_sides(py, stats, |tally| tally.bytes)
}

/// L2: by side, each term as (packets, bytes).
pub(crate) fn flows<'py>(py: Python<'py>, ledger: &FlowLedger) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    for side in Side::BOTH {
        let counted = &ledger.sides[side as usize];
        let of_side = PyDict::new(py);
        of_side.set_item("forwarded", pair(counted.forwarded))?;
        of_side.set_item("ended", pair(counted.ended))?;
        of_side.set_item("live", pair(counted.live))?;
        of_side.set_item("icmp_errors", pair(counted.icmp_errors))?;
        of_side.set_item("pending_fragments", pair(counted.pending_fragments))?;
        let untracked = PyDict::new(py);
        for reason in Untracked::ALL {
            untracked.set_item(reason.as_str(), pair(counted.untracked[reason as usize]))?;
        }
        of_side.set_item("untracked", untracked)?;
        all.set_item(side.as_str(), of_side)?;
    }
    all.set_item("live", ledger.live_flows)?;
    all.set_item("opened", ledger.opened_flows)?;
    Ok(all)
}

/// L2b, in packets.
pub(crate) fn denied<'py>(py: Python<'py>, stats: &Stats, ledger: &FlowLedger) -> PyResult<Bound<'py, PyDict>> {
    let denied = PyDict::new(py);
    let dropped = stats
        .sides
        .iter()
        .map(|side| side.dropped[Drop::Denied as usize].packets);
    denied.set_item("dropped", dropped.sum::<u64>())?;
    denied.set_item("attempts", ledger.attempts.packets)?;
    denied.set_item("without_flow", stats.denied_untracked)?;
    Ok(denied)
}

fn both_sides<'py>(py: Python<'py>, stats: &Stats, unit: impl Fn(&Tally) -> u64) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    for side in Side::BOTH {
        all.set_item(side.as_str(), one_side(py, &stats.sides[side as usize], &unit)?)?;
    }
    Ok(all)
}

fn one_side<'py>(py: Python<'py>, side: &SideStats, unit: impl Fn(&Tally) -> u64) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    all.set_item("received", unit(&side.received))?;
    all.set_item("forwarded", unit(&side.forwarded))?;
    all.set_item("waiting", unit(&side.waiting))?;
    let dropped = PyDict::new(py);
    for reason in Drop::ALL {
        dropped.set_item(reason.as_str(), unit(&side.dropped[*reason as usize]))?;
    }
    all.set_item("dropped", dropped)?;
    Ok(all)
}

fn pair(tally: Tally) -> (u64, u64) {
    (tally.packets, tally.bytes)
}
