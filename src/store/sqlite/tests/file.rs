//! The file itself: made, missing, locked, unfit; and how it is read.

use std::path::Path;

use sqlx::{AssertSqlSafe, Row};

use super::{File, clock};
use crate::config::{Source, TableName};
use crate::store::contract::Fixture;
use crate::store::contract::world::{FENCE, World, days, due, keys, leased, now, refreshed};
use crate::store::sqlite::SqliteStore;
use crate::store::{Committed, FindingKind, Store, StoreError};

async fn open(path: &Path, create: bool) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, vec![Source::default()], clock(), create).await
}

#[tokio::test]
async fn a_file_that_is_not_there_is_made_only_when_that_is_wanted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("no?such file#1%20.db");
    let error = open(&path, false).await.err().expect("there is no file");
    assert!(
        matches!(&error, StoreError::Missing(text) if text.contains("file#1%20.db") && text.contains("`perene migrate`")),
        "{error}"
    );
    assert!(!path.exists());
    let store = open(&path, true).await.expect("opens");
    store.migrate().await.expect("migrates");
    store.close().await;
    assert!(path.exists());
    let bytes = std::fs::read(&path).expect("reads");
    assert!(bytes.starts_with(b"SQLite format 3"), "the tables are in this very file");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds tokens");
    }
}

#[tokio::test]
async fn a_file_without_any_table_gets_them_all() {
    let file = File::empty().await;
    let store = file.open(vec![Source::default()]).await.expect("opens");
    let findings = store.findings().await.expect("looks");
    assert!(findings.iter().all(|finding| finding.kind == FindingKind::Missing), "{findings:?}");
    assert!(findings.iter().any(|finding| finding.text.contains("`instagram_connections`")));
    store.migrate().await.expect("migrates");
    assert_eq!(store.findings().await.expect("looks"), []);
    assert_eq!(store.migration().await.expect("plans"), [""; 0]);
    file.execute("INSERT INTO users (email, username) VALUES ('ana@example.com', 'Ana')").await;
    file.execute("INSERT INTO instagram_connections (user_id, access_token, token_expires_at) VALUES (1, 'EAA', '2026-11-24 03:00:00')").await;
    let connection = store.claim(&due()).await.expect("claims").connections.remove(0);
    assert_eq!((connection.id.as_str(), connection.attempts), ("1", 0));
    let committed = store.commit(&[leased(connection, refreshed("EAA-new"))], now()).await.expect("commits");
    assert_eq!(committed, [Committed::Done]);
}

#[tokio::test]
async fn a_database_in_memory_keeps_what_it_is_given() {
    let store = open(Path::new(":memory:"), true).await.expect("opens");
    store.migrate().await.expect("migrates");
    assert_eq!(store.findings().await.expect("looks"), []);
    let run = store.begin_run("by_hand", "a", now()).await.expect("begins");
    store.finish_run(run, "{}", now()).await.expect("finishes");
    assert!(store.claim(&due()).await.expect("claims").connections.is_empty());
    assert_eq!(store.last_run().await.expect("reads"), Some(now()));
}

#[tokio::test]
async fn what_is_no_database_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "these are notes, and quite a lot of them; no database at all".repeat(99)).expect("writes");
    let before = std::fs::read(&path).expect("reads");
    let error = open(&path, true).await.err().expect("it is no database");
    assert!(error.to_string().contains("notes.txt") && error.to_string().contains("no SQLite database"), "{error}");
    assert!(!error.may_pass());
    assert_eq!(std::fs::read(&path).expect("reads"), before);
    let error = open(folder.path(), true).await.err().expect("a folder is no file");
    assert!(error.is_wrong_use(), "{error}");
    let error = open(&folder.path().join("no/folder/x.db"), true).await.err().expect("there is no folder");
    assert!(error.to_string().contains("cannot be made"), "{error}");
}

#[tokio::test]
async fn looking_changes_no_byte_of_the_file() {
    let world = World::<File>::new().await;
    world.store.close().await;
    world.fixture.execute("PRAGMA journal_mode = DELETE").await;
    let before = std::fs::read(world.fixture.path()).expect("reads");
    let store = world.replica().await;
    store.findings().await.expect("looks");
    store.migration().await.expect("plans");
    store.migrate().await.expect("there is nothing to do");
    store.prepare().await.expect("there is nothing to do");
    store.peek(&due()).await.expect("reads");
    store.standing(&[days(7)], 9, now()).await.expect("counts");
    assert!(store.take_outbox(9, now(), now()).await.expect("takes").is_empty());
    store.close().await;
    assert_eq!(std::fs::read(world.fixture.path()).expect("reads"), before);
}

#[tokio::test]
async fn readers_wait_for_no_writer() {
    let world = World::<File>::new().await;
    world.insert(1, "EAA", Some(now() + days(1))).await;
    world.store.set_alarms("x", &[]).await.expect("the file is in WAL mode now");
    let mut app = world.fixture.app().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut app).await.expect("the app has the lock");
    sqlx::query("UPDATE instagram_connections SET access_token = 'EAA-of-the-app'")
        .execute(&mut app)
        .await
        .expect("writes");
    assert_eq!(keys(&world.store.peek(&due()).await.expect("reads")), ["1"]);
    sqlx::query("COMMIT").execute(&mut app).await.expect("commits");
    assert_eq!(world.take(1).await.token.expose(), "EAA-of-the-app");
}

#[tokio::test]
async fn what_is_due_is_found_by_the_index() {
    let world = World::<File>::new().await;
    let mut reader = world.store.database.read().await.expect("reads");
    let mapped = &world.store.sources[0];
    let shapes = crate::store::sqlite::shape::Shapes::of(&mut reader, mapped).await.expect("looks");
    let statement = crate::store::sqlite::page::dated(mapped, &shapes, &due(), now(), now() + days(7));
    let sql = format!("EXPLAIN QUERY PLAN {}", statement.sql().as_str());
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *reader).await.expect("explains");
    let plan: Vec<String> = rows.iter().map(|row| row.get(3)).collect();
    let searches = plan.iter().filter(|step| step.starts_with("SEARCH t USING INDEX perene_due_")).count();
    assert_eq!(searches, 3, "{plan:#?}");
    assert_eq!(plan.iter().filter(|step| *step == "SCAN t").count(), 1, "what was found, not the table: {plan:#?}");
}

#[tokio::test]
async fn views_and_tables_without_rowid_are_no_riddle() {
    let file = File::empty().await;
    file.execute("CREATE TABLE real_one (id TEXT PRIMARY KEY, user_id INTEGER, access_token TEXT) WITHOUT ROWID").await;
    file.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, username TEXT)").await;
    file.execute("CREATE VIEW instagram_connections AS SELECT * FROM real_one").await;
    let store = file.open(vec![Source::default()]).await.expect("opens");
    let findings = store.findings().await.expect("looks");
    assert!(
        findings.iter().any(|finding| finding.kind == FindingKind::BadType && finding.text.contains("is a view")),
        "{findings:?}"
    );
    assert!(matches!(store.migrate().await, Err(StoreError::Mapping(_))));

    let table = TableName { schema: Some("main".to_owned()), name: "REAL_ONE".to_owned() };
    let store = file.open(vec![Source { table, ..Source::default() }]).await.expect("opens");
    store.migrate().await.expect("migrates");
    assert_eq!(store.findings().await.expect("looks"), []);
    file.execute("INSERT INTO real_one (id, user_id, access_token, token_expires_at) VALUES ('a', 1, 'EAA', '2026-11-24 03:00:00')").await;
    let connection = store.claim(&due()).await.expect("claims").connections.remove(0);
    let committed = store.commit(&[leased(connection, refreshed("EAA-new"))], now()).await.expect("commits");
    assert_eq!(committed, [Committed::Done]);
}

#[tokio::test]
async fn a_generated_column_cannot_be_written() {
    let file = File::empty().await;
    file.execute(
        "CREATE TABLE instagram_connections (id INTEGER PRIMARY KEY, user_id INTEGER, access_token TEXT,
         token_expires_at TEXT AS (datetime('2026-11-24')) VIRTUAL)",
    )
    .await;
    file.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, username TEXT)").await;
    let store = file.open(vec![Source::default()]).await.expect("opens");
    let findings = store.findings().await.expect("looks");
    let generated = findings.iter().find(|finding| finding.kind == FindingKind::BadType).expect("a finding");
    assert!(generated.text.contains("`token_expires_at`") && generated.text.contains("is generated"), "{generated:?}");
}

#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_confirmed() {
    let world = World::<File>::new().await;
    for id in 1..=2 {
        world.insert(id, "EAA-old", Some(now() + days(id))).await;
    }
    let (first, second) = (world.take(1).await, world.take(2).await);
    assert_eq!(world.commit(leased(first, refreshed("EAA-confirmed"))).await, Committed::Done);
    let log = world.fixture.path().with_extension("db-wal");
    let confirmed = std::fs::metadata(&log).expect("the log is there").len();
    assert_eq!(world.commit(leased(second, refreshed("EAA-cut"))).await, Committed::Done);
    let whole = std::fs::read(&log).expect("reads").len() as u64;
    assert!(whole > confirmed);

    // What the disk may hold after the cut: the log up to the first commit, and any part of the second.
    for length in [confirmed, confirmed + 1, confirmed + (whole - confirmed) / 2, whole - 1] {
        let cut = File { folder: tempfile::tempdir().expect("a folder") };
        std::fs::copy(world.fixture.path(), cut.path()).expect("copies");
        let bytes = std::fs::read(&log).expect("reads");
        let length = usize::try_from(length).expect("a small file");
        std::fs::write(cut.path().with_extension("db-wal"), &bytes[..length]).expect("writes");
        let store = cut.open(vec![Source::default()]).await.expect("opens");
        let find = async |id: &str| store.find(0, id).await.expect("reads").expect("the row");
        assert_eq!(find("1").await.token.expose(), "EAA-confirmed");
        assert_eq!(find("2").await.token.expose(), "EAA-old");
        assert_eq!(cut.texts("PRAGMA integrity_check").await, [[Some("ok".to_owned())]]);
        assert_eq!(store.extend(FENCE, now()).await.expect("extends"), 1, "of the second one the lease stands");
    }
}

#[tokio::test]
async fn many_that_migrate_at_once_all_succeed() {
    let file = File::empty().await;
    let stores = futures_util::future::join_all((0..4).map(|_| file.open(vec![Source::default()]))).await;
    let stores: Vec<_> = stores.into_iter().map(|store| store.expect("opens")).collect();
    let migrated = futures_util::future::join_all(stores.iter().map(Store::migrate)).await;
    let made: Vec<usize> = migrated.into_iter().map(|made| made.expect("migrates").len()).collect();
    assert_eq!(made.iter().filter(|made| **made > 0).count(), 1, "one makes all: {made:?}");
    assert_eq!(stores[0].findings().await.expect("looks"), []);
}
