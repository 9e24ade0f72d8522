//! When many fail alike it is not the customers: nobody is counted, nobody is told, from the first row on.

use perene_policy::Outcome;

use crate::config::{Source, TableName};
use crate::engine::testing::{Reply, World, days, renew, seconds};
use crate::store::memory::AppRow;

#[test]
fn when_all_of_500_fail_not_even_the_first_is_counted() {
    for (token, takes) in [("IG", 0), ("EAA", 0), ("IG", 5)] {
        let world = World::new();
        world.fleet(500, token);
        world.script.answer(move |_| Reply::down().after(seconds(takes)));
        let report = world.night(&world.engine());
        assert_eq!((report.due, report.deferred, report.failed, report.warned), (500, 500, 0, 0), "{token}");
        assert_eq!(report.outcomes.get(&Outcome::Transient), Some(&500));
        for id in 1..=500 {
            assert_eq!((world.attempts(id), world.flag(id), world.row(id).error), (0, false, None), "{token}-{id}");
        }
        assert_eq!(world.outbox(), []);
        assert_eq!(world.alarms(), ["provider_down"]);
        assert!(
            world.script.calls().len() <= 3 * (64 + 10),
            "{} calls to one that is down",
            world.script.calls().len()
        );
        assert!(world.store.leases().is_empty());
    }
}

#[test]
fn what_hangs_is_not_counted_either() {
    let world = World::new();
    world.fleet(500, "IG");
    world.script.answer(|_| Reply::lost().after(seconds(30)));
    let report = world.night(&world.engine());
    assert_eq!((report.deferred, report.failed), (500, 0));
}

#[test]
fn nine_that_fail_are_nine_failures() {
    let world = World::new();
    world.fleet(9, "IG");
    world.script.answer(|_| Reply::down());
    let report = world.night(&world.engine());
    assert_eq!((report.failed, report.deferred), (9, 0));
    assert!(world.alarms().is_empty());
}

#[test]
fn in_a_storm_there_is_a_probe_every_30_seconds_and_nothing_else() {
    let world = World::new();
    world.fleet(500, "IG");
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    world.night(&engine);
    world.script.drain();
    world.serve(&engine, seconds(600));
    let calls = world.script.calls();
    assert!((18..=21).contains(&calls.len()), "{} probes in ten minutes", calls.len());
    for pair in calls.windows(2) {
        assert!(pair[1].at.duration_since(pair[0].at).as_secs() >= 30, "{pair:?}");
    }
    assert!((1..=500).all(|id| world.attempts(id) == 0));
}

#[test]
fn a_row_that_fails_for_ever_does_not_keep_the_others_from_a_provider_that_is_back() {
    let world = World::new();
    world.insert(1, "IG-broken", Some(days(2)));
    for id in 2..=40 {
        world.insert(id, &format!("IG-well-{id}"), Some(days(3)));
    }
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    world.night(&engine);
    world.script.answer(|asked| if asked.token.starts_with("IG-broken") { Reply::down() } else { renew(asked) });
    world.serve(&engine, seconds(300));
    assert!((2..=40).all(|id| world.token(id).ends_with('+')));
}

#[test]
fn failures_scattered_among_successes_are_counted_each() {
    let world = World::new();
    for id in 1..=400 {
        world.insert(id, &format!("IG-{}-{id}", if id % 20 == 0 { "bad" } else { "well" }), Some(days(4)));
    }
    world.script.answer(|asked| if asked.token.starts_with("IG-bad") { Reply::down() } else { renew(asked) });
    let report = world.night(&world.engine());
    assert_eq!((report.refreshed, report.failed, report.deferred), (380, 20, 0));
    assert!(world.alarms().is_empty());
}

#[test]
fn when_the_provider_is_back_all_is_made_up_for_without_anybodys_help() {
    let world = World::new();
    world.fleet(1_200, "IG");
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    world.serve(&engine, seconds(3_600));
    world.script.answer(renew);
    world.serve(&engine, seconds(60));
    assert!((1..=1_200).all(|id| world.token(id).ends_with('+')));
    assert!(world.alarms().is_empty());
    assert_eq!(world.outbox(), []);
    assert_eq!(world.store.runs().len(), 1, "and no run was needed for it");
}

#[test]
fn all_tables_of_an_app_are_made_up_for() {
    let pages = Source { table: TableName { schema: None, name: "pages".to_owned() }, ..Source::default() };
    let world = World::of(vec![Source::default(), pages]);
    world.fleet(100, "IG");
    for id in 1..=100 {
        let row = AppRow::new(id.to_string(), "1", &format!("IG-page-{id}"), Some(world.now() + days(3)));
        world.store.insert_connection(1, row);
    }
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    let report = world.night(&engine);
    assert_eq!((report.due, report.deferred), (200, 200));
    world.script.answer(renew);
    world.serve(&engine, seconds(120));
    assert!((1..=100).all(|id| world.token(id).ends_with('+')));
    world.store.each_row(1, |row| assert!(row.token.as_ref().is_some_and(|token| token.expose().ends_with('+'))));
}

#[test]
fn an_outage_in_the_middle_of_a_run_defers_the_rest_and_no_more() {
    let world = World::new();
    world.fleet(1_000, "IG");
    let mut calls = 0;
    world.script.answer(move |asked| {
        calls += 1;
        if calls > 300 { Reply::down() } else { renew(asked) }
    });
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.refreshed, report.deferred, report.failed), (1_000, 300, 700, 0));
}

#[test]
fn the_other_apps_go_on_while_one_is_down() {
    let world = World::new();
    for id in 1..=300 {
        let token = if id % 2 == 0 { format!("TH-{id}") } else { format!("IG-{id}") };
        world.insert(id, &token, Some(days(3)));
    }
    world.script.answer(|asked| if asked.token.starts_with("IG") { Reply::down() } else { renew(asked) });
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.refreshed, report.deferred, report.failed), (300, 150, 150, 0));
}

#[test]
fn when_all_are_refused_alike_nobody_is_told_and_the_operator_hears_of_it() {
    let world = World::new();
    world.fleet(500, "IG");
    world.script.answer(|_| Reply::dead());
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.failed, report.warned), (500, 0, 0));
    assert!((1..=500).all(|id| world.attempts(id) == 0 && !world.flag(id)));
    assert_eq!(world.outbox(), []);
    assert_eq!(world.alarms(), ["many_alike"]);
}

#[test]
fn many_refused_among_more_that_are_well_are_held_too() {
    let world = World::new();
    world.fleet(500, "IG");
    world.script.answer(|asked| {
        let number: u64 = asked.token.trim_start_matches("IG-").parse().unwrap_or(1);
        if number.is_multiple_of(4) { Reply::dead() } else { renew(asked) }
    });
    let report = world.night(&world.engine());
    assert_eq!((report.refreshed, report.deferred, report.failed, report.warned), (375, 125, 0, 0));
    assert_eq!(world.alarms(), ["many_alike"]);
}

#[test]
fn a_brake_that_has_held_for_a_day_lets_go_and_customers_hear_of_it() {
    let world = World::new();
    world.fleet(20, "IG");
    world.script.answer(|_| Reply::dead());
    let engine = world.engine();
    world.serve_hourly(&engine, 23);
    assert!((1..=20).all(|id| !world.flag(id)));
    world.serve_hourly(&engine, 2);
    assert!((1..=20).all(|id| world.flag(id)), "a customer who really is cut off must hear of it");
    assert_eq!(world.mail.kinds().len(), 20);
}

#[test]
fn a_run_that_begins_with_a_failed_probe_counts_each_connection_once() {
    let world = World::new();
    world.fleet(700, "IG");
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    world.night(&engine);
    world.clock.advance(seconds(31));
    world.script.drain();
    let report = world.night(&engine);
    assert_eq!(world.script.drain(), 1);
    assert_eq!((report.due, report.deferred), (700, 700));
}

#[test]
fn a_brake_on_an_app_that_is_well_lets_go_after_an_hour() {
    let world = World::new();
    world.fleet(20, "EAA");
    world.script.answer(|_| Reply::dead());
    world.script.answer_app(200);
    let engine = world.engine();
    world.serve(&engine, seconds(55 * 60));
    assert!((1..=20).all(|id| !world.flag(id)));
    world.serve(&engine, seconds(35 * 60));
    assert!((1..=20).all(|id| world.flag(id)));
}

#[test]
fn what_the_brake_holds_is_not_sent_over_and_over() {
    let world = World::new();
    world.fleet(100, "IG");
    world.script.answer(|_| Reply::dead());
    let engine = world.engine();
    world.night(&engine);
    world.script.drain();
    world.serve(&engine, seconds(3_600));
    let calls = world.script.drain();
    assert!(calls <= 2 * 100 * 4, "{calls} calls in an hour for a hundred that are held");
}

#[test]
fn what_failed_in_a_storm_that_ended_before_its_page_is_not_believed_either() {
    let world = World::new();
    world.fleet(500, "IG");
    world.script.answer(|asked| {
        let number: u64 = asked.token.trim_start_matches("IG-").parse().unwrap_or(1_000);
        if number <= 20 { Reply::down() } else { renew(asked).after(seconds(10)) }
    });
    let report = world.night(&world.engine());
    assert!(world.alarms().is_empty(), "an answer that was on its way has ended it");
    assert_eq!((report.due, report.failed), (500, 0));
    assert!((1..=20).all(|id| world.attempts(id) == 0));
}
