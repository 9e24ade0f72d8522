//! Columns of every type that an app may have.

use jiff::Timestamp;

use super::super::testing::Database;
use super::{days, due, failed, insert, leased, now, refreshed, take, text, world};
use crate::config::Source;
use crate::store::contract::Fixture;
use crate::store::{Claim, Committed, FindingKind, Store, Which};

// The server of the tests stands in America/Sao_Paulo: a statement that leaves the zone to it is wrong by
// three hours.
#[tokio::test]
async fn timestamps_without_zone_are_utc_whatever_the_servers_zone() {
    let database = Database::new().await;
    let zone =
        text(&database, "SELECT setting FROM pg_file_settings WHERE name = 'timezone' ORDER BY seqno DESC").await;
    assert_eq!(zone.as_deref(), Some("America/Sao_Paulo"));
    database.execute("CREATE TABLE users (id bigint PRIMARY KEY, email text, username text)").await;
    database
        .execute(
            "CREATE TABLE instagram_connections (id bigint PRIMARY KEY, user_id bigint, access_token text,
             token_expires_at timestamp, token_refreshed_at timestamp(0))",
        )
        .await;
    let store = database.store().await;
    store.migrate().await.expect("migrates");
    assert_eq!(store.findings().await.expect("looks"), []);
    for (id, expires) in
        [(1, "2026-11-23 03:00:00"), (2, "2026-11-23 03:00:01"), (3, "2026-11-30 02:59:59"), (4, "2026-11-30 03:00:00")]
    {
        database
            .execute(&format!(
                "INSERT INTO instagram_connections VALUES ({id}, 1, 'EAA', '{expires}', '2026-10-01 12:00:00')"
            ))
            .await;
    }
    let mut taken = take(&store).await;
    assert_eq!(taken.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    assert_eq!(taken[0].expires_at, Some("2026-11-23T03:00:01Z".parse().expect("a date")));
    assert_eq!(taken[0].refreshed_at, Some("2026-10-01T12:00:00Z".parse().expect("a date")));
    let committed = store.commit(&[leased(taken.remove(0), refreshed("EAA-new"))], now()).await.expect("commits");
    assert_eq!(committed, [Committed::Done]);
    let row = database
        .texts("SELECT token_expires_at::text, token_refreshed_at::text FROM instagram_connections WHERE id = 2")
        .await;
    assert_eq!(row, [[Some("2027-01-22 03:00:00".to_owned()), Some("2026-11-23 03:00:00".to_owned())]]);
    let soonest = store.standing(&[days(7)], 1, now()).await.expect("counts").soonest;
    assert_eq!(soonest, [(0, "3".to_owned(), "2026-11-30T02:59:59Z".parse().expect("a date"))]);
}

#[tokio::test]
async fn dates_that_no_calendar_knows_are_read_and_stop_nothing() {
    let (database, store) = world().await;
    insert(&database, 5).await;
    for (id, expires) in [(1, "infinity"), (2, "-infinity"), (3, "200000-01-01"), (4, "4000-01-01 BC")] {
        database
            .execute(&format!("UPDATE instagram_connections SET token_expires_at = '{expires}' WHERE id = {id}"))
            .await;
    }
    assert_eq!(take(&store).await.len(), 1, "the one that is due");
    // Pages of one: the cursor must tell infinity from the far end of the calendar.
    let (mut live, mut after) = (Vec::new(), None);
    loop {
        let claim = Claim { which: Which::Live, after: after.as_ref(), limit: 1, ..due() };
        let claimed = store.claim(&claim).await.expect("claims");
        live.extend(claimed.connections);
        let Some(next) = claimed.next else { break };
        after = Some(next);
        assert!(live.len() < 9, "the pages have an end");
    }
    let live: Vec<_> = live.iter().map(|row| (row.id.as_str(), row.expires_at)).collect();
    assert_eq!(live, [("5", Some(now() + days(1))), ("3", Some(Timestamp::MAX)), ("1", Some(Timestamp::MAX))]);
    let expired = store.find(0, "2").await.expect("reads").expect("the row");
    assert_eq!(expired.expires_at, Some(Timestamp::MIN));
    let standing = store.standing(&[days(7)], 9, now()).await.expect("counts");
    assert_eq!((standing.dark, standing.due, standing.healthy), (2, 1, 2));
}

#[tokio::test]
async fn microseconds_survive_both_ways() {
    let (database, store) = world().await;
    insert(&database, 1).await;
    database.execute("UPDATE instagram_connections SET token_expires_at = '2026-11-24 01:02:03.456789+00'").await;
    let taken = take(&store).await;
    assert_eq!(taken[0].expires_at, Some("2026-11-24T01:02:03.456789Z".parse().expect("a date")));
}

#[tokio::test]
async fn uuid_and_citext_and_domains_serve() {
    let database = Database::new().await;
    for sql in [
        "CREATE SCHEMA app",
        "CREATE EXTENSION citext SCHEMA public",
        "CREATE DOMAIN app.secret AS citext CHECK (value <> 'x')",
        "CREATE DOMAIN app.stamp AS timestamptz",
        "CREATE TABLE app.people (uid uuid PRIMARY KEY, email citext, username varchar(20), warn boolean)",
        "CREATE TABLE app.\"Tokens\" (key citext PRIMARY KEY, owner text, token app.secret, ends app.stamp,
            tries smallint, why varchar(12))",
        "INSERT INTO app.people VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'Ana@Example.com', 'Ana', NULL)",
        "INSERT INTO app.\"Tokens\" VALUES
            ('Key-A', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'EAA-Case', '2026-11-24 03:00:00+00', 32767, NULL),
            ('Key-B', 'not a uuid', 'EAA-Case', '2026-11-25 03:00:00+00', NULL, NULL)",
    ] {
        database.execute(sql).await;
    }
    let mut source = Source::default();
    source.table.schema = Some("app".to_owned());
    source.table.name = "Tokens".to_owned();
    let columns = &mut source.columns;
    columns.id = "key".to_owned();
    columns.user_id = Some("owner".to_owned());
    columns.access_token = "token".to_owned();
    columns.token_expires_at = "ends".to_owned();
    columns.token_refreshed_at = None;
    columns.refresh_attempts = Some("tries".to_owned());
    columns.last_refresh_error = Some("why".to_owned());
    let user = source.user.as_mut().expect("users");
    user.table.schema = Some("app".to_owned());
    user.table.name = "people".to_owned();
    user.id = "uid".to_owned();
    user.show_token_warning = Some("warn".to_owned());
    let store = database.open(vec![source]).await.expect("opens");
    store.migrate().await.expect("migrates");
    assert_eq!(store.findings().await.expect("looks"), []);

    let taken = take(&store).await;
    assert_eq!(taken.len(), 2);
    let commits: Vec<_> = taken
        .into_iter()
        .map(|connection| {
            let mut decision = failed(&connection, "too tired");
            decision.flag = Some(true);
            leased(connection, decision)
        })
        .collect();
    let committed = store.commit(&commits, now()).await.expect("commits");
    assert_eq!(committed, [Committed::Done, Committed::Done], "a user that cannot be is no obstacle");
    let tries = database.texts("SELECT tries::text, why FROM app.\"Tokens\" ORDER BY key").await;
    let why = Some("too tired".to_owned());
    assert_eq!(tries, [[Some("32767".to_owned()), why.clone()], [Some("1".to_owned()), why]]);
    assert_eq!(text(&database, "SELECT warn::text FROM app.people").await.as_deref(), Some("true"));
    let ana = store.recipient(0, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11").await.expect("reads").expect("a user");
    assert_eq!(ana.email.as_deref(), Some("Ana@Example.com"));
    assert_eq!(store.recipient(0, "not a uuid").await.expect("reads"), None);
    // Equal to the column, not to the token: only the exact generation is the same.
    let found = store.find(0, "key-a").await.expect("reads").expect("the row");
    assert_eq!(found.id, "Key-A");
    let mut again = store.claim(&due()).await.expect("claims").connections;
    database.execute("UPDATE app.\"Tokens\" SET token = 'eaa-case' WHERE key = 'Key-A'").await;
    let committed = store.commit(&[leased(again.remove(0), refreshed("EAA-new"))], now()).await.expect("commits");
    assert_eq!(committed, [Committed::Superseded]);
}

#[tokio::test]
async fn types_that_cannot_work_are_named() {
    let database = Database::new().await;
    database.execute("CREATE TABLE users (id json, email integer, username text, show_token_warning integer)").await;
    database
        .execute(
            "CREATE TABLE instagram_connections (id numeric PRIMARY KEY, user_id bigint, access_token bytea,
             token_expires_at bigint, token_refreshed_at date, refresh_attempts text, last_refresh_error jsonb)",
        )
        .await;
    let store = database.store().await;
    let findings = store.findings().await.expect("looks");
    let bad: Vec<_> = findings.iter().filter(|finding| finding.kind == FindingKind::BadType).collect();
    for name in [
        "id",
        "email",
        "show_token_warning",
        "access_token",
        "token_expires_at",
        "token_refreshed_at",
        "refresh_attempts",
        "last_refresh_error",
    ] {
        assert!(bad.iter().any(|finding| finding.text.contains(&format!("`{name}`"))), "{name}: {bad:#?}");
    }
    assert!(
        bad.iter().any(|finding| finding.text.contains("`bytea`") && finding.text.contains("`varchar`")),
        "{bad:#?}"
    );
    assert!(store.migrate().await.expect_err("nothing can be made of that").is_wrong_use());
    assert_eq!(text(&database, "SELECT nspname::text FROM pg_namespace WHERE nspname = 'perene'").await, None);
    assert!(store.claim(&due()).await.expect_err("nor claimed").is_wrong_use());
}

#[tokio::test]
async fn a_changed_column_is_noticed_and_keys_of_another_type_are_no_rows() {
    let (database, store) = world().await;
    insert(&database, 2).await;
    let commits: Vec<_> = take(&store)
        .await
        .into_iter()
        .map(|connection| {
            let decision = failed(&connection, "tired");
            leased(connection, decision)
        })
        .collect();
    store.commit(&commits, now()).await.expect("commits");
    // The app moves to text keys, and then, with a key that was never a number, to uuid.
    database.execute("ALTER TABLE instagram_connections ALTER COLUMN id TYPE text USING 'k' || id").await;
    let taken = take(&store).await;
    assert_eq!(taken.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["k1", "k2"]);
    let remembered = store.remembered(None, 9, now()).await.expect("reads");
    assert!(remembered.iter().all(|remembered| remembered.row.is_none()));
    database.execute("ALTER TABLE instagram_connections ALTER COLUMN id TYPE uuid USING gen_random_uuid()").await;
    assert_eq!(store.remembered(None, 9, now()).await.expect("reads").len(), 2);
    let retry = Claim { which: Which::Retry, ..due() };
    assert_eq!(store.claim(&retry).await.expect("claims").connections.len(), 0);
}
