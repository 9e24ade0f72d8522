//! Leases: what a replica has in flight, nobody else sends; and what it lost, it does not write.

use std::pin::pin;

use futures_util::future::{join, select};

use crate::clock::Clock;
use crate::engine::testing::{World, days, renew, seconds};
use crate::engine::{RunKind, RunRequest, Stop};
use crate::store::faulty::{Fault, FaultyStore};

#[test]
fn what_another_replica_has_in_flight_is_left_to_it() {
    let world = World::new();
    world.fleet(10, "IG");
    world.script.answer(|asked| renew(asked).after(seconds(20)));
    let (first, second) = (world.engine(), world.engine());
    let request = RunRequest::all(RunKind::Scheduled);
    let (one, two) =
        world.clock.run(join(async { first.run(&request, &Stop::never(), &|_| {}).await.expect("runs") }, async {
            world.clock.sleep(seconds(5)).await;
            second.run(&request, &Stop::never(), &|_| {}).await.expect("runs")
        }));
    assert_eq!((one.refreshed, one.due), (10, 10));
    assert_eq!((two.due, two.leased_elsewhere), (0, 10));
    assert_eq!(world.script.calls().len(), 10);
}

#[test]
fn leases_are_prolonged_while_work_goes_on() {
    let mut world = World::new();
    world.concurrency = 1;
    world.fleet(10, "IG");
    world.script.answer(|asked| renew(asked).after(seconds(25)));
    let (first, second) = (world.engine(), world.engine());
    let request = RunRequest::all(RunKind::Scheduled);
    let (one, two) =
        world.clock.run(join(async { first.run(&request, &Stop::never(), &|_| {}).await.expect("runs") }, async {
            world.clock.sleep(seconds(200)).await;
            second.run(&request, &Stop::never(), &|_| {}).await.expect("runs")
        }));
    assert_eq!((one.refreshed, two.refreshed), (10, 0));
    assert_eq!(world.script.calls().len(), 10);
}

#[test]
fn a_replica_that_slept_over_its_lease_writes_nothing() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(2)));
    // The first replica's call hangs for two minutes, and its database does not prolong.
    let mut calls = 0;
    world.script.answer(move |asked| {
        calls += 1;
        let reply = crate::engine::testing::Reply::granted(&format!("IG-of-call-{calls}"), days(60));
        let _ = asked;
        reply.after(seconds(if calls == 1 { 120 } else { 1 }))
    });
    let plan = |call: &str, _| if call == "extend" { Fault::Before } else { Fault::None };
    let first = world.engine_on(FaultyStore::new(world.store.clone(), plan));
    let second = world.engine();
    let request = RunRequest::all(RunKind::Scheduled);
    let (one, two) =
        world.clock.run(join(async { first.run(&request, &Stop::never(), &|_| {}).await.expect("runs") }, async {
            world.clock.sleep(seconds(60)).await;
            second.run(&request, &Stop::never(), &|_| {}).await.expect("runs")
        }));
    assert_eq!((two.refreshed, one.refreshed, one.superseded), (1, 0, 1));
    assert_eq!(world.token(1), "IG-of-call-2");
    assert_eq!(world.store.writes(0), (1, 0));
}

#[test]
fn a_killed_replica_loses_nothing_and_its_leases_lapse() {
    let world = World::new();
    world.fleet(100, "IG");
    world.script.answer(|asked| renew(asked).after(seconds(10)));
    let (first, second) = (world.engine(), world.engine());
    let request = RunRequest::all(RunKind::Scheduled);
    world.clock.run(async {
        let stop = Stop::never();
        let progress = |_: &crate::engine::Report| {};
        let killed = pin!(first.run(&request, &stop, &progress));
        select(killed, pin!(world.clock.sleep(seconds(5)))).await;
    });
    let report = world.night(&second);
    assert_eq!((report.due, report.leased_elsewhere), (0, 100));
    world.clock.advance(seconds(50));
    world.script.answer(renew);
    let report = world.night(&second);
    assert_eq!((report.due, report.refreshed, report.leased_elsewhere), (100, 100, 0));
}
