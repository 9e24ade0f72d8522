//! Quick further tries and second looks: at most three calls for one row in one run.

use perene_policy::{Endpoint, Outcome};

use crate::engine::testing::{Reply, World, days, renew};

/// When the calls came, in seconds since the first.
fn seconds(world: &World) -> Vec<i64> {
    let calls = world.script.calls();
    calls.iter().map(|asked| asked.at.duration_since(calls[0].at).as_secs()).collect()
}

#[test]
fn what_may_pass_is_tried_after_one_second_and_after_three_more() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(5)));
    world.script.answer(|_| Reply::down());
    let report = world.night(&world.engine());
    assert_eq!(seconds(&world), [0, 1, 4]);
    assert_eq!((report.due, report.failed), (1, 1));
}

#[test]
fn a_further_try_that_succeeds_is_a_success() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(5)));
    world.script.answer_one("IG-1", [Reply::down()]);
    let report = world.night(&world.engine());
    assert_eq!((report.refreshed, report.failed, world.attempts(1)), (1, 0, 0));
    assert_eq!(seconds(&world), [0, 1]);
    assert!(world.memory(1).is_none(), "nothing has happened");
}

#[test]
fn a_refusal_is_looked_at_again_a_second_later_by_the_same_call() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(5)));
    world.script.answer(|_| Reply::dead());
    let report = world.night(&world.engine());
    assert_eq!(seconds(&world), [0, 1]);
    assert_eq!(report.outcomes.get(&Outcome::NeedsReconnect), Some(&1));
}

#[test]
fn a_refusal_by_facebook_is_looked_at_again_by_debug_token() {
    let world = World::new();
    world.insert(1, "EAA-1", Some(days(5)));
    world.script.answer(|_| Reply::dead());
    world.night(&world.engine());
    let endpoints: Vec<Endpoint> = world.script.calls().into_iter().map(|asked| asked.endpoint).collect();
    assert_eq!(endpoints, [Endpoint::Exchange, Endpoint::DebugToken]);
    assert_eq!(seconds(&world), [0, 1]);
}

#[test]
fn a_refusal_that_is_not_repeated_is_not_believed() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(5)));
    world.script.answer_one("IG-1", [Reply::dead()]);
    assert_eq!(world.night(&world.engine()).refreshed, 1);

    let world = World::new();
    world.insert(1, "EAA-1", Some(days(5)));
    world.script.answer_one("EAA-1", [Reply::dead()]);
    let report = world.night(&world.engine());
    assert_eq!(report.outcomes.get(&Outcome::Transient), Some(&1), "debug_token finds the token sound");
    assert!(!world.flag(1));
}

#[test]
fn however_the_answers_are_mixed_there_are_three_calls_at_the_most() {
    for (token, pattern) in
        [("IG-1", "dtd"), ("IG-1", "tdt"), ("IG-1", "ttd"), ("EAA-1", "dtt"), ("EAA-1", "ddd"), ("TH-1", "tdd")]
    {
        let world = World::new();
        world.insert(1, token, Some(days(5)));
        let mut pattern = pattern.chars().cycle();
        world.script.answer(move |_| if pattern.next() == Some('d') { Reply::dead() } else { Reply::down() });
        world.night(&world.engine());
        assert!(world.script.calls().len() <= 3, "{token}: {:?}", world.script.calls());
        assert_eq!(world.attempts(1), 1);
    }
}

#[test]
fn one_that_is_tried_again_does_not_hold_up_those_behind_it() {
    let mut world = World::new();
    world.concurrency = 1;
    world.fleet(3, "IG");
    world.script.answer(|asked| if asked.token == "IG-1" { Reply::down() } else { renew(asked) });
    world.night(&world.engine());
    assert_eq!(world.script.tokens(), ["IG-1", "IG-2", "IG-3", "IG-1", "IG-1"]);
}
