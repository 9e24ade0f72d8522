//! Messages: sent until they are taken, for three days, and not when the incident is over.

use std::time::Duration;

use crate::engine::testing::{Reply, World, days, renew, seconds};
use crate::engine::{Engine, Stop};
use crate::notify::{Delivery, MessageKind};
use crate::store::faulty::{Fault, FaultyStore};
use crate::store::memory::Settlement;

const HOUR: u64 = 3_600;

/// A world in which one customer has just been warned, and nothing has been sent.
fn warned() -> (World, Engine) {
    let world = World::new();
    world.insert(1, "IG-1", Some(days(6)));
    world.script.answer(|_| Reply::dead());
    let engine = world.engine();
    assert_eq!(world.night(&engine).warned, 1);
    (world, engine)
}

fn later() -> Delivery {
    Delivery::Later { after: Duration::ZERO, why: "the server is away".to_owned() }
}

#[test]
fn a_message_is_tried_again_under_the_same_id_until_it_is_taken() {
    let (world, engine) = warned();
    world.mail.answer([later(), later(), later()]);
    world.serve(&engine, seconds(HOUR));
    let tries = world.mail.tries();
    let minutes: Vec<i64> = tries.iter().map(|(at, _)| at.duration_since(tries[0].0).as_mins()).collect();
    assert_eq!(minutes, [0, 1, 6, 21], "after 1, 5 and 15 minutes");
    assert!(tries.iter().all(|(_, message)| message.id == tries[0].1.id));
    assert_eq!(world.hook.kinds().len(), 1, "the other channel is not held up");
}

#[test]
fn the_receivers_own_time_is_kept_if_it_is_later() {
    let (world, engine) = warned();
    world.hook.answer([Delivery::Later { after: seconds(HOUR), why: "busy".to_owned() }]);
    world.serve(&engine, seconds(59 * 60));
    assert_eq!(world.hook.kinds().len(), 1);
    world.serve(&engine, seconds(120));
    assert_eq!(world.hook.kinds().len(), 2);
}

#[test]
fn after_three_days_it_is_given_up() {
    let (world, engine) = warned();
    world.mail.answer(std::iter::repeat_with(later).take(100));
    for _ in 0..5 * 24 * 6 {
        world.send(&engine);
        world.clock.advance(seconds(600));
    }
    let tries = world.mail.tries();
    assert!(tries.iter().all(|(_, message)| message.kind == MessageKind::NeedsReconnect));
    assert_eq!(tries.len(), 19, "the nineteenth comes after three days, and is the last");
    let mail = world.store.outbox().into_iter().find(|row| row.message.channel == "email").expect("the mail");
    assert!(matches!(mail.settlement, Some(Settlement::Dropped(_, why)) if why.contains("72 hours")));
}

#[test]
fn who_can_never_be_reached_is_not_tried_again() {
    let (world, engine) = warned();
    world.mail.answer([Delivery::Never { why: "no such mailbox".to_owned() }]);
    world.serve(&engine, seconds(HOUR));
    assert_eq!(world.mail.kinds().len(), 1);
}

#[test]
fn nobody_is_told_of_an_incident_that_is_over() {
    let (world, engine) = warned();
    world.script.answer(renew);
    world.next_night();
    assert_eq!(world.night(&engine).recovered, 1);
    world.send(&engine);
    assert!(world.mail.kinds().is_empty());
    assert_eq!(world.hook.kinds(), [(MessageKind::Recovered, "1".to_owned())]);
}

#[test]
fn the_address_is_the_one_at_the_time_of_sending() {
    let (world, engine) = warned();
    let mut user = world.store.user(0, "1").expect("the user");
    user.email = Some("new@example.com".to_owned());
    world.store.insert_user(0, user);
    world.send(&engine);
    let tries = world.mail.tries();
    let recipient = tries[0].1.recipient.clone().expect("a recipient");
    assert_eq!(recipient.email.as_deref(), Some("new@example.com"));
}

#[test]
fn a_message_whose_sender_died_is_sent_by_another() {
    let (world, engine) = warned();
    // It was taken, and never settled.
    let until = world.now() + jiff::SignedDuration::from_secs(120);
    let taken = world.clock.run(engine.store().take_outbox(9, world.now(), until)).expect("takes");
    assert_eq!(taken.len(), 2);
    assert_eq!(world.send(&engine), 0);
    world.clock.advance(seconds(120));
    assert_eq!(world.send(&world.engine()), 2);
}

#[test]
fn one_that_cannot_be_noted_keeps_none_of_the_others_from_being_sent_and_noted() {
    let (world, _) = warned();
    let plan = |call: &str, count| if call == "settle_outbox" && count == 1 { Fault::Before } else { Fault::None };
    let engine = world.engine_on(FaultyStore::new(world.store.clone(), plan));
    world.clock.run(engine.send_outbox(seconds(20), &Stop::never())).expect_err("one could not be noted");
    assert_eq!((world.mail.kinds().len(), world.hook.kinds().len()), (1, 1));
    let settled = world.store.outbox().into_iter().filter(|row| row.settlement.is_some()).count();
    assert_eq!(settled, 1, "the other one is");
}
