//! Who is sent, in which order, and how many at once.

use std::time::Duration;

use perene_policy::Secret;

use crate::engine::testing::{Reply, World, days, hours, renew, seconds};

#[test]
fn the_soonest_to_expire_is_sent_first() {
    let mut world = World::new();
    world.concurrency = 1;
    for (id, left) in [(1, days(6)), (2, hours(5)), (3, days(2)), (4, days(4))] {
        world.insert(id, &format!("IG-{id}"), Some(left));
    }
    let report = world.night(&world.engine());
    assert_eq!(world.script.tokens(), ["IG-2", "IG-3", "IG-4", "IG-1"]);
    assert_eq!((report.due, report.refreshed), (4, 4));
}

#[test]
fn the_soonest_comes_first_across_the_grants_too() {
    let mut world = World::new();
    world.concurrency = 1;
    for (id, token, left) in [(1, "IG-1", 3), (2, "EAA-2", 1), (3, "TH-3", 2), (4, "EAA-4", 4)] {
        world.insert(id, token, Some(days(left)));
    }
    world.night(&world.engine());
    assert_eq!(world.script.tokens(), ["EAA-2", "TH-3", "IG-1", "EAA-4"]);
}

#[test]
fn a_success_writes_token_expiry_and_time_and_clears_the_failures() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(2)));
    world.store.change_connection(0, "1", |row| {
        row.attempts = Some(2);
        row.error = Some("was tired".to_owned());
    });
    let sent_at = world.now();
    world.script.answer(|asked| renew(asked).after(seconds(7)));
    world.night(&world.engine());
    let row = world.row(1);
    assert_eq!(row.token.as_ref().map(Secret::expose), Some("IG-1+"));
    assert_eq!(row.expires_at, Some(sent_at + days(60)), "counted from before the request was sent");
    assert_eq!(row.refreshed_at, Some(world.now()));
    assert_eq!((row.attempts, row.error), (Some(0), None));
    assert_eq!(world.store.writes(0), (1, 0), "one write, and none of the user");
}

#[test]
fn what_is_not_due_is_not_sent() {
    let world = World::new();
    world.insert(1, "IG-expired", Some(-hours(1)));
    world.insert(2, "IG-now", Some(hours(0)));
    world.insert(3, "IG-at-the-windows-end", Some(days(7)));
    world.insert(4, "IG-far", Some(days(40)));
    world.insert(5, "", Some(days(1)));
    world.store.change_connection(0, "5", |row| row.token = None);
    let report = world.night(&world.engine());
    assert_eq!(world.script.tokens(), [""; 0]);
    assert_eq!(report.due, 0);
}

#[test]
fn more_than_a_page_is_sent_to_the_last_row_each_once() {
    let world = World::new();
    world.fleet(1_234, "IG");
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.refreshed), (1_234, 1_234));
    let mut tokens = world.script.tokens();
    assert_eq!(tokens.len(), 1_234);
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 1_234);
    assert!(world.store.leases().is_empty(), "every lease is given back");
}

#[test]
fn no_more_calls_are_in_flight_than_the_limit_and_as_many_as_it() {
    for concurrency in [1, 7, 64] {
        let mut world = World::new();
        world.concurrency = concurrency;
        world.fleet(700, "IG");
        world.script.answer(|asked| renew(asked).after(Duration::from_millis(300)));
        world.night(&world.engine());
        assert_eq!(world.script.most_at_once(), concurrency);
    }
}

#[test]
fn one_slow_connection_delays_no_other() {
    let mut world = World::new();
    world.concurrency = 4;
    world.fleet(400, "IG");
    world.script.answer(|asked| {
        let takes = if asked.token == "IG-1" { seconds(29) } else { Duration::from_millis(100) };
        renew(asked).after(takes)
    });
    let begun = world.now();
    world.night(&world.engine());
    let last = world.script.calls().last().expect("calls").at;
    assert!(last.duration_since(begun).as_secs() < 20, "three others went on: {last}");
    let taken = world.now().duration_since(begun);
    assert_eq!(taken.as_secs(), 29);
}

#[test]
fn a_lost_answer_is_no_success() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(2)));
    world.script.answer(|_| Reply::lost());
    let report = world.night(&world.engine());
    assert_eq!((report.failed, world.attempts(1)), (1, 1));
    assert_eq!(world.token(1), "IG-1");
}
