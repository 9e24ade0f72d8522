//! Providers that rotate refresh tokens: a generation is sent once, and what was answered is never lost.

use std::sync::{Arc, Mutex};

use futures_util::future::join;
use jiff::SignedDuration;
use perene_policy::{Class, Secret, State};

use crate::engine::testing::{Reply, World, hours, seconds};
use crate::engine::token::NoToken;
use crate::engine::{RunKind, RunRequest, Stop};
use crate::journal::Journal;
use crate::store::faulty::{Condition, Fault, FaultyStore};

fn minutes(count: i64) -> SignedDuration {
    SignedDuration::from_mins(count)
}

fn strict() -> World {
    World::rotating(Class::Strict)
}

/// The first answer for each refresh token is lost, after the provider has rotated.
fn lose_the_first(world: &World) {
    let seen = Mutex::new(Vec::<String>::new());
    world.script.answer(move |asked| {
        let mut seen = seen.lock().unwrap();
        if seen.contains(&asked.token) {
            return Reply::rotated(&asked.token, hours(1));
        }
        seen.push(asked.token.clone());
        Reply::lost()
    });
}

/// A process dies while the provider works on all that was due.
fn die_in_calls(world: &World) {
    world.script.answer(|_| Reply::lost().after(seconds(3_600)));
    let engine = world.engine();
    let request = RunRequest::all(RunKind::Scheduled);
    let never = Stop::never();
    world.clock.run(async {
        let run = std::pin::pin!(engine.run(&request, &never, &|_| {}));
        let killed = std::pin::pin!(crate::clock::Clock::sleep(&world.clock, seconds(2)));
        futures_util::future::select(run, killed).await;
    });
}

fn state(world: &World, id: i64) -> Option<State> {
    world.memory(id).map(|memory| memory.state)
}

#[test]
fn both_tokens_are_stored_together() {
    let world = strict();
    world.insert_pair(1, minutes(10));
    assert_eq!(world.night(&world.engine()).refreshed, 1);
    assert_eq!(world.generation(1), 1);
    assert_eq!(world.script.tokens(), ["r-1-0"]);
    assert!(world.journal.pending().len() == 1, "kept for a day, should the database forget it");
    assert!(world.store.leases().is_empty());
}

#[test]
fn the_database_knows_before_the_provider_does() {
    let world = strict();
    world.insert_pair(1, minutes(10));
    let (store, seen) = (world.store.clone(), Arc::new(Mutex::new(Vec::new())));
    let states = Arc::clone(&seen);
    world.script.answer(move |asked| {
        let memory = store.memories().into_iter().find(|row| row.id == "1").map(|row| row.memory.state.name());
        states.lock().unwrap().push(memory);
        Reply::rotated(&asked.token, hours(1))
    });
    world.night(&world.engine());
    assert_eq!(*seen.lock().unwrap(), [Some("uncertain")]);
    assert_eq!(state(&world, 1), None, "the answer takes the place of the intent");
}

#[test]
fn where_no_intent_can_be_written_nothing_is_sent() {
    let world = strict();
    world.insert_pair(1, minutes(10));
    let faulty = FaultyStore::new(
        world.store.clone(),
        |call: &str, _| {
            if call == "commit" { Fault::Before } else { Fault::None }
        },
    );
    assert!(world.try_run(&world.engine_on(faulty), &RunRequest::all(RunKind::Scheduled)).is_err());
    assert_eq!(world.script.drain(), 0);
}

#[test]
fn where_no_answer_could_be_kept_nothing_is_sent_and_others_go_on() {
    let world = strict();
    world.insert_pair(1, minutes(10));
    world.journal.fill(true);
    let report = world.night(&world.engine());
    assert_eq!((report.deferred, report.due, world.script.drain()), (1, 1, 0));
    assert_eq!((state(&world, 1), world.attempts(1)), (None, 0), "the intent is taken back");

    world.journal.fill(false);
    let engine = world.engine();
    world.serve(&engine, seconds(60));
    assert_eq!((world.generation(1), world.script.drain()), (1, 1));

    let world = World::rotating(Class::Extend);
    world.insert_pair(1, minutes(10));
    world.journal.fill(true);
    assert_eq!(world.night(&world.engine()).refreshed, 1);
}

#[test]
fn an_intent_whose_answer_was_lost_is_taken_back_and_sent_once() {
    let world = strict();
    world.insert_pair(1, minutes(15));
    let plan = |call: &str, count| if call == "commit" && count <= 2 { Fault::After } else { Fault::None };
    let engine = world.engine_on(FaultyStore::new(world.store.clone(), plan));
    let report = world.night(&engine);
    assert_eq!((report.deferred, world.script.drain(), state(&world, 1)), (1, 0, None));
    world.serve(&engine, seconds(30));
    assert_eq!((world.generation(1), world.script.drain()), (1, 1));
}

#[test]
fn what_was_answered_while_the_database_was_away_is_stored_when_it_is_back() {
    for class in [Class::Strict, Class::Grace, Class::Extend] {
        let world = World::rotating(class);
        for id in 1..=20 {
            world.insert_pair(id, minutes(10));
        }
        let faulty = FaultyStore::new(world.store.clone(), |_: &str, _| Fault::None);
        let engine = world.engine_on(faulty.clone());
        world.script.answer(move |asked| {
            faulty.set(Condition::Unreachable);
            Reply::rotated(&asked.token, hours(1))
        });
        assert!(world.try_run(&engine, &RunRequest::all(RunKind::Scheduled)).is_err(), "{class:?}");
        let called = world.script.drain();
        assert!(called > 0 && (1..=20).all(|id| world.generation(id) == 0), "{class:?}");
        drop(engine);

        // Another process, of the same machine.
        let engine = world.engine();
        world.script.answer(|asked| Reply::rotated(&asked.token, hours(1)));
        world.clock.advance(seconds(60));
        world.serve(&engine, seconds(20));
        let again = world.script.tokens().len();
        assert!((1..=20).all(|id| world.generation(id) == 1), "{class:?}");
        assert_eq!(called + again, 20, "{class:?}: nobody is asked twice");
    }
}

#[test]
fn a_lost_answer_leaves_the_access_token_in_use_and_one_last_try() {
    let world = strict();
    world.insert_pair(1, minutes(16));
    lose_the_first(&world);
    let engine = world.engine();
    let report = world.night(&engine);
    assert_eq!((report.failed, world.attempts(1), world.script.drain()), (1, 1, 1));
    assert!(matches!(state(&world, 1), Some(State::Uncertain { is_last: false, .. })));
    assert_eq!(world.token(1), "a-1-0");

    // Whoever insists is not listened to.
    let force = RunRequest { force: true, ids: vec![(0, "1".to_owned())], ..RunRequest::all(RunKind::ByHand) };
    let report = world.try_run(&engine, &force).expect("runs");
    assert_eq!((report.deferred, report.failed, world.attempts(1)), (1, 0, 1));
    world.serve(&engine, seconds(11 * 60));
    assert_eq!(world.script.drain(), 0, "a quarter of the life that was left is not reached");

    world.serve(&engine, seconds(90));
    assert_eq!((world.script.drain(), world.generation(1)), (1, 1));
    assert_eq!((state(&world, 1), world.attempts(1), world.flag(1)), (None, 0, false));
}

#[test]
fn a_last_try_without_an_answer_is_the_end_and_the_customer_hears_of_it_once() {
    let world = strict();
    world.insert_pair(1, minutes(16));
    world.script.answer(|_| Reply::lost());
    let engine = world.engine();
    world.night(&engine);
    world.serve(&engine, seconds(20 * 60));
    assert_eq!(world.script.drain(), 2, "the first and the last");
    assert!(matches!(state(&world, 1), Some(State::NeedsReconnect { .. })));
    assert!(world.flag(1));
    world.serve_hourly(&engine, 50);
    assert_eq!(world.script.drain(), 0, "never again");
    let told = world.mail.kinds().len();
    assert_eq!(told, 1, "{:?}", world.mail.kinds());

    // The customer's login ends it.
    world.script.answer(|asked| Reply::rotated(&asked.token, hours(1)));
    world.store.change_connection(0, "1", |row| {
        row.token = Some(Secret::new("a-1-7"));
        row.refresh_token = Some(Secret::new("r-1-7"));
        row.expires_at = Some(world.now() + hours(1));
    });
    world.serve(&engine, seconds(60));
    assert!(!world.flag(1));
}

#[test]
fn a_process_that_dies_in_a_call_leaves_an_uncertain_connection_to_the_others() {
    let world = strict();
    world.insert_pair(1, minutes(18));
    die_in_calls(&world);
    assert_eq!(world.script.drain(), 1);

    world.script.answer(|asked| Reply::rotated(&asked.token, hours(1)));
    let other = world.engine();
    world.serve(&other, seconds(100));
    assert_eq!(world.script.drain(), 0);
    assert!(
        world.memory(1).is_some_and(|memory| memory.incident.is_some()),
        "it is told in the history and in `status`"
    );
    world.serve(&other, seconds(17 * 60));
    assert_eq!((world.script.drain(), world.generation(1)), (1, 1), "the last try");
}

#[test]
fn many_last_tries_that_are_refused_are_no_sign_of_trouble_at_the_app() {
    let world = strict();
    for id in 1..=30 {
        world.insert_pair(id, minutes(18));
    }
    die_in_calls(&world);
    assert_eq!(world.script.drain(), 30);

    world.script.answer(|_| Reply::invalid_grant());
    let engine = world.engine();
    world.serve(&engine, seconds(100));
    world.clock.advance(seconds(15 * 60));
    let report = world.night(&engine);
    assert_eq!((report.failed, report.deferred, world.script.drain()), (30, 0, 30));
    assert!((1..=30).all(|id| matches!(state(&world, id), Some(State::NeedsReconnect { .. }))));
    assert!(world.alarms().is_empty(), "{:?}", world.alarms());
}

#[test]
fn what_the_database_refuses_to_store_is_sent_by_nobody_else() {
    let world = strict();
    world.insert_pair(1, minutes(18));
    world.store.refuse_row(0, "1", Some("value too long for type character varying(20)"));
    let engine = world.engine();
    assert_eq!((world.night(&engine).failed, world.script.drain()), (1, 1));
    world.store.refuse_row(0, "1", None);

    let is_kept = |state: Option<State>| matches!(state, Some(State::Uncertain { is_last: true, .. }));
    assert!(is_kept(state(&world, 1)), "nobody makes a last try");
    let other = world.engine_elsewhere();
    world.serve(&other, seconds(40 * 60));
    assert!(is_kept(state(&world, 1)) && world.script.drain() == 0, "another replica has not got the answer");

    world.serve(&engine, seconds(20));
    assert_eq!(
        (world.generation(1), world.script.drain(), world.flag(1)),
        (1, 0, false),
        "it is stored from the journal"
    );
}

#[test]
fn a_last_try_of_which_nothing_can_be_stored_is_the_last() {
    let world = strict();
    world.insert_pair(1, minutes(18));
    world.store.refuse_row(0, "1", Some("value too long for type character varying(20)"));
    world.script.answer(|_| Reply::lost());
    let engine = world.engine();
    world.night(&engine);
    assert_eq!(world.script.drain(), 1);
    world.serve(&engine, seconds(3 * 3600));
    assert_eq!(world.script.drain(), 1, "the last try, and no other");
}

#[test]
fn a_refusal_of_which_nothing_can_be_stored_is_not_asked_for_again() {
    let world = strict();
    world.insert_pair(1, minutes(18));
    world.store.refuse_row(0, "1", Some("value too long for type character varying(20)"));
    world.script.answer(|_| Reply::invalid_grant());
    let engine = world.engine();
    world.night(&engine);
    world.serve(&engine, seconds(3 * 3600));
    assert_eq!(world.script.drain(), 1);
    assert!(matches!(state(&world, 1), Some(State::NeedsReconnect { .. })));
}

/// A standby without the latest commits takes over two seconds after a run has begun.
fn fail_over_in_a_run(world: &World, engine: &crate::engine::Engine) {
    let before = world.store.snapshot();
    let request = RunRequest::all(RunKind::Scheduled);
    let failover = async {
        crate::clock::Clock::sleep(&world.clock, seconds(2)).await;
        world.store.fail_over(before);
    };
    let (report, ()) = world.clock.run(join(engine.run(&request, &Stop::never(), &|_| {}), failover));
    report.expect("runs");
}

#[test]
fn an_intent_that_a_failover_has_lost_is_put_there_again_by_who_has_sent_it() {
    // The answer comes, or is given up, after the standby has taken over: the lease is gone.
    for reply in [|| Reply::lost().after(seconds(30)), || Reply::invalid_grant().after(seconds(10))] {
        let world = strict();
        world.insert_pair(1, minutes(18));
        world.script.answer(move |_| reply());
        let engine = world.engine();
        fail_over_in_a_run(&world, &engine);
        assert_eq!(world.script.drain(), 1);
        world.serve(&engine, seconds(20));
        assert!(matches!(state(&world, 1), Some(State::Uncertain { .. } | State::NeedsReconnect { .. })));
        world.serve(&world.engine_elsewhere(), seconds(300));
        assert_eq!(world.script.drain(), 0, "it is sent once");
    }
}

#[test]
fn what_a_failover_has_lost_of_a_spent_token_is_put_there_again_by_who_had_written_it() {
    // The answer is there at once, and so is the commit that the standby never gets.
    let world = strict();
    world.insert_pair(1, minutes(18));
    world.script.answer(|_| Reply::lost());
    let engine = world.engine();
    let before = world.store.snapshot();
    world.night(&engine);
    world.store.fail_over(before);
    assert!(state(&world, 1).is_none() && world.script.drain() == 1);
    world.serve(&engine, seconds(20));
    assert!(matches!(state(&world, 1), Some(State::Uncertain { .. })));
    world.serve(&world.engine_elsewhere(), seconds(300));
    assert_eq!(world.script.drain(), 0, "it is sent once");
}

#[test]
fn a_last_try_that_a_failover_has_lost_is_put_there_again_over_the_first() {
    let world = strict();
    world.insert_pair(1, minutes(18));
    world.script.answer(|_| Reply::lost());
    let engine = world.engine();
    world.night(&engine);
    assert!(matches!(state(&world, 1), Some(State::Uncertain { is_last: false, .. })));
    let before = world.store.snapshot();
    world.serve(&engine, seconds(17 * 60));
    assert!(matches!(state(&world, 1), Some(State::NeedsReconnect { .. })));
    assert_eq!(world.script.drain(), 2, "once, and the last try");
    world.store.fail_over(before);
    world.serve(&engine, seconds(20));
    assert!(matches!(state(&world, 1), Some(State::NeedsReconnect { .. })));
    world.serve(&world.engine_elsewhere(), seconds(1800));
    assert_eq!(world.script.drain(), 0, "there is no third");
}

#[test]
fn a_refusal_of_what_the_app_has_used_itself_is_a_lost_race() {
    let world = strict();
    world.insert_pair(1, minutes(10));
    let store = world.store.clone();
    let expires_at = world.now() + hours(1);
    let clock = world.clock.clone();
    world.script.answer(move |_| Reply::invalid_grant());
    let engine = world.engine();
    let request = RunRequest::all(RunKind::Scheduled);
    let app = async {
        crate::clock::Clock::sleep(&clock, std::time::Duration::from_millis(600)).await;
        store.change_connection(0, "1", |row| {
            row.token = Some(Secret::new("a-1-1"));
            row.refresh_token = Some(Secret::new("r-1-1"));
            row.expires_at = Some(expires_at);
        });
    };
    let (report, ()) = world.clock.run(join(engine.run(&request, &Stop::never(), &|_| {}), app));
    let report = report.expect("runs");
    assert_eq!((report.superseded, report.failed, report.warned), (1, 0, 0));
    assert_eq!((world.generation(1), world.flag(1), world.outbox().len()), (1, false, 0));
}

#[test]
fn a_refusal_is_believed_at_once_and_never_asked_about_again() {
    let world = strict();
    world.insert_pair(1, minutes(10));
    world.script.answer(|_| Reply::invalid_grant());
    let engine = world.engine();
    let report = world.night(&engine);
    assert_eq!((report.failed, report.warned, world.flag(1)), (1, 1, true));
    world.serve_hourly(&engine, 50);
    assert_eq!(world.script.drain(), 1);
}

#[test]
fn what_a_server_that_takes_over_does_not_know_is_stored_again_and_not_sent_again() {
    let world = strict();
    world.insert_pair(1, minutes(10));
    let engine = world.engine();
    let before = world.row(1);
    assert_eq!(world.night(&engine).refreshed, 1);
    assert_eq!(world.script.drain(), 1);

    // The standby has not got the commit.
    world.store.insert_connection(0, before.clone());
    world.store.be_taken_over();
    world.serve(&engine, seconds(150));
    assert_eq!((world.generation(1), world.script.drain()), (1, 0));

    // And where it is not noticed in time: the journal itself knows that the generation is spent.
    world.store.insert_connection(0, before);
    let report = world.night(&engine);
    assert_eq!((report.deferred, world.script.drain()), (1, 0));
    world.serve(&engine, seconds(20));
    assert_eq!((world.generation(1), world.script.drain()), (1, 0));
}

#[test]
fn what_a_new_server_does_not_know_is_brought_back_in_the_middle_of_a_long_pass() {
    let mut world = strict();
    world.concurrency = 1;
    world.insert_pair(1, minutes(4));
    let before = world.row(1);
    let engine = world.engine();
    assert_eq!((world.night(&engine).refreshed, world.script.drain()), (1, 1));

    for id in 2..=20 {
        world.insert_pair(id, minutes(15));
    }
    world.script.answer(|asked| Reply::rotated(&asked.token, hours(1)).after(seconds(25)));
    let store = world.store.clone();
    let fails_over = async {
        crate::clock::Clock::sleep(&world.clock, seconds(30)).await;
        store.insert_connection(0, before);
        store.be_taken_over();
        crate::clock::Clock::sleep(&world.clock, seconds(40)).await;
        assert_eq!(world.generation(1), 1, "long before the pass is over");
    };
    let request = RunRequest::all(RunKind::Scheduled);
    let never = Stop::never();
    let (report, ()) = world.clock.run(join(engine.run(&request, &never, &|_| {}), fails_over));
    report.expect("runs");
    assert_eq!(world.script.tokens().iter().filter(|token| token.as_str() == "r-1-0").count(), 0);
}

#[test]
fn after_a_server_has_taken_over_others_are_given_time_to_bring_what_they_know() {
    let world = strict();
    let engine = world.engine();
    world.serve(&engine, seconds(10));
    world.store.be_taken_over();
    world.insert_pair(1, minutes(10));
    world.serve(&engine, seconds(30));
    assert_eq!(world.script.drain(), 0);
    world.serve(&engine, seconds(110));
    assert_eq!((world.generation(1), world.script.drain()), (1, 1));
}

#[test]
fn what_is_in_doubt_is_told_to_nobody_before_others_have_brought_what_they_know() {
    let world = strict();
    world.insert_pair(1, minutes(6));
    die_in_calls(&world);
    world.clock.advance(seconds(60));
    let engine = world.engine();
    world.clock.run(engine.sweep()).expect("sweeps");
    assert!(world.flag(1), "otherwise it is told at once: little is left");

    let world = strict();
    world.serve(&world.engine(), seconds(10));
    world.insert_pair(1, minutes(6));
    die_in_calls(&world);
    world.clock.advance(seconds(60));
    world.store.be_taken_over();
    let engine = world.engine();
    world.serve(&engine, seconds(50));
    assert!(!world.flag(1));
    world.serve(&engine, seconds(110));
    assert!(world.flag(1));
}

#[test]
fn who_is_started_after_a_server_has_taken_over_gives_others_the_same_time() {
    let world = strict();
    world.serve(&world.engine(), seconds(10));
    world.store.be_taken_over();
    world.insert_pair(1, minutes(10));
    assert_eq!(world.night(&world.engine()).deferred, 1);
    world.clock.advance(seconds(30));
    let handed = world.clock.run(world.engine().token(0, "1", minutes(30), &Stop::never())).expect("it lives");
    assert_eq!((handed.is_short, world.script.drain()), (true, 0));
    world.clock.advance(seconds(91));
    assert_eq!((world.night(&world.engine()).refreshed, world.script.drain()), (1, 1));
}

#[test]
fn tokens_of_an_hour_are_kept_alive_all_day_without_a_run() {
    let world = strict();
    for id in 1..=5 {
        world.insert_pair(id, minutes(50));
    }
    let engine = world.engine();
    let store = world.store.clone();
    let mut least = SignedDuration::from_hours(1);
    for _ in 0..120 {
        world.serve(&engine, seconds(300));
        store.each_row(0, |row| least = least.min(row.expires_at.unwrap().duration_since(world.now())));
    }
    assert!(least > minutes(14), "due with a third of their life left, never later: {least:?}");
    let calls = world.script.drain();
    assert!((5 * 14..=5 * 16).contains(&calls), "ten hours, every forty minutes: {calls}");
    assert!(world.mail.kinds().is_empty());
}

#[test]
fn after_a_night_without_perene_refresh_tokens_bring_everything_back() {
    let world = strict();
    world.insert_pair(1, minutes(50));
    world.clock.advance(seconds(8 * 3_600));
    let engine = world.engine();
    world.serve(&engine, seconds(60));
    assert_eq!((world.generation(1), world.script.drain()), (1, 1));
}

#[test]
fn a_row_without_a_refresh_token_has_nothing_to_send() {
    let world = strict();
    world.insert(1, "a-1-0", Some(minutes(10)));
    world.insert_pair(2, minutes(10));
    world.store.change_connection(0, "2", |row| row.refresh_token = Some(Secret::new("")));
    let report = world.night(&world.engine());
    assert_eq!((report.failed, world.script.drain()), (2, 0));
    assert!(world.row(1).error.is_some_and(|text| text.contains("no refresh token")));
}

#[test]
fn a_token_that_lives_long_enough_is_handed_out_as_it_is() {
    let world = strict();
    world.insert_pair(1, minutes(30));
    let engine = world.engine();
    let handed = world.clock.run(engine.token(0, "1", minutes(10), &Stop::never())).expect("a token");
    assert_eq!((handed.token.expose(), handed.is_short, world.script.drain()), ("a-1-0", false, 0));
}

#[test]
fn many_who_ask_at_once_cause_one_refresh() {
    for class in [Class::Strict, Class::Extend] {
        let world = World::rotating(class);
        world.insert_pair(1, minutes(5));
        world.script.answer(|asked| Reply::rotated(&asked.token, hours(1)).after(seconds(2)));
        let engines: Vec<_> = (0..10).map(|_| world.engine()).collect();
        let never = Stop::never();
        let asking = engines.iter().map(|engine| engine.token(0, "1", minutes(10), &never));
        let handed = world.clock.run(futures_util::future::join_all(asking));
        assert!(handed.iter().all(|handed| handed.as_ref().expect("a token").token.expose() == "a-1-1"));
        assert_eq!(world.script.drain(), 1, "{class:?}");
        assert_eq!(world.attempts(1), 0);
    }
}

#[test]
fn many_who_ask_for_more_than_a_token_lives_cause_one_refresh_too() {
    let world = strict();
    world.insert_pair(1, minutes(50));
    world.script.answer(|asked| Reply::rotated(&asked.token, hours(1)).after(seconds(2)));
    let engines: Vec<_> = (0..10).map(|_| world.engine()).collect();
    let never = Stop::never();
    let asking = engines.iter().map(|engine| engine.token(0, "1", minutes(120), &never));
    let handed = world.clock.run(futures_util::future::join_all(asking));
    let is_newest = |handed: &Result<crate::engine::token::Handed, NoToken>| {
        handed.as_ref().is_ok_and(|handed| handed.is_short && handed.token.expose() == "a-1-1")
    };
    assert!(handed.iter().all(is_newest), "{handed:?}");
    assert_eq!(world.script.drain(), 1);
}

#[test]
fn many_who_ask_while_the_provider_is_down_cause_the_tries_of_one() {
    let world = World::rotating(Class::Grace);
    world.insert_pair(1, minutes(5));
    world.script.answer(|_| Reply::down().after(seconds(2)));
    let alone = World::rotating(Class::Grace);
    alone.insert_pair(1, minutes(5));
    alone.script.answer(|_| Reply::down().after(seconds(2)));
    let never = Stop::never();
    alone.clock.run(alone.engine().token(0, "1", minutes(10), &never)).expect("it lives");

    let engines: Vec<_> = (0..10).map(|_| world.engine()).collect();
    let asking = engines.iter().map(|engine| engine.token(0, "1", minutes(10), &never));
    let handed = world.clock.run(futures_util::future::join_all(asking));
    assert!(handed.iter().all(|handed| handed.as_ref().is_ok_and(|handed| handed.is_short)), "{handed:?}");
    assert_eq!(world.script.drain(), alone.script.drain());
}

#[test]
fn while_the_provider_is_down_a_living_token_is_handed_out_and_a_dead_one_is_not() {
    let world = strict();
    world.insert_pair(1, minutes(5));
    world.insert_pair(2, minutes(-5));
    world.script.answer(|_| Reply::down());
    let engine = world.engine();
    let handed = world.clock.run(engine.token(0, "1", minutes(10), &Stop::never())).expect("it lives");
    assert_eq!((handed.token.expose(), handed.is_short), ("a-1-0", true));
    let refused = world.clock.run(engine.token(0, "2", minutes(10), &Stop::never())).expect_err("it is dead");
    assert!(matches!(refused, NoToken::Expired { .. }), "{refused}");
    assert_eq!((world.attempts(1), world.attempts(2)), (0, 0), "asking for a token is no run");
}
