//! An app that is misconfigured: the operator's affair, and no customer's.

use perene_policy::answer::Usage;
use perene_policy::app::Sighting;
use perene_policy::{Grant, Outcome, Scope};

use crate::engine::testing::{Reply, World, days, renew, seconds};
use crate::engine::{RunKind, RunRequest};
use crate::store::Store;

fn misconfigured(count: i64) -> World {
    let world = World::new();
    world.fleet(count, "EAA");
    world.script.answer(|_| Reply::wrong_secret());
    world
}

#[test]
fn a_wrong_secret_holds_the_app_after_the_first_answers_and_counts_nobody() {
    let world = misconfigured(600);
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.deferred, report.failed), (600, 600, 0));
    assert_eq!(report.outcomes.get(&Outcome::Misconfigured), Some(&600));
    assert!(report.has_trouble());
    assert!(world.script.calls().len() <= 64, "{} calls", world.script.calls().len());
    assert!((1..=600).all(|id| world.attempts(id) == 0 && !world.flag(id)));
    assert_eq!(world.alarms(), ["app_misconfigured"]);
    assert_eq!(world.outbox(), []);
}

#[test]
fn the_other_apps_go_on() {
    let world = misconfigured(30);
    world.insert(100, "IG-1", Some(days(3)));
    world.script.answer(|asked| if asked.token.starts_with("EAA") { Reply::wrong_secret() } else { renew(asked) });
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.refreshed, report.deferred), (31, 1, 30));
}

#[test]
fn a_held_app_is_probed_by_one_call_in_five_minutes() {
    let world = misconfigured(300);
    let engine = world.engine();
    world.night(&engine);
    world.script.drain();
    world.serve(&engine, seconds(3_600));
    let probes = world.script.drain();
    assert!((10..=12).contains(&probes), "{probes} in an hour");
    assert!((1..=300).all(|id| world.attempts(id) == 0));
}

#[test]
fn another_secret_resumes_at_once() {
    let world = misconfigured(600);
    world.night(&world.engine());
    world.script.answer(renew);
    world.script.set_secret(Grant::Facebook, Some("the right one"));
    world.serve(&world.engine(), seconds(10));
    assert!((1..=600).all(|id| world.token(id).ends_with('+')));
    assert!(world.alarms().is_empty());
}

#[test]
fn a_probe_that_succeeds_resumes_the_rest() {
    let world = misconfigured(600);
    let engine = world.engine();
    world.night(&engine);
    world.script.answer(renew);
    world.serve(&engine, seconds(330));
    assert!((1..=600).all(|id| world.token(id).ends_with('+')));
    assert!(world.alarms().is_empty());
}

#[test]
fn somebody_who_asks_by_hand_need_not_wait_for_the_probe() {
    let world = misconfigured(600);
    let engine = world.engine();
    world.night(&engine);
    world.script.answer(renew);
    let report = world.try_run(&engine, &RunRequest::all(RunKind::ByHand)).expect("runs");
    assert_eq!(report.refreshed, 600);
}

#[test]
fn an_app_that_is_not_configured_is_misconfigured() {
    let world = World::new();
    world.fleet(1_500, "EAA");
    world.insert(2_000, "IG-1", Some(days(3)));
    world.script.set_secret(Grant::Facebook, None);
    let report = world.night(&world.engine());
    assert_eq!((report.due, report.refreshed, report.deferred), (1_501, 1, 1_500));
    assert_eq!(report.outcomes.get(&Outcome::Misconfigured), Some(&1_500));
    assert_eq!(world.script.tokens(), ["IG-1"]);
    assert!(world.store.leases().is_empty());
}

fn refused(connection: usize) -> Sighting {
    Sighting {
        connection: connection.to_string(),
        outcome: Outcome::Misconfigured,
        reason: "test",
        scope: Some(Scope::App),
        retry_after: None,
        usage: Usage::default(),
        is_in_a_row: true,
        is_repeated: false,
        life: None,
    }
}

#[test]
fn what_is_learnt_here_is_kept_whatever_another_replica_saves_meanwhile() {
    let world = World::new();
    world.insert(1, "EAA-1", Some(days(3)));
    let (here, there) = (world.engine(), world.engine());
    world.clock.run(async {
        here.load_apps(false).await.expect("loads");
        there.load_apps(false).await.expect("loads");
        let now = world.now();
        let name = here.provider(0).app(Grant::Facebook).expect("an app").name.clone();
        for connection in 0..10 {
            here.apps.learn(&name, refused(connection), now);
        }
        here.apps.save().await.expect("saves");
        there.load_apps(false).await.expect("loads");
        // The one is about to end what the other adds to, and is told that the app is well.
        let begun = there.apps.begin_backlog(&name);
        here.apps.leave_backlog(&name, now);
        here.apps.save().await.expect("saves");
        there.apps.end_backlog(&name, begun, now);
        there.apps.probed(&name, true, now);
        there.apps.save().await.expect("saves");
        here.load_apps(false).await.expect("loads");
        let (_, known) = world.store.app(&name).await.expect("reads").expect("it is known");
        assert!(known.has_backlog, "what was put off meanwhile is still to be sent");
        assert_eq!(known.hold.and_then(|hold| hold.app_is_well_at), Some(now));
    });
}
