//! Many replicas at once, and what a claim costs.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::SignedDuration;
use uuid::Uuid;

use super::{due, insert, leased, now, refreshed, text, world};
use crate::store::contract::Fixture;
use crate::store::{Claim, Commit, Committed, Guard, Store};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_replicas_hand_out_each_of_ten_thousand_rows_once() {
    let (database, store) = world().await;
    insert(&database, 10_000).await;
    drop(store);
    let database = Arc::new(database);
    let replicas = (0_u128..20).map(|replica| {
        let database = Arc::clone(&database);
        tokio::spawn(async move {
            let store = database.store().await;
            let holder = format!("replica-{replica}");
            let fence = Uuid::from_u128(100 + replica);
            let (mut handed_out, mut after) = (Vec::new(), None);
            loop {
                let until = now() + SignedDuration::from_secs(60);
                let claim = Claim { holder: &holder, fence, until, after: after.as_ref(), limit: 200, ..due() };
                let claimed = store.claim(&claim).await.expect("claims");
                let commits: Vec<Commit> = claimed
                    .connections
                    .into_iter()
                    .map(|connection| {
                        handed_out.push(connection.id.clone());
                        Commit { guard: Guard::Lease(fence), ..leased(connection, refreshed("EAA-new")) }
                    })
                    .collect();
                let committed = store.commit(&commits, now()).await.expect("commits");
                assert!(committed.iter().all(|committed| *committed == Committed::Done));
                let Some(next) = claimed.next else { break };
                after = Some(next);
            }
            store.close().await;
            handed_out
        })
    });
    let mut handed_out: Vec<String> =
        join_all(replicas).await.into_iter().flat_map(|replica| replica.expect("no panic")).collect();
    assert_eq!(handed_out.len(), 10_000);
    handed_out.sort_unstable();
    handed_out.dedup();
    assert_eq!(handed_out.len(), 10_000);
    assert_eq!(text(&database, "SELECT count(*)::text FROM perene.lease").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_claim_locks_no_row_of_the_app() {
    let (database, store) = world().await;
    insert(&database, 3).await;
    let mut app = database.session().await;
    sqlx::Executor::execute(&mut app, "BEGIN; UPDATE instagram_connections SET user_id = 2; SELECT 1")
        .await
        .expect("locks");
    assert_eq!(store.claim(&due()).await.expect("claims").connections.len(), 3);
    sqlx::Executor::execute(&mut app, "ROLLBACK").await.expect("lets go");
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_finds_its_own_leases() {
    let (database, store) = world().await;
    insert(&database, 3).await;
    assert_eq!(store.claim(&due()).await.expect("claims").connections.len(), 3);
    let again = store.claim(&due()).await.expect("claims");
    assert_eq!((again.connections.len(), again.elsewhere), (3, 0));
}

#[tokio::test]
async fn what_cannot_be_read_as_memory_counts_as_nothing() {
    let (database, store) = world().await;
    insert(&database, 2).await;
    database
        .execute(
            "INSERT INTO perene.connection (source, id, generation, flagged, state, memory)
             VALUES ('instagram_connections', '1', 'x', false, 'healthy', 'no json')",
        )
        .await;
    let taken = store.claim(&due()).await.expect("claims").connections;
    assert!(taken.iter().all(|row| row.memory.is_none()));
    assert!(store.remembered(None, 1, now()).await.expect("reads").is_empty());
}
