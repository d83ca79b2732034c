//! The real table and its slow model, given the same random packets, times and limits, make the same records and books.
//!
//! [`action`] says what can happen, [`strategy`] makes it up, and [`check`] does it to both and compares. A case that
//! fails is made small and printed as what happened, packet by packet.
//!
//! The same cases run every time, so that a failure is the change's own. `FZGW_PROPERTY_CASES` sets how many there are,
//! `FZGW_PROPERTY_SEED` which ones: a number, or `random`. A case that was found to fail belongs into the scenarios or
//! here as a test of its own, in the words of [`action`]: a file of seeds would mean something else after each change of
//! the strategies.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use action::Case;
use check::{Reached, check};

mod action;
mod check;
mod strategy;

/// Small enough for everybody's every run.
const CASES: u32 = 1000;

/// What so many cases come to between them: a test that reaches less compares nothing where it looks.
#[rustfmt::skip]
const GOALS: &[&str] = &[
    "open", "update", "close", "outbound", "inbound", "unknown",
    "fin", "rst", "idle", "icmp_unreachable", "reused", "evicted", "peer_removed", "shutdown", "capture_end",
    "S0", "S1", "SF", "REJ", "S2", "S3", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR", "OTH",
    "stray", "icmp_error", "fragment",
    "denied", "joined_by_host", "joined_by_rule", "further_icmp_errors", "further_paths", "several_updates", "mid_stream",
    "super_packet",
    "retransmissions", "ten_retransmissions", "fin_with_rst", "syn_with_fin_or_rst", "syn_to_syn_ack", "syn_ack_to_ack",
];

/// R1, R3, R6 to R20, R21's taking back, R23, R24, R26, R27, L2, L2b: every record and every ledger is what the rules say.
#[test]
fn the_table_agrees_with_its_model() {
    let cases = setting("FZGW_PROPERTY_CASES").unwrap_or(CASES);
    let mut runner = TestRunner::new(Config {
        cases,
        rng_seed: setting("FZGW_PROPERTY_SEED").unwrap_or(RngSeed::Fixed(1)),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    });
    let reached = RefCell::new(Reached::new());
    let outcome = runner.run(&strategy::case(), |case| {
        let came_to = check(&case, None).map_err(TestCaseError::fail)?;
        reached.borrow_mut().extend(came_to);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(_, case)) => panic!("{}", story(&smaller(case))),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let missed: Vec<_> = GOALS.iter().filter(|goal| !reached.borrow().contains(*goal)).collect();
    assert!(cases < CASES || missed.is_empty(), "no case came to {missed:?}");
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}")))
}

/// What is wrong with a case, if anything is.
fn fault(case: &Case, trace: Option<&mut String>) -> Option<String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| check(case, trace)));
    outcome.unwrap_or_else(|_| Err("a panic, told of above".into())).err()
}

/// The case without the actions that it fails without, too: what was made up together was left out together so far.
fn smaller(mut case: Case) -> Case {
    let mut place = case.actions.len();
    while place > 0 {
        place -= 1;
        let action = case.actions.remove(place);
        if fault(&case, None).is_none() {
            case.actions.insert(place, action);
        }
    }
    case
}

/// What happened, in lines that a human can read.
fn story(case: &Case) -> String {
    let mut trace = String::new();
    let reason = fault(case, Some(&mut trace)).unwrap_or_default();
    let actions: Vec<String> = case.actions.iter().map(|action| format!("{action:?},\n")).collect();
    let Case {
        limits,
        purpose,
        configured_peers,
        ..
    } = case;
    let actions = actions.concat();
    format!("{reason}\n\n{limits:#?}\n{purpose:?}, {configured_peers} peers\n\n{trace}\nThe actions:\n{actions}")
}
