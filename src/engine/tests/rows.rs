//! Which rows are sent (contract, section 3), and what the operator may ask for.

use futures_util::future::join;
use perene_policy::{Endpoint, Outcome, Secret};

use crate::engine::testing::{Reply, World, days, hours, renew, seconds};
use crate::engine::{Report, RunKind, RunRequest, Stop};
use crate::store::memory::AppRow;

fn by_hand(world: &World, ids: &[&str], force: bool) -> Report {
    let ids = ids.iter().map(|id| (0, (*id).to_owned())).collect();
    let request = RunRequest { ids, force, ..RunRequest::all(RunKind::ByHand) };
    world.try_run(&world.engine(), &request).expect("runs")
}

fn endpoints(world: &World) -> Vec<Endpoint> {
    world.script.calls().into_iter().map(|asked| asked.endpoint).collect()
}

#[test]
fn a_facebook_token_without_a_date_is_inspected_and_not_counted() {
    let world = World::new();
    world.insert(1, "EAA-1", None);
    let expires_at = world.now() + days(30);
    world.script.answer(move |_| Reply::valid(expires_at));
    let report = world.night(&world.engine());
    assert_eq!(endpoints(&world), [Endpoint::DebugToken]);
    assert_eq!(report.due, 0);
    assert_eq!((world.row(1).expires_at, world.token(1).as_str()), (Some(expires_at), "EAA-1"));
}

#[test]
fn one_whose_date_is_found_inside_the_window_is_sent_in_the_same_run() {
    let world = World::new();
    world.insert(1, "EAA-1", None);
    let expires_at = world.now() + days(3);
    world.script.answer(move |asked| match asked.endpoint {
        Endpoint::DebugToken => Reply::valid(expires_at),
        _ => renew(asked),
    });
    let report = world.night(&world.engine());
    assert_eq!(endpoints(&world), [Endpoint::DebugToken, Endpoint::Exchange]);
    assert_eq!((report.due, report.refreshed), (1, 1));
    assert_eq!(world.row(1).expires_at, Some(world.now() + days(60)));
}

#[test]
fn instagram_and_threads_without_a_date_are_refreshed_straight_away() {
    let world = World::new();
    world.insert(1, "IG-1", None);
    world.insert(2, "TH-2", None);
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.refreshed), (2, 2));
    assert_eq!(endpoints(&world), [Endpoint::IgRefresh, Endpoint::ThRefresh]);
}

#[test]
fn a_token_that_never_expires_is_not_asked_again_daily() {
    let world = World::new();
    world.insert(1, "EAA-1", None);
    world.script.answer(|_| Reply::json(200, r#"{"data":{"is_valid":true,"app_id":"1","expires_at":0}}"#));
    let engine = world.engine();
    for calls in [1, 0, 0] {
        let report = world.night(&engine);
        assert_eq!((world.script.drain(), report.due), (calls, 0));
        world.next_night();
    }
    assert_eq!(world.row(1).expires_at, None);
}

#[test]
fn a_row_that_cannot_be_sent_says_why_and_the_others_go_on() {
    let world = World::new();
    world.fleet(3, "IG");
    for (id, token) in
        [("10", "IG\0nul".to_owned()), ("11", format!("IG{}", "x".repeat(16 * 1024))), ("12", "IG 12".to_owned())]
    {
        let expires_at = Some(world.now() + days(6));
        world
            .store
            .insert_connection(0, AppRow { token: Some(Secret::new(token)), ..AppRow::new(id, "1", "", expires_at) });
    }
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.refreshed, report.failed), (6, 3, 3));
    assert_eq!(report.outcomes.get(&Outcome::Unrecognised), Some(&3));
    assert_eq!(world.script.calls().len(), 3);
    for (id, why) in [(10, "NUL"), (11, "16 KiB"), (12, "blanks")] {
        assert!(world.row(id).error.expect("a reason").contains(why), "{id}");
        assert_eq!(world.attempts(id), 1);
    }
}

#[test]
fn an_expired_token_is_not_sent_with_force_but_with_force_and_its_name() {
    let world = World::new();
    world.insert(1, "IG-1", Some(-hours(5)));
    assert_eq!(by_hand(&world, &[], true).due, 0);
    assert_eq!(by_hand(&world, &["1"], false).due, 0);
    assert_eq!(world.script.drain(), 0);
    let report = by_hand(&world, &["1"], true);
    assert_eq!((report.due, report.refreshed), (1, 1));
    assert_eq!(world.token(1), "IG-1+");
}

#[test]
fn force_sends_what_is_not_due_or_waits_and_each_call_is_a_run() {
    let world = World::new();
    world.insert(1, "IG-far", Some(days(40)));
    world.insert(2, "IG-near", Some(days(5)));
    world.script.answer(|_| Reply::down());
    for attempts in 1..=2 {
        let report = by_hand(&world, &[], true);
        assert_eq!((report.due, report.failed), (2, 2));
        assert_eq!((world.attempts(1), world.attempts(2)), (attempts, attempts));
    }
}

#[test]
fn named_connections_are_sent_only_if_they_are_due() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(5)));
    world.insert(2, "IG-2", Some(days(5)));
    world.insert(3, "IG-3", Some(days(40)));
    let report = by_hand(&world, &["1", "3"], false);
    assert_eq!((report.due, world.script.tokens()), (1, vec!["IG-1".to_owned()]));
    assert!(world.store.leases().is_empty());
}

#[test]
fn a_dry_run_counts_and_does_nothing() {
    let world = World::new();
    world.fleet(1_200, "IG");
    world.insert(2_000, "EAA-undated", None);
    world.insert(2_001, "IG-far", Some(days(40)));
    let request = RunRequest { dry_run: true, ..RunRequest::all(RunKind::ByHand) };
    let report = world.try_run(&world.engine(), &request).expect("rehearses");
    assert_eq!((report.due, report.refreshed, report.dry_run), (1_201, 0, true));
    assert_eq!(world.script.calls().len(), 0);
    assert_eq!(world.store.writes(0), (0, 0));
    assert!(world.store.leases().is_empty() && world.store.runs().is_empty());
}

#[test]
fn null_attempts_count_as_none() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(5)));
    world.store.change_connection(0, "1", |row| row.attempts = None);
    world.script.answer(|_| Reply::down());
    world.night(&world.engine());
    assert_eq!(world.row(1).attempts, Some(1));
}

#[test]
fn due_is_the_sum_of_what_became_of_it_however_mixed() {
    let world = World::new();
    world.fleet(300, "IG");
    world.insert(1_000, "IG-young", Some(days(4)));
    let now = world.now();
    world.store.change_connection(0, "1000", |row| row.refreshed_at = Some(now));
    let store = world.store.clone();
    world.script.answer(move |asked| match asked.token.as_str() {
        "IG-3" | "IG-4" => Reply::down(),
        "IG-5" => Reply::dead(),
        "IG-6" => Reply::json(200, "{}"),
        "IG-7" => {
            store.replace_token(0, "7", "IG-of-the-customer", None);
            renew(asked)
        }
        _ => renew(asked),
    });
    let report = world.night(&world.engine());
    assert_eq!(report.due, report.refreshed + report.failed + report.deferred + report.superseded);
    assert_eq!(report.outcomes.values().sum::<u64>(), report.due);
    assert_eq!((report.failed, report.deferred), (4, 1), "{report:?}");
}

#[test]
fn a_text_that_is_too_long_for_its_column_keeps_no_failure_from_being_counted_and_told() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.insert(2, "IG-2", Some(days(6)));
    world.store.narrow_errors(0, 10);
    world.script.answer_one("IG-1", std::iter::repeat_with(Reply::down).take(1000));
    let engine = world.engine();
    for night in 1..=3 {
        world.night(&engine);
        assert_eq!((world.attempts(1), world.flag(1)), (night, night == 3));
        world.next_night();
    }
    assert_eq!(world.row(1).error, None);
}

#[test]
fn what_was_refused_of_an_old_token_says_nothing_of_the_one_that_the_app_has_put_there() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(3)));
    world.insert(2, "IG-2", Some(days(4)));
    world.store.refuse_row(0, "1", Some("value too long for type character varying(20)"));
    world.script.answer(|asked| renew(asked).after(seconds(if asked.token.contains("IG-2") { 20 } else { 1 })));
    let engine = world.engine();
    let request = RunRequest::all(RunKind::Scheduled);
    let app = async {
        crate::clock::Clock::sleep(&world.clock, seconds(10)).await;
        world.store.refuse_row(0, "1", None);
        let expires_at = world.now() + days(60);
        world.store.change_connection(0, "1", |row| {
            (row.token, row.expires_at) = (Some(Secret::new("IG-login")), Some(expires_at));
        });
    };
    let (report, ()) = world.clock.run(join(engine.run(&request, &Stop::never(), &|_| {}), app));
    assert_eq!(report.expect("runs").superseded, 1);
    assert_eq!((world.token(1).as_str(), world.attempts(1)), ("IG-login", 0));
    assert!(world.memory(1).is_none_or(|memory| memory.incident.is_none()));
}
