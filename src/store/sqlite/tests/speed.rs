//! How long a run's share of the database takes. Not part of the tests: it measures.

use super::File;
use crate::clock::{Clock, SystemClock};
use crate::config::Source;
use crate::store::contract::Fixture;
use crate::store::contract::world::{World, due, leased, now, refreshed};
use crate::store::{Claim, Store, Which};

#[tokio::test]
#[ignore = "measures; run it with `--profile fast -- --ignored --nocapture`"]
async fn twenty_thousand_of_a_million() {
    let clock = SystemClock::new();
    let world = World::<File>::new().await;
    world
        .fixture
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
             INSERT INTO instagram_connections (id, user_id, access_token, token_expires_at)
             SELECT i, i, printf('EAA-%d-%.*c', i, 180, 'x'),
                    datetime('2026-11-23 03:00:01', (CASE WHEN i % 50 = 0 THEN i % 500000 ELSE 1000000 + i END) || ' seconds')
             FROM n",
        )
        .await;
    let store = world.fixture.open(vec![Source::default()]).await.expect("opens");
    let lap = |what: &str, since: std::time::Duration| eprintln!("{what}: {:?}", clock.monotonic() - since);

    let start = clock.monotonic();
    let count = store.count(&due()).await.expect("counts");
    lap(&format!("count {count}"), start);
    let start = clock.monotonic();
    store.standing(&[crate::store::contract::world::days(7)], 10, now()).await.expect("counts");
    lap("standing", start);
    let start = clock.monotonic();
    store.findings().await.expect("looks");
    lap("findings", start);
    let start = clock.monotonic();
    let none = store.claim(&Claim { which: Which::Undated, ..due() }).await.expect("claims");
    assert!(none.connections.is_empty());
    lap("undated, none", start);

    let start = clock.monotonic();
    let (mut after, mut total, mut claiming) = (None, 0, std::time::Duration::ZERO);
    loop {
        let before = clock.monotonic();
        let claimed = store.claim(&Claim { limit: 512, after: after.as_ref(), ..due() }).await.expect("claims");
        claiming += clock.monotonic() - before;
        let commits: Vec<_> =
            claimed.connections.into_iter().map(|row| leased(row, refreshed("EAA-new-token"))).collect();
        total += commits.len();
        store.commit(&commits, now()).await.expect("commits");
        let Some(next) = claimed.next else { break };
        after = Some(next);
    }
    lap(&format!("claim and commit {total} (of it claims {claiming:?})"), start);
}
