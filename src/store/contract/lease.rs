//! Leases: who holds a connection, for how long, and who takes over.

use futures_util::future::join_all;
use jiff::SignedDuration;
use perene_policy::{Decision, Outcome};
use uuid::Uuid;

use super::Fixture;
use super::world::{
    FENCE, OTHER_FENCE, World, days, due, due_elsewhere, failed, keys, leased, message, nothing, now, refreshed,
};
use crate::store::{Claim, Commit, Committed, Guard, Lease, Store, Which};

pub(crate) async fn a_leased_row_is_counted_elsewhere<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=3 {
        world.insert(id, "EAA", Some(now() + days(id))).await;
    }
    world.take(2).await;
    let other = world.replica().await;
    let claimed = other.claim(&due_elsewhere()).await.expect("claims");
    assert_eq!(keys(&claimed.connections), ["1", "3"]);
    assert_eq!(claimed.elsewhere, 1);
    let ids = ["2".to_owned()];
    let named = other.claim(&Claim { which: Which::Named { ids: &ids }, ..due_elsewhere() }).await.expect("claims");
    assert_eq!((named.connections.len(), named.elsewhere), (0, 1));
}

// Two passes of one replica may run side by side: the holder's name does not make a lease its own.
pub(crate) async fn a_live_lease_holds_against_its_own_holder_too<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA", Some(now() + days(1))).await;
    world.take(1).await;
    let again = world.claim(Claim { fence: OTHER_FENCE, ..due() }).await;
    assert_eq!((again.connections.len(), again.elsewhere), (0, 1));
}

pub(crate) async fn a_lapsed_lease_is_taken_over_and_its_commit_changes_nothing<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    let connection = world.take(1).await;
    let lapse = due().until;
    let one_before = Claim { now: lapse - SignedDuration::from_millis(1), ..due_elsewhere() };
    assert_eq!(world.claim(one_before).await.elsewhere, 1);
    let late = Claim { now: lapse, until: lapse + SignedDuration::from_secs(60), ..due_elsewhere() };
    assert_eq!(keys(&world.claim(late).await.connections), ["1"], "a deadline that has come is past");

    let before = world.row(1).await;
    let commit = Commit { outbox: vec![message("m1", now())], ..leased(connection, refreshed("EAA-stale")) };
    assert_eq!(world.commit(commit).await, Committed::GuardLost);
    assert_eq!(world.row(1).await, before);
    assert!(world.history(1).await.is_empty());
    assert!(world.store.take_outbox(9, now(), now()).await.expect("takes").is_empty());
    let third = Claim { now: lapse, holder: "replica-c", fence: Uuid::from_u128(3), ..due() };
    assert_eq!(world.claim(third).await.elsewhere, 1, "the lease of the one who took over stands");
}

pub(crate) async fn concurrent_claims_hand_out_each_row_once<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=40 {
        world.insert(id, "EAA", Some(now() + days(1))).await;
    }
    let replicas = join_all((0..4).map(|_| world.replica())).await;
    let claims = (0..4).map(|replica| {
        let store = &replicas[replica];
        async move {
            let holder = format!("replica-{replica}");
            let mut taken = Vec::new();
            let mut after = None;
            loop {
                let fence = Uuid::from_u128(100 + replica as u128);
                let claim = Claim { holder: &holder, fence, after: after.as_ref(), limit: 7, ..due() };
                let claimed = store.claim(&claim).await.expect("claims");
                taken.extend(claimed.connections.into_iter().map(|connection| connection.id));
                let Some(next) = claimed.next else { return taken };
                after = Some(next);
            }
        }
    });
    let mut taken: Vec<String> = join_all(claims).await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 40, "none twice");
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), 40, "none missed");
}

pub(crate) async fn what_was_refreshed_is_not_handed_out_again<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=40 {
        world.insert(id, "EAA", Some(now() + days(1))).await;
    }
    let replicas = join_all((0..4).map(|_| world.replica())).await;
    // Each goes over all pages twice, and gives back at once what it has refreshed.
    let passes = (0..4).map(|replica| {
        let store = &replicas[replica];
        async move {
            let fence = Uuid::from_u128(100 + replica as u128);
            let mut taken = Vec::new();
            for _ in 0..2 {
                let mut after = None;
                loop {
                    let claim = Claim { fence, after: after.as_ref(), limit: 5, ..due() };
                    let claimed = store.claim(&claim).await.expect("claims");
                    let commits: Vec<_> = claimed
                        .connections
                        .into_iter()
                        .map(|connection| {
                            taken.push(connection.id.clone());
                            let guard = Guard::Lease(fence);
                            Commit { guard, ..leased(connection, refreshed("EAA-new")) }
                        })
                        .collect();
                    let committed = store.commit(&commits, now()).await.expect("commits");
                    assert!(committed.iter().all(|committed| *committed == Committed::Done));
                    let Some(next) = claimed.next else { break };
                    after = Some(next);
                }
            }
            taken
        }
    });
    let mut taken: Vec<String> = join_all(passes).await.into_iter().flatten().collect();
    taken.sort_unstable();
    assert_eq!(taken.len(), 40);
    taken.dedup();
    assert_eq!(taken.len(), 40);
}

pub(crate) async fn extend_moves_the_deadlines_of_its_fence_only<F: Fixture>() {
    let world = World::<F>::new().await;
    for id in 1..=3 {
        world.insert(id, "EAA", Some(now() + days(id))).await;
    }
    world.take(1).await;
    world.take(2).await;
    let ids = ["3".to_owned()];
    // Another pass of the same replica: what it leaves behind lapses, however long this one goes on.
    world.claim(Claim { which: Which::Named { ids: &ids }, holder: "replica-a", ..due_elsewhere() }).await;
    let later = now() + SignedDuration::from_secs(600);
    assert_eq!(world.store.extend(FENCE, later).await.expect("extends"), 2);
    assert_eq!(world.store.extend(Uuid::from_u128(9), later).await.expect("extends"), 0);
    let claimed = world.claim(Claim { now: now() + SignedDuration::from_secs(300), ..due_elsewhere() }).await;
    assert_eq!(keys(&claimed.connections), ["3"]);
    assert_eq!(claimed.elsewhere, 2);
    let claimed = world.claim(Claim { now: later, until: later + days(1), ..due_elsewhere() }).await;
    assert_eq!(keys(&claimed.connections), ["1", "2", "3"]);
    assert_eq!(world.store.extend(FENCE, later).await.expect("extends"), 0, "it has none any more");
}

pub(crate) async fn release_gives_back_what_is_still_held<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA", Some(now() + days(1))).await;
    world.insert(2, "EAA", Some(now() + days(2))).await;
    world.take(1).await;
    let second = world.take(2).await;
    let lease = |id: &str, fence| Lease { source: 0, id: id.to_owned(), fence };
    let given = [lease("1", FENCE), lease("2", OTHER_FENCE), lease("9", FENCE)];
    world.store.release(&given).await.expect("releases");
    world.store.release(&[]).await.expect("releases nothing");
    let claimed = world.claim(due_elsewhere()).await;
    assert_eq!(keys(&claimed.connections), ["1"], "another's fence gives nothing back");
    assert_eq!(world.commit(leased(second.clone(), failed(&second))).await, Committed::Done);
    assert_eq!(
        world.commit(leased(second, nothing(Outcome::Transient))).await,
        Committed::GuardLost,
        "a lease serves for one commit"
    );
}

pub(crate) async fn an_intent_is_written_and_its_lease_stays<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    let connection = world.take(1).await;
    let before = world.row(1).await;
    let memory = failed(&connection).memory;
    let intent = Commit {
        guard: Guard::Kept(FENCE),
        ..leased(connection.clone(), Decision { memory: memory.clone(), ..nothing(Outcome::Transient) })
    };
    assert_eq!(world.commit(intent.clone()).await, Committed::Done);
    // Once more, because its answer was lost.
    assert_eq!(world.commit(intent).await, Committed::Done);
    assert_eq!(world.row(1).await, before);
    let found = world.store.find(0, "1").await.expect("reads").expect("it is there");
    assert_eq!(found.memory, memory);
    assert_eq!(world.claim(due_elsewhere()).await.elsewhere, 1, "it is still in flight");

    assert_eq!(world.commit(leased(connection, refreshed("EAA-new"))).await, Committed::Done);
    assert_eq!(world.store.find(0, "1").await.expect("reads").expect("it is there").memory, None);
}

pub(crate) async fn an_intent_without_its_lease_writes_nothing<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA-1", Some(now() + days(1))).await;
    let connection = world.take(1).await;
    let intent = Decision { memory: failed(&connection).memory, ..nothing(Outcome::Transient) };
    let kept = |fence| Commit { guard: Guard::Kept(fence), ..leased(connection.clone(), intent.clone()) };
    assert_eq!(world.commit(kept(OTHER_FENCE)).await, Committed::GuardLost);
    assert_eq!(world.store.find(0, "1").await.expect("reads").expect("it is there").memory, None);

    world.fixture.execute("UPDATE instagram_connections SET access_token = 'EAA-of-the-app'").await;
    assert_eq!(world.commit(kept(FENCE)).await, Committed::Superseded);
    assert_eq!(world.store.find(0, "1").await.expect("reads").expect("it is there").memory, None);
    assert_eq!(world.claim(due_elsewhere()).await.elsewhere, 1, "who wrote the intent gives the lease back");
}
