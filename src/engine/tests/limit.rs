//! The provider's limits: kept, and steered by what it tells of them.

use perene_policy::Outcome;

use crate::engine::testing::{Reply, World, days, renew, seconds};

#[test]
fn code_4_stops_the_app_and_the_rest_is_put_off_and_counted() {
    let mut world = World::new();
    world.concurrency = 8;
    world.fleet(1_300, "IG");
    world.script.answer(|_| Reply::limited());
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.deferred, report.failed), (1_300, 1_300, 0));
    assert_eq!(report.outcomes.get(&Outcome::RateLimited), Some(&1_300));
    assert!(report.has_trouble());
    assert!(world.script.calls().len() <= 8, "{} calls", world.script.calls().len());
    assert!((1..=1_300).all(|id| world.attempts(id) == 0));
    assert_eq!(world.alarms(), ["app_limited"]);
    assert_eq!(world.outbox(), []);
}

#[test]
fn without_a_time_it_waits_an_hour_and_goes_on_by_itself() {
    let world = World::new();
    world.fleet(300, "IG");
    world.script.answer(|_| Reply::limited());
    let engine = world.engine();
    world.night(&engine);
    world.script.drain();
    world.script.answer(renew);
    world.serve(&engine, seconds(59 * 60));
    assert_eq!(world.script.drain(), 0);
    world.serve(&engine, seconds(120));
    assert!((1..=300).all(|id| world.token(id).ends_with('+')));
    world.serve(&engine, seconds(60));
    assert!(world.alarms().is_empty());
}

#[test]
fn what_was_put_off_is_taken_up_though_the_process_dies_that_had_begun_to() {
    let world = World::new();
    world.fleet(300, "IG");
    world.script.answer(|_| Reply::limited().with("Retry-After", "120"));
    let engine = world.engine();
    world.night(&engine);
    world.clock.advance(seconds(125));
    world.script.answer(|asked| renew(asked).after(seconds(20)));
    // It has calls in flight, and nothing of them is written.
    world.clock.run(async {
        let serving = std::pin::pin!(engine.serve(crate::engine::Stop::never()));
        let killed = std::pin::pin!(crate::clock::Clock::sleep(&world.clock, seconds(10)));
        drop(futures_util::future::select(serving, killed).await);
    });
    drop(engine);
    world.script.answer(renew);
    world.serve(&world.engine(), seconds(120));
    assert!((1..=300).all(|id| world.token(id).ends_with('+')));
}

#[test]
fn the_time_that_is_told_is_kept() {
    let world = World::new();
    world.fleet(300, "IG");
    world.script.answer(|_| Reply::limited().with("Retry-After", "120"));
    let engine = world.engine();
    world.night(&engine);
    world.script.drain();
    world.script.answer(renew);
    world.serve(&engine, seconds(110));
    assert_eq!(world.script.drain(), 0);
    world.serve(&engine, seconds(30));
    assert!((1..=300).all(|id| world.token(id).ends_with('+')));
}

#[test]
fn a_limit_that_lasts_is_asked_rarely() {
    let world = World::new();
    world.fleet(100, "IG");
    world.script.answer(|_| Reply::limited());
    let engine = world.engine();
    world.night(&engine);
    world.script.drain();
    world.serve_hourly(&engine, 23);
    let calls = world.script.drain();
    assert!(calls <= 6 * 64, "{calls} calls in a day, in bursts of what is in flight at once");
    assert!((1..=100).all(|id| world.attempts(id) == 0));
}

#[test]
fn a_limit_on_one_connection_leaves_the_others_alone() {
    let world = World::new();
    world.fleet(50, "IG");
    world.script.answer(|asked| match asked.token.as_str() {
        "IG-7" => Reply::error(400, 17, "(#17) User request limit reached"),
        _ => renew(asked),
    });
    let engine = world.engine();
    let report = world.night(&engine);
    assert_eq!((report.refreshed, report.deferred), (49, 1));
    assert_eq!(world.attempts(7), 0);
    world.script.drain();
    world.serve(&engine, seconds(59 * 60));
    assert_eq!(world.script.drain(), 0);
    world.serve(&engine, seconds(120));
    assert_eq!(world.script.tokens(), ["IG-7"]);
}

#[test]
fn from_75_percent_on_calls_are_spaced_out() {
    let mut world = World::new();
    world.concurrency = 4;
    world.fleet(40, "IG");
    world.script.answer(|asked| renew(asked).with("X-App-Usage", r#"{"call_count":80}"#));
    let report = world.night(&world.engine());
    assert_eq!(report.refreshed, 40);
    let calls = world.script.calls();
    for pair in calls.windows(2).skip(4) {
        assert!(pair[1].at.duration_since(pair[0].at).as_millis() >= 300, "{pair:?}");
    }
}

#[test]
fn from_95_percent_on_nothing_is_sent_for_a_while() {
    let mut world = World::new();
    world.concurrency = 4;
    world.fleet(300, "IG");
    world.script.answer(|asked| renew(asked).with("X-App-Usage", r#"{"call_count":96}"#));
    let engine = world.engine();
    let report = world.night(&engine);
    assert!(report.refreshed <= 4, "{report:?}");
    assert_eq!((report.due, report.failed), (300, 0));
    world.script.drain();
    world.script.answer(renew);
    world.serve(&engine, seconds(14 * 60));
    assert_eq!(world.script.drain(), 0);
    world.serve(&engine, seconds(20 * 60));
    assert!((1..=300).all(|id| world.token(id).ends_with('+')));
}

#[test]
fn an_instagram_token_of_today_waits_and_is_no_failure() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(3)));
    world.store.change_connection(0, "1", |row| row.refreshed_at = row.expires_at.map(|at| at - days(3)));
    let engine = world.engine();
    let report = world.night(&engine);
    assert_eq!(report.outcomes.get(&Outcome::TooYoung), Some(&1));
    assert_eq!((world.script.calls().len(), world.attempts(1)), (0, 0));
    world.serve_hourly(&engine, 25);
    assert_eq!(world.script.tokens(), ["IG-1"]);
}
