//! Who goes dark although nothing was ever concluded about them hears of it too.

use futures_util::future::join;
use jiff::SignedDuration;

use crate::engine::testing::{Reply, World, days, renew, seconds};

const DAY: u64 = 24 * 3_600;

fn warned(world: &World, ids: std::ops::RangeInclusive<i64>) -> Vec<i64> {
    ids.filter(|id| world.flag(id)).collect()
}

#[test]
fn what_ended_while_perene_was_away_is_told_once_it_is_back() {
    let world = World::new();
    let engine = world.engine();
    world.night(&engine);
    world.insert(1, "IG-1", Some(days(30)));
    world.insert(2, "IG-2", Some(days(45)));
    world.clock.advance(seconds(40 * DAY));
    world.serve(&world.engine(), seconds(60));
    assert_eq!((warned(&world, 1..=2), world.token(2)), (vec![1], "IG-2+".to_owned()));
    assert_eq!(world.script.tokens(), ["IG-2"], "what has expired is never sent");
    let kinds: Vec<String> = world.outbox().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "needs_reconnect").count(), 2, "one over each channel: {kinds:?}");
    world.serve_hourly(&world.engine(), 50);
    assert_eq!(world.outbox().len(), kinds.len(), "nothing more");
    assert_eq!((world.attempts(1), world.row(1).error), (0, None));

    // The customer is back.
    world.store.change_connection(0, "1", |row| {
        row.token = Some(perene_policy::Secret::new("IG-new"));
        row.expires_at = row.expires_at.map(|at| at + days(90));
    });
    world.serve(&world.engine(), seconds(60));
    assert!(!world.flag(1));
}

#[test]
fn what_had_ended_before_perene_came_is_the_apps_past() {
    let world = World::new();
    world.insert(1, "IG-1", Some(-days(1)));
    let engine = world.engine();
    world.serve(&engine, seconds(DAY + 60));
    assert_eq!((world.outbox(), world.flag(1)), (vec![], false));
}

#[test]
fn a_token_that_ended_unseen_is_told_with_the_next_sweep() {
    let world = World::new();
    let (one, two) = (world.engine(), world.engine());
    world.serve(&one, seconds(60));
    world.insert(1, "IG-1", Some(SignedDuration::from_mins(10)));
    world.insert(2, "", Some(SignedDuration::from_mins(10)));
    world.clock.advance(seconds(599));
    world.clock.run(one.sweep()).expect("sweeps");
    assert!(!world.flag(1));
    world.clock.advance(seconds(2));
    let (first, second) = world.clock.run(join(one.sweep(), two.sweep()));
    assert_eq!(first.expect("sweeps").warned + second.expect("sweeps").warned, 1, "of two replicas one tells it");
    assert_eq!(warned(&world, 1..=2), [1], "who holds no token has none that ends");
    assert_eq!(world.outbox().len(), 3, "a mail, and a webhook of each fact: {:?}", world.outbox());
}

#[test]
fn a_token_that_does_not_live_until_the_next_run_is_not_left_waiting_for_it() {
    let world = World::new();
    let engine = world.engine();
    world.serve(&engine, seconds(60));
    world.insert(1, "EAA-1", Some(SignedDuration::from_hours(2)));
    world.insert(2, "EAA-2", Some(days(3)));
    world.serve(&engine, seconds(700));
    assert_eq!((world.token(1), world.token(2)), ("EAA-1+".to_owned(), "EAA-2".to_owned()));

    // A failure is tried again by the series, and no attempt.
    world.insert(3, "EAA-3", Some(SignedDuration::from_hours(2)));
    world.script.drain();
    world.script.answer(|_| Reply::error(400, 100, "Unsupported request"));
    world.serve(&engine, seconds(1_300));
    assert!(world.script.drain() <= 3, "an unknown error is not asked for again and again");
    assert_eq!(world.attempts(3), 0);
}

#[test]
fn whose_provider_is_well_hears_nothing_of_anothers_outage() {
    let world = World::new();
    for id in 1..=20 {
        world.insert(id, &format!("EAA-{id}"), Some(days(6)));
    }
    world.script.answer(|asked| if asked.token.starts_with("EAA") { Reply::down() } else { renew(asked) });
    let engine = world.engine();
    world.serve(&engine, seconds(4 * DAY));
    assert_eq!(warned(&world, 1..=20).len(), 20);
    world.insert(21, "IG-21", Some(days(2)));
    world.serve(&engine, seconds(2 * 3_600));
    assert!(!world.flag(21), "its turn comes with the next run");
}

#[test]
fn who_was_not_due_yet_has_missed_nothing() {
    let mut world = World::new();
    world.settings.window = SignedDuration::from_hours(48);
    for id in 1..=20 {
        world.insert(id, &format!("IG-{id}"), Some(days(1) + SignedDuration::from_hours(6)));
    }
    world.insert(21, "IG-21", Some(days(4)));
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    world.serve(&engine, seconds(DAY + 2 * 3_600));
    assert_eq!(warned(&world, 1..=21), (1..=20).collect::<Vec<_>>(), "not those that have 70 hours left");
}

#[test]
fn in_an_outage_nobody_hears_of_it_before_a_day_has_passed() {
    let world = World::new();
    world.fleet(20, "IG");
    world.insert(21, "IG-21", Some(SignedDuration::from_hours(5)));
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    world.serve(&engine, seconds(6 * 3_600));
    assert_eq!((world.outbox(), world.flag(21)), (vec![], false));
    world.script.answer(renew);
    world.serve(&engine, seconds(120));
    assert_eq!(warned(&world, 1..=21), [21], "the others are refreshed");
}

#[test]
fn in_an_outage_of_days_customers_hear_of_it_before_their_tokens_end() {
    let world = World::new();
    for id in 1..=30 {
        world.insert(id, &format!("IG-{id}"), Some(days(6) + SignedDuration::from_mins(id)));
    }
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    world.serve(&engine, seconds(3 * DAY - 7_200));
    assert_eq!((world.outbox(), world.alarms()), (vec![], vec!["provider_down".to_owned()]));
    world.serve(&engine, seconds(3 * 3_600));
    assert_eq!(warned(&world, 1..=30).len(), 30);
    assert!((1..=30).all(|id| world.attempts(id) == 0), "nothing is counted");

    world.script.answer(renew);
    world.serve(&engine, seconds(600));
    assert!((1..=30).all(|id| world.token(id) == format!("IG-{id}+") && !world.flag(id)));
}
