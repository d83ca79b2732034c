//! R18, R19: open, update and close records.

use super::super::record::Traffic;
use super::*;

fn sum(flows: &[FlowRecord]) -> Traffic {
    let mut sum = Traffic::default();
    for flow in flows {
        sum.out.join(flow.delta.out);
        sum.r#in.join(flow.delta.r#in);
    }
    sum
}

/// R18: a flow that is still open after five seconds is told of; a shorter one by its close record alone.
#[test]
fn r18_an_open_record_after_open_after() {
    let mut engine = Engine::new();
    engine.up(&udp(CLIENT, SERVER, b"x"));
    engine.at(4.9).tick();
    assert_eq!(engine.told(), []);
    engine.at(5.0).tick();
    let told = engine.told();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].activity, told[0].number, told[0].end_reason),
        (Activity::Open, 1, None)
    );
    assert_eq!((told[0].delta, told[0].total.out.packets), (told[0].total, 1));
    let close = engine.only();
    assert_eq!(
        (close.activity, close.number, close.delta),
        (Activity::Close, 2, Traffic::default())
    );

    let mut engine = Engine::new();
    engine.up(&udp(CLIENT, SERVER, b"x"));
    assert_eq!(
        engine
            .at(4.9)
            .tick()
            .shut_down()
            .iter()
            .map(|flow| flow.number)
            .collect::<Vec<_>>(),
        [1]
    );
}

/// R18: `open_after = 0` reports each flow at once.
#[test]
fn r18_at_once() {
    let mut engine = Engine::with(Limits {
        open_after: 0,
        ..Limits::default()
    });
    engine.up(&seg(SYN, b""));
    let told = engine.tick().told();
    assert_eq!(
        told.iter().map(|flow| flow.activity).collect::<Vec<_>>(),
        [Activity::Open]
    );
}

/// R18: a TCP flow that has ended gets no open record in its close delay.
#[test]
fn r18_what_has_ended_is_not_opened() {
    let mut engine = Engine::new();
    engine.at(4.0).up(&seg(SYN, b""));
    engine.at(8.9).down(&back(RST | ACK, b""));
    engine.at(9.5).tick();
    assert_eq!(engine.told(), []);
    assert_eq!(engine.only().number, 1);
}

/// R19, scenario 32: updates of a flow with traffic, whose deltas add up to the total.
#[test]
fn scenario_32_ten_hours_at_one_packet_a_second() {
    let mut engine = Engine::new();
    for second in 0..36_000 {
        engine.at(f64::from(second)).tick().up(&udp(CLIENT, SERVER, b"x"));
        if second % 3 == 0 {
            engine.down(&udp(SERVER, CLIENT, b"yy"));
        }
    }
    let mut told = engine.told();
    told.extend(engine.shut_down());
    assert_eq!(
        told.len(),
        1 + 600 + 1,
        "an open record, one update a minute, a close record"
    );
    assert!(told.iter().zip(1..).all(|(flow, number)| flow.number == number));
    let last = told.last().unwrap();
    assert_eq!((last.total.out.packets, last.total.r#in.packets), (36_000, 12_000));
    assert_eq!(sum(&told), last.total);
}

/// R19: silence gives no update.
#[test]
fn r19_no_update_in_silence() {
    let mut engine = Engine::new();
    engine.up(&seg(SYN, b""));
    engine.down(&back(SYN | ACK, b""));
    engine.up(&seg(ACK, b""));
    for second in 0..1000 {
        engine.at(f64::from(second)).tick();
    }
    assert_eq!(
        engine.told().iter().map(|flow| flow.activity).collect::<Vec<_>>(),
        [Activity::Open]
    );
    engine.up(&seg(ACK, b"x"));
    engine.at(1060.0).tick();
    let told = engine.told();
    assert_eq!(
        told.iter()
            .map(|flow| (flow.activity, flow.delta.out.packets))
            .collect::<Vec<_>>(),
        [(Activity::Update, 1)]
    );
}

/// R19: flows that began together do not report together.
#[test]
fn r19_updates_are_staggered() {
    let mut engine = Engine::new();
    let tuples: Vec<String> = (0..60).map(|n| format!("100.64.0.2:{}", 1000 + n)).collect();
    let mut moments = std::collections::HashMap::<u32, usize>::new();
    for second in 0..126 {
        engine.at(f64::from(second)).tick();
        for flow in engine.told() {
            if flow.activity == Activity::Update {
                *moments.entry(second).or_default() += 1;
            }
        }
        for tuple in &tuples {
            engine.up(&udp(tuple, SERVER, b"x"));
        }
    }
    assert_eq!(moments.values().sum::<usize>(), 120, "two minutes, 60 flows");
    assert!(moments.values().all(|flows| *flows <= 8), "{moments:?}");
}

/// R19, R23: denied flows report their attempts, which add up as well.
#[test]
fn r19_denied_flows_report_attempts() {
    let mut engine = Engine::new();
    for second in 0..200 {
        engine.at(f64::from(second)).tick().deny(&seg(SYN, b""));
    }
    let mut told = engine.told();
    told.extend(engine.shut_down());
    assert!(told.len() >= 4);
    let attempts: u64 = told.iter().map(|flow| flow.attempts_delta.packets).sum();
    assert_eq!((attempts, told.last().unwrap().attempts.packets), (200, 200));
}

/// R21: counts that are taken back are in no record that has not left yet.
#[test]
fn r21_records_made_meanwhile_are_put_right() {
    let mut engine = Engine::new();
    engine.up(&udp(CLIENT, SERVER, b"x"));
    let counted = engine.at(4.0).up(&udp(CLIENT, SERVER, b"not written"));
    engine.at(5.0).tick();
    engine.table.take_back(counted);
    engine.at(6.0).up(&udp(CLIENT, SERVER, b"x"));
    let told = [engine.told(), engine.shut_down()].concat();
    assert_eq!(
        told.iter().map(|flow| flow.delta.out.packets).collect::<Vec<_>>(),
        [1, 1]
    );
    assert_eq!(sum(&told), told[1].total);
}
