//! Which server answers, and since when.

use jiff::SignedDuration;

use super::world;
use crate::store::contract::Fixture;
use crate::store::{Incarnation, Store};

#[tokio::test]
async fn the_first_server_was_always_there_and_another_one_since_it_was_seen() {
    let (database, store) = world().await;
    let first = store.incarnation().await.expect("answers");
    assert_eq!((first.since, first.process.is_empty()), (None, false));
    assert_eq!(store.incarnation().await.expect("answers"), first);

    // As if the one that answers now had taken its place.
    database.execute("UPDATE perene.server SET name = 'the primary before'").await;
    let Incarnation { process, since } = store.incarnation().await.expect("answers");
    let since = since.expect("there was another one before");
    let now = store.now().await.expect("answers");
    assert!(now.duration_since(since) < SignedDuration::from_mins(1), "{since} {now}");
    assert_eq!(
        database.store().await.incarnation().await.expect("answers"),
        Incarnation { process, since: Some(since) }
    );
}
