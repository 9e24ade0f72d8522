//! The service: runs at their times, none twice, none left out.

use std::pin::pin;

use futures_util::future::{Either, join, select};
use jiff::SignedDuration;
use perene_policy::Grant;
use uuid::Uuid;

use crate::clock::Clock;
use crate::engine::testing::{Reply, World, days, hours, renew, seconds};
use crate::engine::{RunKind, RunRequest, Stop, StopSource};
use crate::store::faulty::{Condition, Fault, FaultyStore};
use crate::store::{Claim, Store, Which};

const HOUR: u64 = 3_600;

fn runs(world: &World) -> Vec<(String, String)> {
    world.store.runs().into_iter().map(|run| (run.kind, run.started_at.to_string())).collect()
}

#[test]
fn where_none_is_on_record_a_run_starts_at_once_and_only_one() {
    let world = World::new();
    world.clock.advance(seconds(5 * HOUR));
    world.insert(1, "IG-1", Some(days(2)));
    world.serve(&world.engine(), seconds(60));
    assert_eq!(world.token(1), "IG-1+");
    world.serve(&world.engine(), seconds(HOUR));
    assert_eq!(runs(&world), [("caught_up".to_owned(), "2026-11-23T08:00:00Z".to_owned())]);
}

#[test]
fn runs_start_at_their_time_every_night() {
    let world = World::new();
    let engine = world.engine();
    world.serve(&engine, seconds(60));
    for _ in 0..3 {
        world.next_night();
        world.clock.advance(seconds(3));
        world.serve(&engine, seconds(60));
    }
    let expected = ["2026-11-23", "2026-11-24", "2026-11-25", "2026-11-26"];
    let runs = world.store.runs();
    assert_eq!(runs.len(), expected.len(), "{runs:?}");
    for (run, day) in runs.iter().zip(expected).skip(1) {
        let late = run.started_at.duration_since(format!("{day}T03:00:00Z").parse().expect("a date"));
        assert!((0..=5).contains(&late.as_secs()), "{run:?}");
        assert_eq!(run.kind, "scheduled");
    }
}

#[test]
fn a_run_that_was_missed_is_caught_up_once() {
    let world = World::new();
    world.night(&world.engine());
    world.clock.advance(seconds(3 * 24 * HOUR + 5 * HOUR));
    world.insert(1, "IG-1", Some(days(2)));
    world.serve(&world.engine(), seconds(HOUR));
    assert_eq!(world.token(1), "IG-1+");
    let runs = runs(&world);
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[1].0, "caught_up");
}

#[test]
fn a_run_by_hand_stands_for_the_one_of_the_night() {
    let world = World::new();
    world.try_run(&world.engine(), &RunRequest::all(RunKind::ByHand)).expect("runs");
    world.serve(&world.engine(), seconds(HOUR));
    assert_eq!(world.store.runs().len(), 1);
}

#[test]
fn a_run_over_named_connections_stands_for_none() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(2)));
    let request = RunRequest { ids: vec![(0, "1".to_owned())], ..RunRequest::all(RunKind::ByHand) };
    assert_eq!(world.try_run(&world.engine(), &request).expect("runs").refreshed, 1);
    assert!(world.store.runs().is_empty());
}

#[test]
fn an_interrupted_run_finishes_its_calls_gives_back_the_rest_and_is_made_again() {
    let mut world = World::new();
    world.concurrency = 8;
    world.fleet(700, "IG");
    world.script.answer(|asked| renew(asked).after(seconds(2)));
    let engine = world.engine();
    let report = world.clock.run(async {
        let (source, stop) = StopSource::new();
        let end = async {
            world.clock.sleep(seconds(5)).await;
            source.stop();
        };
        join(engine.run(&RunRequest::all(RunKind::Scheduled), &stop, &|_| {}), end).await.0.expect("runs")
    });
    assert!(report.was_interrupted);
    assert_eq!(report.refreshed, 24, "three rounds of eight, the last one finished");
    assert_eq!(world.script.drain(), 24);
    assert!(world.store.leases().is_empty(), "what waited is given back");
    assert!((1..=24).all(|id| world.token(id).ends_with('+')));
    assert!(world.store.runs().iter().all(|run| run.finished_at.is_none()));
    world.script.answer(renew);
    world.serve(&world.engine(), seconds(10));
    assert_eq!(world.script.drain(), 676);
}

#[test]
fn after_a_stop_nothing_is_tried_a_second_time() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    let (source, stop) = StopSource::new();
    world.script.answer(move |_| {
        source.stop();
        Reply::down()
    });
    let engine = world.engine();
    let report = world.clock.run(engine.run(&RunRequest::all(RunKind::Scheduled), &stop, &|_| {})).expect("runs");
    assert_eq!(world.script.calls().len(), 1);
    assert_eq!((report.failed, world.attempts(1)), (1, 1), "what was answered is written");
    assert!(world.store.leases().is_empty());
}

#[test]
fn a_stop_before_the_start_makes_no_call() {
    let world = World::new();
    world.fleet(10, "IG");
    let (source, stop) = StopSource::new();
    source.stop();
    let engine = world.engine();
    let report = world.clock.run(engine.run(&RunRequest::all(RunKind::Scheduled), &stop, &|_| {})).expect("runs");
    assert!(report.was_interrupted);
    assert_eq!(world.script.calls().len(), 0);
}

#[test]
fn a_database_that_is_away_is_outlived() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(3)));
    let faulty = FaultyStore::new(world.store.clone(), |_: &str, _| Fault::None);
    let engine = world.engine_on(faulty.clone());
    world.clock.run(async {
        let (source, stop) = StopSource::new();
        let weather = async {
            world.clock.sleep(seconds(60)).await;
            faulty.set(Condition::Unreachable);
            world.insert(2, "IG-2", Some(days(3)));
            world.clock.sleep(seconds(24 * HOUR)).await;
            assert_eq!(world.token(2), "IG-2");
            faulty.set(Condition::Well);
            world.clock.sleep(seconds(30)).await;
            source.stop();
        };
        join(engine.serve(stop), weather).await.0.expect("serves");
    });
    assert_eq!(world.token(2), "IG-2+");
    assert_eq!(runs(&world).last().expect("runs").0, "caught_up");
}

#[test]
fn a_database_that_is_back_is_found_within_seconds() {
    for away in [1, 2, 3, 30, 601] {
        for condition in [Condition::Unreachable, Condition::ReadOnly] {
            let world = World::new();
            let faulty = FaultyStore::new(world.store.clone(), |_: &str, _| Fault::None);
            let engine = world.engine_on(faulty.clone());
            world.clock.run(async {
                let (source, stop) = StopSource::new();
                let weather = async {
                    faulty.set(condition);
                    world.insert(1, "IG-1", Some(days(3)));
                    world.clock.sleep(seconds(away)).await;
                    faulty.set(Condition::Well);
                    world.clock.sleep(seconds(3)).await;
                    source.stop();
                };
                // Away already when the service starts.
                join(weather, engine.serve(stop)).await.1.expect("serves");
            });
            assert_eq!(world.token(1), "IG-1+", "{condition:?} for {away} s");
        }
    }
}

#[test]
fn several_replicas_share_the_work_and_send_nothing_twice() {
    let mut world = World::new();
    world.concurrency = 16;
    world.fleet(900, "IG");
    world.script.answer(|asked| renew(asked).after(seconds(1)));
    let engines = [world.engine(), world.engine(), world.engine()];
    let reports = world.clock.run(futures_util::future::join_all(engines.iter().map(|engine| async {
        let request = RunRequest::all(RunKind::Scheduled);
        engine.run(&request, &Stop::never(), &|_| {}).await.expect("runs")
    })));
    let mut tokens = world.script.tokens();
    assert_eq!(tokens.len(), 900);
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 900);
    assert_eq!(reports.iter().map(|report| report.refreshed).sum::<u64>(), 900);
    assert!(reports.iter().all(|report| report.superseded == 0));
}

/// A replica that was killed ten seconds into its run, with so many calls in flight.
fn kill_one(world: &World, count: usize) {
    world.script.answer(|asked| renew(asked).after(seconds(20)));
    let first = world.engine();
    world.clock.run(async {
        let killed = pin!(first.serve(Stop::never()));
        let time = pin!(world.clock.sleep(seconds(10)));
        assert!(matches!(select(killed, time).await, Either::Right(_)), "it is in the middle of its calls");
    });
    assert_eq!(world.store.leases().len(), count);
}

#[test]
fn a_replica_that_dies_is_made_up_for_within_two_minutes() {
    let world = World::new();
    world.fleet(100, "IG");
    kill_one(&world, 100);
    world.script.answer(renew);
    world.serve(&world.engine(), seconds(90));
    assert!((1..=100).all(|id| world.token(id).ends_with('+')), "without waiting for the next night");
}

#[test]
fn whenever_a_replica_dies_its_leases_are_taken_over_within_a_minute() {
    for at in [2, 20, 31, 47, 55, 58, 99] {
        let mut world = World::new();
        world.concurrency = 10;
        world.fleet(100, "IG");
        world.script.answer(|asked| renew(asked).after(seconds(15)));
        let (first, second) = (world.engine(), world.engine());
        world.clock.run(async {
            let (source, stop) = StopSource::new();
            let death = async {
                select(pin!(first.serve(Stop::never())), pin!(world.clock.sleep(seconds(at)))).await;
                world.script.answer(renew);
                world.clock.sleep(seconds(60)).await;
                assert!((1..=100).all(|id| world.token(id).ends_with('+')), "dead at {at} s");
                source.stop();
            };
            let other = async {
                world.clock.sleep(seconds(1)).await;
                second.serve(stop).await.expect("serves");
            };
            join(death, other).await;
        });
    }
}

#[test]
fn a_run_that_left_rows_to_the_dead_and_died_before_it_made_up_for_them_is_made_once_more() {
    let mut world = World::new();
    world.concurrency = 10;
    world.fleet(100, "IG");
    world.script.answer(|asked| renew(asked).after(seconds(15)));
    world.clock.run(async {
        let (first, second) = (world.engine(), world.engine());
        // The one dies with ten calls in flight, the other when its run is done and those ten are still leased.
        let one = async {
            drop(select(pin!(first.serve(Stop::never())), pin!(world.clock.sleep(seconds(3)))).await);
            world.script.answer(renew);
        };
        let other = async {
            world.clock.sleep(seconds(1)).await;
            drop(select(pin!(second.serve(Stop::never())), pin!(world.clock.sleep(seconds(8)))).await);
        };
        join(one, other).await;
    });
    assert!((1..=100).any(|id| !world.token(id).ends_with('+')));
    world.serve(&world.engine(), seconds(60));
    assert!((1..=100).all(|id| world.token(id).ends_with('+')));
}

#[test]
fn what_a_failover_has_forgotten_is_refreshed_without_waiting_for_the_next_night() {
    let world = World::new();
    world.fleet(3, "IG");
    let engine = world.engine();
    world.clock.run(async {
        let (source, stop) = StopSource::new();
        let failover = async {
            world.clock.sleep(seconds(60)).await;
            assert_eq!(world.script.drain(), 3);
            // The old row is back, and the schedule's next time is a day away.
            world.insert(2, "IG-2", Some(days(3)));
            world.clock.sleep(seconds(60)).await;
            assert_eq!(world.script.drain(), 0, "a row that is due in between waits for its run");
            world.store.be_taken_over();
            world.clock.sleep(seconds(10)).await;
            source.stop();
        };
        join(engine.serve(stop), failover).await.0.expect("serves");
    });
    assert_eq!(world.script.tokens(), ["IG-2"]);
    assert_eq!(world.token(2), "IG-2+");
}

#[test]
fn what_is_made_up_for_counts_like_the_run_and_once() {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    kill_one(&world, 1);
    world.insert(2, "IG-2", Some(days(6)));
    world.script.answer(|_| Reply::down());
    world.serve(&world.engine(), seconds(300));
    assert_eq!((world.attempts(1), world.attempts(2)), (1, 1));
}

#[test]
fn a_run_for_which_others_never_have_nothing_in_flight_is_on_record_after_an_hour() {
    let world = World::new();
    world.fleet(2, "IG");
    let (ids, now) = (["1".to_owned()], world.now());
    let claim = Claim {
        source: 0,
        which: Which::Named { ids: &ids },
        grants: &Grant::META,
        holder: "elsewhere",
        fence: Uuid::from_u128(7),
        now,
        until: now + hours(10),
        after: None,
        limit: 1,
        overdue: SignedDuration::ZERO,
    };
    let engine = world.engine();
    world.clock.run(async {
        assert_eq!(world.store.claim(&claim).await.expect("claims").connections.len(), 1);
        let (source, stop) = StopSource::new();
        let is_finished = || world.store.runs()[0].finished_at.is_some();
        let end = async {
            world.clock.sleep(seconds(59 * 60)).await;
            assert!(!is_finished(), "somebody may have died over it");
            world.clock.sleep(seconds(2 * 60)).await;
            assert!(is_finished());
            source.stop();
        };
        join(engine.serve(stop), end).await.0.expect("serves");
    });
    assert_eq!(world.store.runs().len(), 1);
}
