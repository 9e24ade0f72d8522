//! A database that fails before, during and after what is asked of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jiff::SignedDuration;
use perene_policy::Outcome;

use futures_util::future::join;

use crate::clock::Clock;
use crate::engine::testing::{Reply, World, days, renew, seconds};
use crate::engine::{RunError, RunKind, RunRequest, Stop, StopSource};
use crate::journal::Journal;
use crate::store::faulty::{Condition, Fault, FaultyStore};
use crate::store::{Finding, FindingKind};

#[test]
fn a_commit_that_fails_is_tried_again_without_another_call() {
    for fault in [Fault::Before, Fault::After] {
        let world = World::new();
        world.fleet(20, "IG");
        let plan = move |call: &str, count| if call == "commit" && count <= 3 { fault } else { Fault::None };
        let engine = world.engine_on(FaultyStore::new(world.store.clone(), plan));
        let report = world.night(&engine);
        assert_eq!((report.due, report.refreshed, report.superseded), (20, 20, 0), "{fault:?}");
        assert_eq!(world.script.calls().len(), 20);
        assert!((1..=20).all(|id| world.token(id) == format!("IG-{id}+")));
        assert_eq!(world.store.writes(0), (20, 0), "each row is written once");
    }
}

#[test]
fn a_failure_whose_commit_was_not_answered_counts_once() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(1)));
    world.script.answer(|_| Reply::dead());
    let plan = |call: &str, count| if call == "commit" && count == 1 { Fault::After } else { Fault::None };
    let engine = world.engine_on(FaultyStore::new(world.store.clone(), plan));
    let report = world.night(&engine);
    assert_eq!((report.failed, report.warned, world.attempts(1)), (1, 1, 1));
    assert_eq!(world.outbox().len(), 2, "one over each channel");
}

#[test]
fn a_right_that_is_taken_away_in_the_middle_ends_the_run_and_is_not_asked_for_over_and_over() {
    for refused in ["save_app", "extend", "commit"] {
        let world = World::new();
        world.fleet(20, "IG");
        world.insert(21, "IG-two words", Some(days(1)));
        world.script.answer(|_| Reply::dead().after(seconds(8)));
        let asked = Arc::new(AtomicU64::new(0));
        let noted = Arc::clone(&asked);
        let faulty = FaultyStore::new(world.store.clone(), move |call: &str, count| {
            if call != refused {
                return Fault::None;
            }
            noted.store(count, Ordering::Relaxed);
            assert!(count < 1_000, "{refused} is asked for over and over");
            Fault::Refused
        });
        let ended = world.try_run(&world.engine_on(faulty), &RunRequest::all(RunKind::Scheduled));
        assert!(ended.is_err(), "{refused}");
        let times = asked.load(Ordering::Relaxed);
        assert!((1..10).contains(&times), "{refused}: {times} times");
    }
}

#[test]
fn a_database_that_stays_away_ends_the_run_with_an_error_and_what_was_answered_is_stored_later() {
    let world = World::new();
    world.fleet(20, "IG");
    let faulty = FaultyStore::new(
        world.store.clone(),
        |call: &str, _| {
            if call == "commit" { Fault::Before } else { Fault::None }
        },
    );
    let engine = world.engine_on(faulty);
    let error = world.try_run(&engine, &RunRequest::all(RunKind::Scheduled)).expect_err("nothing can be written");
    assert!(matches!(error, RunError::Store(error) if error.may_pass()));
    assert_eq!(world.script.drain(), 20);
    assert!(world.store.runs().iter().all(|run| run.finished_at.is_none()), "it is made again");
    world.clock.advance(seconds(60));
    assert_eq!(world.night(&world.engine()).due, 0, "the journal had all of them");
    assert_eq!(world.script.drain(), 0, "nobody is asked twice");
    assert!((1..=20).all(|id| world.token(id) == format!("IG-{id}+") && world.attempts(id) == 0));
    assert!(world.journal.pending().is_empty());
}

#[test]
fn a_database_that_cannot_be_written_is_found_before_the_first_call() {
    for condition in [Condition::Unreachable, Condition::ReadOnly] {
        let world = World::new();
        world.fleet(20, "IG");
        let faulty = FaultyStore::new(world.store.clone(), |_: &str, _| Fault::None);
        faulty.set(condition);
        world.try_run(&world.engine_on(faulty), &RunRequest::all(RunKind::Scheduled)).expect_err("it cannot be");
        assert_eq!(world.script.calls().len(), 0, "{condition:?}");
    }
}

/// A run over 700 rows during which the database is in this condition from the fifth second to the `until`th.
/// Returns how many calls were begun meanwhile.
fn trouble_during_a_run(world: &mut World, condition: Condition, until: u64) -> usize {
    world.concurrency = 8;
    world.fleet(700, "IG");
    world.script.answer(|asked| renew(asked).after(seconds(2)));
    let faulty = FaultyStore::new(world.store.clone(), |_: &str, _| Fault::None);
    let engine = world.engine_on(faulty.clone());
    let weather = async {
        world.clock.sleep(seconds(5)).await;
        faulty.set(condition);
        // The first write after that is what shows it: the leases are prolonged every five seconds.
        world.clock.sleep(seconds(5)).await;
        let before = world.script.calls().len();
        world.clock.sleep(seconds(until - 10)).await;
        let meanwhile = world.script.calls().len() - before;
        faulty.set(Condition::Well);
        meanwhile
    };
    let request = RunRequest::all(RunKind::Scheduled);
    let stop = Stop::never();
    let (report, meanwhile) = world.clock.run(join(engine.run(&request, &stop, &|_| {}), weather));
    let report = report.expect("the run outlives it");
    assert_eq!((report.due, report.refreshed, report.superseded), (700, 700, 0));
    meanwhile
}

#[test]
fn while_the_database_is_away_no_call_is_begun_and_afterwards_none_is_repeated() {
    for condition in [Condition::Unreachable, Condition::ReadOnly] {
        // Longer than a lease: what was answered is written all the same, for nobody else has taken it over.
        for until in [30, 120] {
            let mut world = World::new();
            assert_eq!(trouble_during_a_run(&mut world, condition, until), 0, "{condition:?} until {until} s");
            let mut tokens = world.script.tokens();
            assert_eq!(tokens.len(), 700, "{condition:?} until {until} s");
            tokens.sort_unstable();
            tokens.dedup();
            assert_eq!(tokens.len(), 700);
            assert!(world.store.leases().is_empty());
        }
    }
}

#[test]
fn a_claim_that_fails_drops_no_call_that_is_in_flight() {
    let world = World::new();
    world.fleet(1200, "IG");
    world.script.answer(|asked| renew(asked).after(seconds(1)));
    let plan = |call: &str, count| if call == "claim" && count == 2 { Fault::Before } else { Fault::None };
    let report = world.night(&world.engine_on(FaultyStore::new(world.store.clone(), plan)));
    assert_eq!((report.due, report.refreshed), (1200, 1200));
    assert_eq!(world.script.drain(), 1200);
}

#[test]
fn a_claim_that_is_refused_for_good_ends_the_run_when_all_in_flight_is_written() {
    let world = World::new();
    world.fleet(1200, "IG");
    world.script.answer(|asked| renew(asked).after(seconds(1)));
    let plan = |call: &str, count| if call == "claim" && count > 1 { Fault::Refused } else { Fault::None };
    let engine = world.engine_on(FaultyStore::new(world.store.clone(), plan));
    world.try_run(&engine, &RunRequest::all(RunKind::Scheduled)).expect_err("a right is missing");
    let sent = world.script.tokens();
    assert!(!sent.is_empty() && sent.len() < 1200);
    let stored = (1..=1200).filter(|id| world.token(id).ends_with('+')).count();
    assert_eq!(stored, sent.len(), "every answer is in its row");
    assert!(world.store.leases().is_empty());
}

#[test]
fn a_stop_while_the_database_is_away_waits_for_it_and_leaves_nothing_leased() {
    let mut world = World::new();
    world.concurrency = 8;
    world.fleet(100, "IG");
    world.script.answer(|asked| renew(asked).after(seconds(4)));
    let faulty = FaultyStore::new(world.store.clone(), |_: &str, _| Fault::None);
    let engine = world.engine_on(faulty.clone());
    let (source, stop) = StopSource::new();
    let begun = world.now();
    let weather = async {
        world.clock.sleep(seconds(2)).await;
        faulty.set(Condition::Unreachable);
        source.stop();
        world.clock.sleep(seconds(15)).await;
        assert_eq!(world.store.leases().len(), 100);
        faulty.set(Condition::Well);
    };
    world.clock.run(join(engine.serve(stop), weather)).0.expect("serves");
    assert!(world.now().duration_since(begun).as_secs() <= 22);
    assert!(world.store.leases().is_empty());
    assert_eq!(world.script.drain(), 8);
    assert_eq!((1..=100).filter(|id| world.token(id).ends_with('+')).count(), 8, "what was answered is written");
}

#[test]
fn a_stop_ends_within_thirty_seconds_whatever_hangs() {
    for (is_away, answer_after) in [(false, 28), (false, 1000), (true, 28), (true, 1000)] {
        let world = World::new();
        world.fleet(1, "IG");
        world.script.answer(move |asked| renew(asked).after(seconds(answer_after)));
        let faulty = FaultyStore::new(world.store.clone(), |_: &str, _| Fault::None);
        let engine = world.engine_on(faulty.clone());
        let (source, stop) = StopSource::new();
        let begun = world.now();
        let weather = async {
            world.clock.sleep(seconds(0)).await;
            if is_away {
                faulty.set(Condition::Unreachable);
            }
            source.stop();
        };
        world.clock.run(join(engine.serve(stop), weather)).0.expect("serves");
        let took = world.now().duration_since(begun).as_millis();
        assert!(took <= 30_000, "{is_away} {answer_after}: {took} ms");
        assert_eq!(world.store.leases().is_empty(), !is_away);
        assert_eq!(world.token(1) == "IG-1+", !is_away && answer_after == 28);
    }
}

#[test]
fn what_is_missing_is_found_before_the_first_call() {
    for (kind, is_wrong_use) in
        [(FindingKind::Missing, false), (FindingKind::Rights, false), (FindingKind::BadType, true)]
    {
        let world = World::new();
        world.fleet(3, "IG");
        world.store.pretend(vec![Finding { kind, text: "column `x` is missing".to_owned() }]);
        let error = world.try_run(&world.engine(), &RunRequest::all(RunKind::ByHand)).expect_err("not ready");
        assert_eq!(matches!(error, RunError::WrongUse(_)), is_wrong_use);
        assert_eq!(error.to_string(), "column `x` is missing");
        assert_eq!(world.script.calls().len(), 0);
    }
    let world = World::new();
    world.fleet(3, "IG");
    world.store.pretend(vec![Finding { kind: FindingKind::Advice, text: "an index would help".to_owned() }]);
    assert_eq!(world.night(&world.engine()).refreshed, 3);
}

#[test]
fn a_row_that_the_database_refuses_to_write_is_a_failure_and_stops_nobody() {
    let world = World::new();
    world.fleet(5, "IG");
    world.store.refuse_row(0, "3", Some("value too long for type character varying(20)"));
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.refreshed, report.failed), (5, 4, 1));
    assert_eq!(report.outcomes.get(&Outcome::Unrecognised), Some(&1));
    assert_eq!(world.script.calls().len(), 5);
    assert!(world.store.leases().is_empty());
}

#[test]
fn a_table_that_takes_nothing_stops_the_calls_and_is_taken_up_when_it_is_mended() {
    let mut world = World::new();
    world.concurrency = 8;
    world.fleet(700, "IG");
    world.script.answer(|asked| renew(asked).after(seconds(1)));
    (1..=700).for_each(|id: i64| world.store.refuse_row(0, &id.to_string(), Some("permission denied for table")));
    let engine = world.engine();
    world.serve(&engine, seconds(30));
    let calls = world.script.drain();
    assert!((10..60).contains(&calls), "{calls} calls");
    assert_eq!(world.alarms(), ["rows_refused"]);
    assert!((1..=700).all(|id| world.attempts(id) == 0 && !world.flag(id)));
    assert!(world.store.leases().is_empty());

    world.serve(&engine, seconds(3_600));
    let calls = world.script.drain();
    assert!(calls <= 10, "what was answered is tried again, ever more rarely: {calls} calls");
    let lines: usize = (1..=700).map(|id: i64| world.store.story(0, &id.to_string()).len()).sum();
    assert!(lines < 400, "{lines} lines of history");

    (1..=700).for_each(|id: i64| world.store.refuse_row(0, &id.to_string(), None));
    world.serve(&engine, seconds(2 * 3_600));
    assert!((1..=700).all(|id| world.token(id).ends_with('+')));
    assert_eq!(world.alarms(), [""; 0]);
    assert!(world.journal.pending().is_empty());
}

#[test]
fn a_table_that_is_mended_is_found_out_by_one_row_where_nothing_is_kept() {
    let mut world = World::new();
    (world.concurrency, world.has_journal) = (8, false);
    world.fleet(60, "IG");
    let refuse = |message: Option<&str>| {
        (1..=60).for_each(|id: i64| world.store.refuse_row(0, &id.to_string(), message));
    };
    refuse(Some("permission denied for column access_token"));
    let engine = world.engine();
    world.serve(&engine, seconds(3_600));
    let calls = world.script.drain();
    assert!(calls <= 40, "some at first, then one now and then: {calls} calls");
    refuse(None);
    // The first row is bad for ever: the table is tried with the next one.
    world.store.refuse_row(0, "1", Some("value too long for type character varying(20)"));
    world.serve(&engine, seconds(3 * 3_600));
    assert!((2..=60).all(|id| world.token(id).ends_with('+')));
    assert_eq!(world.alarms(), [""; 0]);
}

#[test]
fn one_row_that_is_refused_again_and_again_closes_no_table() {
    let mut world = World::new();
    world.has_journal = false;
    world.insert(1, "IG-1", Some(SignedDuration::from_hours(20)));
    world.store.refuse_row(0, "1", Some("duplicate key value violates unique constraint"));
    let engine = world.engine();
    world.serve_hourly(&engine, 19);
    world.insert(2, "IG-2", Some(days(3)));
    assert_eq!(world.night(&engine).refreshed, 1);
    assert_eq!(world.alarms(), [""; 0]);
}

#[test]
fn a_row_that_takes_the_failure_but_not_the_token_is_counted() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(2)));
    world.store.refuse_row(0, "1", Some("value too long for type character varying(20)"));
    let store = world.store.clone();
    // The second commit, which writes the failure only, is taken.
    let plan = move |call: &str, count| {
        if call == "commit" && count == 2 {
            store.refuse_row(0, "1", None);
        }
        Fault::None
    };
    let report = world.night(&world.engine_on(FaultyStore::new(world.store.clone(), plan)));
    assert_eq!((report.due, report.failed, world.attempts(1)), (1, 1, 1));
    assert!(world.row(1).error.expect("a reason").contains("refused to store it"));
    assert!(world.flag(1), "less than three days are left");
}

#[test]
fn a_call_that_panics_is_that_rows_failure_and_the_run_goes_on() {
    let world = World::new();
    world.fleet(200, "IG");
    world.script.answer(|asked| if asked.token == "IG-7" { Reply::panic() } else { renew(asked) });
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.refreshed, report.failed), (200, 199, 1));
    assert_eq!(world.attempts(7), 1);
}

#[test]
fn what_another_replica_knows_of_an_app_is_not_overwritten() {
    let world = World::new();
    world.fleet(300, "IG");
    world.script.answer(|_| Reply::limited());
    // Every save of this replica comes second to another's.
    let store = world.store.clone();
    let is_open = Arc::new(AtomicBool::new(true));
    let plan = move |call: &str, _| {
        if call == "save_app" && is_open.swap(false, Ordering::SeqCst) {
            let app = perene_policy::app::App::new(perene_policy::Fingerprint::of("secret"));
            let store = store.clone();
            futures_util::FutureExt::now_or_never(async move {
                crate::store::Store::save_app(&store, "instagram", None, &app).await
            })
            .expect("it is done at once")
            .expect("saves");
        }
        Fault::None
    };
    let report = world.night(&world.engine_on(FaultyStore::new(world.store.clone(), plan)));
    assert_eq!(report.deferred, 300);
    let (name, app) = world.store.apps().remove(0);
    assert_eq!(name, "instagram");
    assert!(app.limit.is_some(), "what was learnt is saved on top");
}
