//! How fast pages are claimed and committed, and what it costs to find nothing. Measures; asserts little.
//!
//! `cargo test --lib --profile fast store::postgres::tests::speed -- --ignored --nocapture`

use jiff::SignedDuration;
use perene_policy::Grant;
use uuid::Uuid;

use super::super::testing::Database;
use super::{days, now, refreshed};
use crate::clock::{Clock, SystemClock};
use crate::store::contract::Fixture;
use crate::store::{Claim, Commit, Committed, Guard, Store, Which};

const ROWS: usize = 1_000_000;
const DUE: usize = 20_000;
const PAGE: usize = 500;

#[tokio::test]
#[ignore = "takes a minute and measures"]
async fn twenty_thousand_due_of_a_million() {
    let database = Database::new().await;
    database.execute("CREATE TABLE users (id bigint PRIMARY KEY, email text, username text)").await;
    database
        .execute("CREATE TABLE instagram_connections (id bigint PRIMARY KEY, user_id bigint, access_token text)")
        .await;
    let store = database.store().await;
    store.migrate().await.expect("migrates");
    database
        .execute(&format!(
            "INSERT INTO instagram_connections (id, user_id, access_token, token_expires_at)
             SELECT n, n, 'EAA-ok-' || n || repeat(md5(n::text), 5),
                    timestamptz '{}' + CASE WHEN n % {} = 0 THEN interval '1 day' + n * interval '1 second' / 10
                                            ELSE interval '20 days' + n * interval '1 second' END
             FROM generate_series(1, {ROWS}) n",
            now(),
            ROWS / DUE
        ))
        .await;
    database.execute("VACUUM ANALYZE instagram_connections").await;
    let clock = SystemClock::new();
    let claim = Claim {
        source: 0,
        which: Which::Due { window: days(7) },
        grants: &Grant::META,
        holder: "bench",
        fence: Uuid::from_u128(7),
        now: now(),
        until: now() + SignedDuration::from_secs(60),
        after: None,
        limit: PAGE,
        overdue: SignedDuration::ZERO,
    };
    let (mut claiming, mut committing, mut done, mut after) = (0.0, 0.0, 0, None);
    loop {
        let begun = clock.monotonic();
        let claimed = store.claim(&Claim { after: after.as_ref(), ..claim }).await.expect("claims");
        let claimed_at = clock.monotonic();
        let commits: Vec<Commit> = claimed
            .connections
            .into_iter()
            .map(|connection| Commit {
                source: 0,
                decision: refreshed(&format!("{}x", connection.token.expose())),
                connection,
                guard: Guard::Lease(claim.fence),
                outbox: Vec::new(),
            })
            .collect();
        let built_at = clock.monotonic();
        let committed = store.commit(&commits, now()).await.expect("commits");
        let committed_at = clock.monotonic();
        assert!(committed.iter().all(|committed| *committed == Committed::Done));
        done += committed.len();
        claiming += (claimed_at - begun).as_secs_f64();
        committing += (committed_at - built_at).as_secs_f64();
        let Some(next) = claimed.next else { break };
        after = Some(next);
    }
    assert_eq!(done, DUE);
    let rate = |seconds: f64| f64::from(u32::try_from(done).expect("few")) / seconds;
    eprintln!("claimed   {done} rows in {claiming:.3} s: {:.0} rows/s", rate(claiming));
    eprintln!("committed {done} rows in {committing:.3} s: {:.0} rows/s", rate(committing));
    eprintln!("together  {:.0} rows/s", rate(claiming + committing));
    let begun = clock.monotonic();
    let claimed = store.claim(&claim).await.expect("claims");
    assert!(claimed.connections.is_empty());
    eprintln!("a claim that finds nothing: {:?}", clock.monotonic() - begun);
    let begun = clock.monotonic();
    let standing = store.standing(&[days(7)], 5, now()).await.expect("counts");
    eprintln!("standing of {ROWS} rows: {:?} {standing:?}", clock.monotonic() - begun);
    let begun = clock.monotonic();
    store.count(&claim).await.expect("counts");
    eprintln!("count of what is due: {:?}", clock.monotonic() - begun);
}
