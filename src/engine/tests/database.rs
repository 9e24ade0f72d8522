//! A database that fails before, during and after what is asked of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use perene_policy::Outcome;

use crate::engine::testing::{Reply, World, days, renew, seconds};
use crate::engine::{RunError, RunKind, RunRequest};
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
