//! Customers who must reconnect, and customers who do, at the worst moment too.

use crate::engine::testing::{Reply, World, days, hours, renew, seconds};
use crate::notify::MessageKind;

#[test]
fn who_is_refused_for_good_is_warned_at_once_and_probed_daily() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.script.answer(|_| Reply::dead());
    let engine = world.engine();
    world.serve(&engine, seconds(60));
    assert_eq!((world.attempts(1), world.flag(1)), (1, true));
    assert_eq!(world.mail.kinds(), [(MessageKind::NeedsReconnect, "1".to_owned())]);
    world.script.drain();
    world.serve_hourly(&engine, 3 * 24 + 1);
    assert_eq!(world.script.drain(), 6, "two calls a day");
    assert_eq!(world.attempts(1), 4);
    assert_eq!(world.mail.kinds().len(), 1);
}

#[test]
fn a_reconnect_during_the_call_wins() {
    let world = World::new();
    world.insert(1, "IG-old", Some(days(2)));
    let store = world.store.clone();
    let expires_at = world.now() + days(60);
    world.script.answer(move |asked| {
        store.replace_token(0, "1", "IG-of-the-customer", Some(expires_at));
        renew(asked)
    });
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.superseded, report.refreshed), (1, 1, 0));
    assert_eq!((world.token(1).as_str(), world.row(1).expires_at), ("IG-of-the-customer", Some(expires_at)));
    assert_eq!(world.row(1).refreshed_at, None);
    assert_eq!(world.store.writes(0), (0, 0));
    assert!(world.store.leases().is_empty());
}

#[test]
fn a_reconnect_during_a_call_that_fails_leaves_no_trace_on_the_new_token() {
    let world = World::new();
    world.insert(1, "IG-old", Some(days(2)));
    let store = world.store.clone();
    let expires_at = world.now() + days(60);
    world.script.answer(move |_| {
        store.replace_token(0, "1", "IG-of-the-customer", Some(expires_at));
        Reply::dead()
    });
    let report = world.night(&world.engine());
    assert_eq!((report.superseded, report.failed, report.warned), (1, 0, 0));
    assert_eq!((world.attempts(1), world.flag(1), world.row(1).error), (0, false, None));
    assert_eq!(world.outbox(), []);
}

#[test]
fn a_connection_that_is_deleted_during_the_call_stays_deleted() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(2)));
    let store = world.store.clone();
    world.script.answer(move |asked| {
        store.delete_connection(0, "1");
        renew(asked)
    });
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.superseded), (1, 1));
    assert!(world.store.row(0, "1").is_none());
}

#[test]
fn a_reconnect_closes_the_incident_without_a_call() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.script.answer(|_| Reply::dead());
    let engine = world.engine();
    world.serve(&engine, seconds(60));
    world.script.drain();
    world.store.replace_token(0, "1", "IG-new", Some(world.now() + days(60)));
    world.serve(&engine, seconds(60));
    assert_eq!(world.script.drain(), 0);
    assert_eq!((world.attempts(1), world.row(1).error, world.flag(1)), (0, None, false));
    assert_eq!(world.hook.kinds().last(), Some(&(MessageKind::Recovered, "1".to_owned())));
    assert_eq!(world.token(1), "IG-new");
}

#[test]
fn a_run_counts_what_reconnected_before_it() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.script.answer(|_| Reply::dead());
    let engine = world.engine();
    world.night(&engine);
    world.store.replace_token(0, "1", "IG-new", Some(world.now() + days(60)));
    let report = world.night(&engine);
    assert_eq!((report.due, report.recovered), (0, 1));
}

#[test]
fn a_token_that_changed_under_our_eyes_is_too_young_for_a_day() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.script.answer(|_| Reply::dead());
    let engine = world.engine();
    world.night(&engine);
    world.script.answer(renew);
    world.script.drain();
    world.store.replace_token(0, "1", "IG-new", Some(world.now() + days(5)));
    let report = world.night(&engine);
    assert_eq!((report.due, report.deferred, world.script.drain()), (1, 1, 0));
    world.serve_hourly(&engine, 25);
    assert_eq!(world.script.tokens(), ["IG-new"]);
    assert_eq!(world.token(1), "IG-new+");
}

#[test]
fn a_deleted_connection_takes_its_warning_with_it() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.script.answer(|_| Reply::dead());
    let engine = world.engine();
    world.serve(&engine, seconds(60));
    assert!(world.flag(1));
    world.store.delete_connection(0, "1");
    world.serve(&engine, seconds(60));
    assert!(!world.flag(1));
    assert!(world.memory(1).is_none());
    assert_eq!(world.hook.kinds().len(), 1, "nobody hears that it recovered");
}

#[test]
fn a_flag_that_the_app_raised_by_itself_stays() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.store.raise_flag(0, "1");
    assert_eq!(world.night(&world.engine()).refreshed, 1);
    assert!(world.flag(1));
}

#[test]
fn the_flag_is_up_while_one_of_the_users_connections_needs_it() {
    let world = World::new();
    for id in [1, 2] {
        world.insert(id, &format!("IG-{id}"), Some(days(6)));
        world.store.change_connection(0, &id.to_string(), |row| row.user_id = Some("1".to_owned()));
    }
    world.script.answer(|_| Reply::dead());
    let engine = world.engine();
    world.night(&engine);
    assert!(world.flag(1) && !world.flag(2));
    world.store.replace_token(0, "1", "IG-new", Some(world.now() + days(58)));
    world.serve(&engine, seconds(60));
    assert!(world.flag(1), "the other one is still cut off");
    world.store.replace_token(0, "2", "IG-new-2", Some(world.now() + days(58)));
    world.serve(&engine, seconds(60));
    assert!(!world.flag(1));
}

#[test]
fn one_that_goes_dark_in_its_incident_is_told_to_the_app() {
    let world = World::new();
    world.insert(1, "IG-1", Some(hours(3)));
    world.script.answer(|_| Reply::dead());
    let engine = world.engine();
    world.serve_hourly(&engine, 4);
    let kinds: Vec<_> = world.hook.kinds().into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [MessageKind::NeedsReconnect, MessageKind::Dark]);
    assert_eq!(world.mail.kinds().len(), 1);
    world.script.drain();
    world.serve_hourly(&engine, 2 * 24);
    assert_eq!(world.script.drain(), 0, "an expired token is never sent");
}
