//! What counts as an attempt, when the customer is warned, and how it ends.

use perene_policy::Outcome;

use crate::engine::testing::{Reply, World, days, hours, seconds};
use crate::notify::MessageKind;

const HOUR: u64 = 3_600;

#[test]
fn a_failed_run_adds_one_and_says_why() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.script.answer(|_| Reply::error(500, 2, "An unexpected error has occurred."));
    let report = world.night(&world.engine());
    assert_eq!((report.failed, report.warned, world.attempts(1)), (1, 0, 1));
    assert_eq!(world.row(1).error.as_deref(), Some("An unexpected error has occurred."));
    assert_eq!(world.token(1), "IG-1");
    assert_eq!(world.outbox(), []);
}

#[test]
fn tries_between_runs_do_not_count() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    world.night(&engine);
    world.script.drain();
    world.serve(&engine, seconds(6 * HOUR));
    assert!(world.script.drain() >= 12, "it was tried again, and again");
    assert_eq!(world.attempts(1), 1);
}

#[test]
fn the_daily_run_finds_what_still_fails_and_the_third_warns_once() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    for (attempts, is_warned) in [(1, false), (2, false), (3, true)] {
        world.serve_hourly(&engine, 24);
        assert_eq!((world.attempts(1), world.flag(1)), (attempts, is_warned));
    }
    assert_eq!(world.mail.kinds(), [(MessageKind::Failing, "1".to_owned())]);
    assert_eq!(world.hook.kinds(), [(MessageKind::Failing, "1".to_owned())]);
    world.serve_hourly(&engine, 20);
    assert_eq!(world.attempts(1), 4, "tries go on after the warning");
    assert_eq!(world.mail.kinds().len(), 1, "an incident is told once");
}

#[test]
fn runs_alone_count_without_a_service_too() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.script.answer(|_| Reply::down());
    for attempts in 1..=3 {
        let report = world.night(&world.engine());
        assert_eq!((report.due, report.failed, world.attempts(1)), (1, 1, attempts));
        assert_eq!(report.warned, u64::from(attempts == 3));
        world.next_night();
    }
    assert!(world.flag(1));
    assert_eq!(world.outbox().len(), 2, "one over each channel");
}

#[test]
fn the_apps_own_count_warns() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.store.change_connection(0, "1", |row| row.attempts = Some(2));
    world.script.answer(|_| Reply::down());
    assert_eq!(world.night(&world.engine()).warned, 1);
    assert_eq!(world.attempts(1), 3);
}

#[test]
fn with_less_than_72_hours_left_the_first_failure_warns() {
    let world = World::new();
    world.insert(1, "IG-1", Some(hours(71)));
    world.insert(2, "IG-2", Some(hours(73)));
    world.script.answer(|_| Reply::down());
    assert_eq!(world.night(&world.engine()).warned, 1);
    assert!(world.flag(1) && !world.flag(2));
}

#[test]
fn the_passing_of_time_warns_within_a_minute() {
    let world = World::new();
    world.insert(1, "IG-1", Some(hours(72 + 5)));
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    world.serve(&engine, seconds(5 * HOUR));
    assert!(!world.flag(1));
    world.serve(&engine, seconds(60));
    assert!(world.flag(1));
    assert_eq!(world.mail.kinds(), [(MessageKind::Failing, "1".to_owned())]);
}

#[test]
fn a_success_ends_the_incident_and_takes_the_warning_back() {
    let world = World::new();
    world.insert(1, "IG-1", Some(hours(50)));
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    world.night(&engine);
    assert_eq!(world.send(&engine), 2);
    assert!(world.flag(1));
    world.script.answer(crate::engine::testing::renew);
    world.serve(&engine, seconds(300));
    assert_eq!((world.attempts(1), world.row(1).error, world.flag(1)), (0, None, false));
    assert_eq!(world.token(1), "IG-1+");
    assert_eq!(world.mail.kinds(), [(MessageKind::Failing, "1".to_owned())], "nobody is mailed that all is well");
    assert_eq!(world.hook.kinds().last(), Some(&(MessageKind::Recovered, "1".to_owned())));
    assert!(world.memory(1).is_none_or(|memory| memory.incident.is_none()));
}

#[test]
fn a_recovery_in_a_run_is_counted() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.script.answer_one("IG-1", [Reply::down(), Reply::down(), Reply::down()]);
    let engine = world.engine();
    world.night(&engine);
    world.next_night();
    let report = world.night(&engine);
    assert_eq!((report.refreshed, report.recovered), (1, 1));
}

#[test]
fn an_answer_without_a_plausible_token_stores_nothing() {
    for token in ["", "null", "undefined", "with blanks"] {
        let world = World::new();
        world.insert(1, "IG-1", Some(days(6)));
        let expires_at = world.row(1).expires_at;
        world.script.answer(move |_| Reply::granted(token, days(60)));
        let report = world.night(&world.engine());
        assert_eq!((report.refreshed, report.failed), (0, 1), "{token}: {:?}", report.outcomes);
        assert_eq!((world.token(1).as_str(), world.row(1).expires_at), ("IG-1", expires_at));
    }
}

#[test]
fn a_token_whose_expiry_cannot_be_believed_is_stored_and_the_old_expiry_stays() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    let expires_at = world.row(1).expires_at;
    world.script.answer(|_| Reply::granted("IG-new", -days(1)));
    let report = world.night(&world.engine());
    assert_eq!(report.outcomes.get(&Outcome::Unrecognised), Some(&1));
    assert_eq!((world.token(1).as_str(), world.row(1).expires_at), ("IG-new", expires_at));
    assert_eq!(world.attempts(1), 1);
}

#[test]
fn what_did_not_move_is_told_fourteen_seven_and_three_days_ahead() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    let expires_at = world.row(1).expires_at.expect("a date");
    world.script.answer(move |asked| Reply::granted(&asked.token, expires_at.duration_since(asked.at)));
    let engine = world.engine();
    world.serve_hourly(&engine, 24);
    assert_eq!((world.attempts(1), world.flag(1)), (0, true), "the flag from the first notice");
    assert_eq!(world.mail.kinds(), [(MessageKind::NotExtended, "1".to_owned())]);
    world.serve_hourly(&engine, 4 * 24);
    let told: Vec<Option<u8>> = world.mail.tries().into_iter().map(|(_, message)| message.days_left).collect();
    assert_eq!(told, [Some(7), Some(3)]);
}
