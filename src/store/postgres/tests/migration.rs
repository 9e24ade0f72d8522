//! Migration beside a living app.

use std::time::Duration;

use sqlx::Executor;

use super::super::testing::Database;
use super::{text, waiting, world};
use crate::config::Source;
use crate::store::contract::Fixture;
use crate::store::{FindingKind, Store, StoreError};

async fn bare() -> Database {
    let database = Database::new().await;
    database.execute("CREATE TABLE users (id bigint PRIMARY KEY, email text, username text)").await;
    database
        .execute("CREATE TABLE instagram_connections (id bigint PRIMARY KEY, user_id bigint, access_token text)")
        .await;
    database
}

#[tokio::test]
async fn a_table_that_is_kept_locked_is_given_up_without_having_held_up_the_app() {
    let database = bare().await;
    let store = database.store().await;
    let mut app = database.session().await;
    app.execute("BEGIN; SELECT count(*) FROM instagram_connections").await.expect("reads");
    let trouble = store.migrate_within(Duration::ZERO).await.expect_err("cannot have the lock");
    let error = store.connections.place.tell(trouble);
    assert!(error.may_pass() && error.to_string().contains("instagram_connections"), "{error}");
    // Nobody waits behind us now, and the next try finds the way free.
    database.execute("INSERT INTO instagram_connections VALUES (1, 1, 'EAA')").await;
    app.execute("COMMIT").await.expect("ends");
    store.migrate().await.expect("migrates");
    assert_eq!(store.findings().await.expect("looks"), []);
}

#[tokio::test]
async fn no_lock_is_waited_for_longer_than_a_moment() {
    let database = bare().await;
    let store = database.store().await;
    let mut app = database.session().await;
    app.execute("BEGIN; SELECT count(*) FROM instagram_connections").await.expect("reads");
    let migrates = store.migrate();
    let ends = async {
        // As soon as the migration stands in the queue; it will have given up and come again.
        while waiting(&database).await == 0 {
            tokio::task::yield_now().await;
        }
        while waiting(&database).await != 0 {
            tokio::task::yield_now().await;
        }
        app.execute("COMMIT").await.expect("ends");
    };
    let (migrated, ()) = tokio::join!(migrates, ends);
    assert!(!migrated.expect("migrates").is_empty());
}

#[tokio::test]
async fn what_a_failed_build_of_the_index_left_is_built_anew() {
    let (database, store) = world().await;
    let name = text(&database, "SELECT indexname::text FROM pg_indexes WHERE indexname LIKE 'perene_due%'").await;
    let name = name.expect("an index was made");
    database.execute(&format!("UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass")).await;
    let findings = store.findings().await.expect("looks");
    assert_eq!(findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [FindingKind::Advice]);
    let made = store.migrate().await.expect("migrates");
    assert_eq!(made.len(), 2, "{made:#?}");
    assert!(made[0].starts_with("DROP INDEX CONCURRENTLY") && made[1].starts_with("CREATE INDEX CONCURRENTLY"));
    assert_eq!(store.findings().await.expect("looks"), []);
}

#[tokio::test]
async fn an_index_that_serves_is_not_made_twice() {
    for (index, serves) in [
        ("(token_expires_at)", true),
        ("(token_expires_at DESC, user_id)", true),
        ("(token_expires_at) WHERE token_expires_at IS NOT NULL", true),
        ("(user_id, token_expires_at)", false),
        ("(token_expires_at) WHERE user_id = 1", false),
    ] {
        let database = bare().await;
        database.execute("ALTER TABLE instagram_connections ADD COLUMN token_expires_at timestamptz").await;
        database.execute(&format!("CREATE INDEX mine ON instagram_connections {index}")).await;
        let made = database.store().await.migrate().await.expect("migrates");
        assert_eq!(made.iter().any(|sql| sql.contains("CONCURRENTLY")), !serves, "{index}");
    }
}

#[tokio::test]
async fn a_table_in_another_schema_is_pointed_out() {
    let database = Database::new().await;
    database.execute("CREATE SCHEMA app; CREATE TABLE app.instagram_connections (id bigint)").await;
    let store = database.store().await;
    let error = store.migrate().await.expect_err("it is not there");
    let StoreError::Missing(text) = &error else { panic!("{error:?}") };
    assert!(text.contains("`public`") && text.contains("app.instagram_connections"), "{text}");
    let findings = store.findings().await.expect("looks");
    assert!(
        findings.iter().any(|finding| finding.kind == FindingKind::MissingTable && finding.text.contains("`users`"))
    );
}

#[tokio::test]
async fn a_view_is_read_and_written_like_a_table_and_never_altered() {
    let database = bare().await;
    database.execute("ALTER TABLE instagram_connections RENAME TO tokens").await;
    database.execute("CREATE VIEW instagram_connections AS SELECT * FROM tokens").await;
    let store = database.store().await;
    let error = store.migrate().await.expect_err("a view is not altered");
    assert!(matches!(&error, StoreError::Missing(text) if text.contains("view")), "{error}");
    database
        .execute(
            "DROP VIEW instagram_connections; ALTER TABLE tokens ADD COLUMN token_expires_at timestamp,
             ADD COLUMN token_refreshed_at timestamp, ADD COLUMN refresh_attempts int, ADD COLUMN last_refresh_error text;
             CREATE VIEW instagram_connections AS SELECT * FROM tokens",
        )
        .await;
    store.migrate().await.expect("migrates");
    super::insert(&database, 2).await;
    let commits: Vec<_> = super::take(&store)
        .await
        .into_iter()
        .map(|connection| super::leased(connection, super::refreshed("EAA-new")))
        .collect();
    let committed = store.commit(&commits, super::now()).await.expect("commits");
    assert_eq!(committed, [crate::store::Committed::Done, crate::store::Committed::Done]);
    let tokens = text(&database, "SELECT count(*)::text FROM tokens WHERE access_token = 'EAA-new'").await;
    assert_eq!(tokens.as_deref(), Some("2"));
}

#[tokio::test]
async fn two_migrations_at_once_do_not_disturb_each_other() {
    let database = bare().await;
    let (first, second) = (database.store().await, database.open(vec![Source::default()]).await.expect("opens"));
    let (first_made, second_made) = tokio::join!(first.migrate(), second.migrate());
    assert!(first_made.is_ok() || second_made.is_ok());
    for made in [first_made, second_made] {
        assert!(made.as_ref().is_ok_and(|_| true) || made.as_ref().is_err_and(StoreError::may_pass), "{made:?}");
    }
    first.migrate().await.expect("migrates again");
    assert_eq!(first.findings().await.expect("looks"), []);
}
