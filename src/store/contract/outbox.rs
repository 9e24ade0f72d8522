//! The outbox: every message once, in its time.

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::Fixture;
use super::world::{World, days, failed, leased, message, now, refreshed};
use crate::store::{Commit, Committed, Outgoing, Settled, Store};

fn minutes(count: i64) -> SignedDuration {
    SignedDuration::from_mins(count)
}

/// Puts these messages into the outbox, with a commit about connection 1.
async fn send<F: Fixture>(world: &World<F>, messages: Vec<Outgoing>) {
    if world.store.find(0, "1").await.expect("reads").is_none() {
        world.insert(1, "EAA", Some(now() + days(1))).await;
    }
    let connection = world.take(1).await;
    let decision = failed(&connection);
    let commit = Commit { outbox: messages, ..leased(connection, decision) };
    assert_eq!(world.commit(commit).await, Committed::Done);
}

async fn take<F: Fixture>(world: &World<F>, at: Timestamp) -> Vec<String> {
    let taken = world.store.take_outbox(10, at, at + minutes(1)).await.expect("takes");
    taken.into_iter().map(|message| message.id).collect()
}

pub(crate) async fn a_message_is_taken_once_and_leased<F: Fixture>() {
    let world = World::<F>::new().await;
    send(&world, vec![message("m1", now())]).await;
    assert_eq!(take(&world, now() - minutes(1)).await, [""; 0], "its time has not come");
    assert_eq!(take(&world, now()).await, ["m1"]);
    assert_eq!(take(&world, now()).await, [""; 0]);
    assert_eq!(take(&world, now() + minutes(1)).await, ["m1"], "a lapsed lease is taken over");
}

pub(crate) async fn the_same_message_is_kept_once<F: Fixture>() {
    let world = World::<F>::new().await;
    let mut second = message("m1", now());
    second.payload = "{}".to_owned();
    send(&world, vec![message("m1", now()), second.clone()]).await;
    send(&world, vec![second.clone()]).await;
    let taken = world.store.take_outbox(10, now(), now() + minutes(1)).await.expect("takes");
    assert_eq!(taken, [message("m1", now())], "the first one counts");
    world.store.settle_outbox("m1", &Settled::Sent, now()).await.expect("settles");
    send(&world, vec![second]).await;
    assert_eq!(take(&world, now() + days(1)).await, [""; 0], "also when it has been sent already");
}

pub(crate) async fn messages_come_oldest_first_and_at_most_so_many<F: Fixture>() {
    let world = World::<F>::new().await;
    send(&world, vec![message("m3", now()), message("m1", now() - minutes(9)), message("m2", now() - minutes(5))])
        .await;
    let taken = world.store.take_outbox(2, now(), now() + minutes(1)).await.expect("takes");
    assert_eq!(taken.iter().map(|message| message.id.as_str()).collect::<Vec<_>>(), ["m1", "m2"]);
    assert_eq!(take(&world, now()).await, ["m3"]);
}

pub(crate) async fn a_message_that_was_sent_or_dropped_is_gone<F: Fixture>() {
    let world = World::<F>::new().await;
    send(&world, vec![message("m1", now()), message("m2", now())]).await;
    assert_eq!(take(&world, now()).await.len(), 2);
    world.store.settle_outbox("m1", &Settled::Sent, now()).await.expect("settles");
    world.store.settle_outbox("m2", &Settled::Dropped("no address".to_owned()), now()).await.expect("settles");
    world.store.settle_outbox("m9", &Settled::Sent, now()).await.expect("a message that is not there");
    assert_eq!(take(&world, now() + days(1)).await, [""; 0]);
    // One whose lease had lapsed reports too late.
    let late = Settled::Later(now(), "timed out".to_owned());
    world.store.settle_outbox("m1", &late, now()).await.expect("settles");
    assert_eq!(take(&world, now() + days(1)).await, [""; 0], "what is done stays done");
}

pub(crate) async fn a_message_for_later_comes_later_and_counts_the_try<F: Fixture>() {
    let world = World::<F>::new().await;
    send(&world, vec![message("m1", now())]).await;
    for tries in 1..=3 {
        let at = now() + minutes(10 * (i64::from(tries) - 1));
        let taken = world.store.take_outbox(10, at, at + minutes(1)).await.expect("takes");
        assert_eq!(taken.iter().map(|message| message.attempts).collect::<Vec<_>>(), [tries - 1]);
        let later = Settled::Later(at + minutes(10), "mail server is away".to_owned());
        world.store.settle_outbox("m1", &later, at).await.expect("settles");
        assert_eq!(take(&world, at + minutes(9)).await, [""; 0]);
    }
}

pub(crate) async fn a_message_comes_back_as_it_was_given<F: Fixture>() {
    let world = World::<F>::new().await;
    let odd = Outgoing {
        id: "incident:needs_reconnect:webhook".to_owned(),
        user_id: None,
        connection_id: "o'brien \"1\"".to_owned(),
        payload: r#"{"reason":"ação 🔑 'x' \u0000"}"#.to_owned(),
        channel: "webhook".to_owned(),
        kind: "needs_reconnect".to_owned(),
        created_at: now() - SignedDuration::from_micros(1),
        ..message("", now())
    };
    send(&world, vec![odd.clone()]).await;
    let taken = world.store.take_outbox(10, now(), now() + minutes(1)).await.expect("takes");
    assert_eq!(taken, [odd]);
}

pub(crate) async fn messages_of_a_lost_commit_are_not_sent<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA", Some(now() + days(1))).await;
    let connection = world.take(1).await;
    world.update(1, "access_token = 'EAA-of-the-app'").await;
    let commit = Commit { outbox: vec![message("m1", now())], ..leased(connection, refreshed("EAA-late")) };
    assert_eq!(world.commit(commit).await, Committed::Superseded);
    assert_eq!(take(&world, now()).await, [""; 0]);
}

pub(crate) async fn concurrent_takers_share_the_messages<F: Fixture>() {
    let world = World::<F>::new().await;
    send(&world, (0..20).map(|n| message(&format!("m{n}"), now())).collect()).await;
    let replicas = join_all((0..4).map(|_| world.replica())).await;
    let taken = join_all(replicas.iter().map(|store| async move {
        let mut taken = Vec::new();
        loop {
            let page = store.take_outbox(3, now(), now() + minutes(1)).await.expect("takes");
            if page.is_empty() {
                return taken;
            }
            taken.extend(page.into_iter().map(|message| message.id));
        }
    }))
    .await;
    let mut taken: Vec<String> = taken.into_iter().flatten().collect();
    assert_eq!(taken.len(), 20);
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), 20);
}
