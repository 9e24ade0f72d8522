//! Tables: what is looked for, what is made, and what is refused.

use futures_util::future::join_all;

use super::Fixture;
use super::world::{World, days, due, now};
use crate::config::Source;
use crate::store::{Finding, FindingKind, Store, StoreError};

const MIGRATED: [&str; 5] =
    ["token_expires_at", "token_refreshed_at", "refresh_attempts", "last_refresh_error", "show_token_warning"];

/// The app's tables before Perene has been there.
async fn bare<F: Fixture>() -> (F, F::Store) {
    let fixture = F::empty().await;
    fixture
        .execute("CREATE TABLE instagram_connections (id BIGINT PRIMARY KEY, user_id BIGINT, access_token TEXT)")
        .await;
    fixture.execute("CREATE TABLE users (id BIGINT PRIMARY KEY, email TEXT, username TEXT)").await;
    let store = fixture.open(vec![Source::default()]).await.expect("opens");
    (fixture, store)
}

fn find<'a>(findings: &'a [Finding], kind: FindingKind, name: &str) -> Option<&'a Finding> {
    findings.iter().find(|finding| finding.kind == kind && finding.text.contains(&format!("`{name}`")))
}

fn one_line(findings: &[Finding]) {
    for finding in findings {
        assert!(!finding.text.contains('\n') && !finding.text.is_empty(), "{finding:?}");
    }
}

pub(crate) async fn migrate_adds_what_is_missing_and_nothing_twice<F: Fixture>() {
    let (fixture, store) = bare::<F>().await;
    fixture.execute("INSERT INTO users (id, email) VALUES (1, 'ana@example.com')").await;
    fixture.execute("INSERT INTO instagram_connections (id, access_token) VALUES (1, 'EAA')").await;
    let planned = store.migration().await.expect("plans");
    assert!(!planned.is_empty());
    assert_eq!(store.migration().await.expect("plans"), planned, "to plan changes nothing");
    for name in MIGRATED {
        assert!(planned.iter().any(|sql| sql.contains(&format!("\"{name}\""))), "{name} in {planned:#?}");
    }
    store.migrate().await.expect("migrates");
    assert_eq!(store.migration().await.expect("plans"), [""; 0]);
    assert_eq!(store.findings().await.expect("looks"), []);
    store.migrate().await.expect("migrates again");
    store.prepare().await.expect("prepares");

    let row =
        fixture.texts("SELECT CAST(refresh_attempts AS TEXT), last_refresh_error FROM instagram_connections").await;
    assert_eq!(row, [[Some("0".to_owned()), None]]);
    let flag = fixture
        .texts("SELECT CASE WHEN show_token_warning THEN 'up' WHEN NOT show_token_warning THEN 'down' END FROM users");
    assert_eq!(flag.await, [[Some("down".to_owned())]]);
}

pub(crate) async fn migrate_keeps_what_is_there<F: Fixture>() {
    let fixture = F::empty().await;
    fixture
        .execute(&format!(
            "CREATE TABLE instagram_connections (id BIGINT PRIMARY KEY, user_id BIGINT, access_token TEXT,
             token_expires_at {}, refresh_attempts INTEGER)",
            F::TIMESTAMP
        ))
        .await;
    fixture.execute("CREATE INDEX mine ON instagram_connections (token_expires_at, id)").await;
    fixture
        .execute("CREATE TABLE users (id BIGINT PRIMARY KEY, email TEXT, username TEXT, show_token_warning BOOLEAN)")
        .await;
    fixture
        .execute(&format!("INSERT INTO instagram_connections VALUES (1, 1, 'EAA', {}, 2)", F::instant(now() + days(1))))
        .await;
    let store = fixture.open(vec![Source::default()]).await.expect("opens");
    store.prepare().await.expect("prepares");
    let planned = store.migration().await.expect("plans");
    assert_eq!(planned.len(), 2, "two columns, and no second index: {planned:#?}");
    assert!(planned.iter().any(|sql| sql.contains("token_refreshed_at")));
    assert!(planned.iter().any(|sql| sql.contains("last_refresh_error")));
    store.migrate().await.expect("migrates");
    let claimed = store.claim(&due()).await.expect("claims");
    assert_eq!((claimed.connections[0].attempts, claimed.connections[0].expires_at), (2, Some(now() + days(1))));
}

pub(crate) async fn findings_name_what_migrate_would_add<F: Fixture>() {
    let (_fixture, store) = bare::<F>().await;
    let findings = store.findings().await.expect("looks");
    one_line(&findings);
    for name in MIGRATED {
        let finding = find(&findings, FindingKind::Missing, name).unwrap_or_else(|| panic!("{name} in {findings:#?}"));
        assert!(finding.text.contains("`perene migrate`"), "{finding:?}");
    }
    assert_eq!(store.findings().await.expect("looks"), findings, "to look changes nothing");
}

pub(crate) async fn a_missing_table_is_named_and_nothing_is_done<F: Fixture>() {
    let (fixture, store) = bare::<F>().await;
    fixture.execute("DROP TABLE users").await;
    let findings = store.findings().await.expect("looks");
    one_line(&findings);
    assert!(find(&findings, FindingKind::MissingTable, "users").is_some(), "{findings:#?}");
    assert_eq!(find(&findings, FindingKind::MissingTable, "instagram_connections"), None);
    let error = store.migrate().await.expect_err("a table is missing");
    assert!(matches!(&error, StoreError::Missing(text) if text.contains("`users`")), "{error}");
    let findings = store.findings().await.expect("looks");
    assert!(find(&findings, FindingKind::Missing, "token_expires_at").is_some(), "nothing half done");
}

pub(crate) async fn a_missing_column_of_the_apps_own_is_named<F: Fixture>() {
    let fixture = F::empty().await;
    fixture.execute("CREATE TABLE instagram_connections (id BIGINT PRIMARY KEY, token TEXT)").await;
    fixture.execute("CREATE TABLE users (id BIGINT PRIMARY KEY, mail TEXT)").await;
    let store = fixture.open(vec![Source::default()]).await.expect("opens");
    let findings = store.findings().await.expect("looks");
    one_line(&findings);
    for name in ["user_id", "access_token", "email", "username"] {
        let finding = find(&findings, FindingKind::MissingOwn, name);
        assert!(finding.is_some(), "{name} in {findings:#?}");
    }
    let error = store.migrate().await.expect_err("columns are missing that only the app can fill");
    assert!(matches!(&error, StoreError::Missing(text) if text.contains("`access_token`")), "{error}");
}

pub(crate) async fn a_column_that_cannot_hold_a_token_is_named<F: Fixture>() {
    let fixture = F::empty().await;
    fixture
        .execute("CREATE TABLE instagram_connections (id BIGINT PRIMARY KEY, user_id BIGINT, access_token INTEGER, token_expires_at BOOLEAN)")
        .await;
    fixture.execute("CREATE TABLE users (id BIGINT PRIMARY KEY, email TEXT, username TEXT)").await;
    let store = fixture.open(vec![Source::default()]).await.expect("opens");
    let findings = store.findings().await.expect("looks");
    one_line(&findings);
    for name in ["access_token", "token_expires_at"] {
        assert!(find(&findings, FindingKind::BadType, name).is_some(), "{name} in {findings:#?}");
    }
    assert_eq!(find(&findings, FindingKind::BadType, "user_id"), None);
    let error = store.migrate().await.expect_err("it cannot work");
    assert!(matches!(&error, StoreError::Mapping(text) if text.contains("`access_token`")), "{error}");
}

pub(crate) async fn a_table_without_an_index_gets_advice_and_an_index<F: Fixture>() {
    let fixture = F::empty().await;
    fixture
        .execute(&format!(
            "CREATE TABLE instagram_connections (id BIGINT PRIMARY KEY, user_id BIGINT, access_token TEXT,
             token_expires_at {0}, token_refreshed_at {0}, refresh_attempts INTEGER, last_refresh_error TEXT)",
            F::TIMESTAMP
        ))
        .await;
    fixture.execute("CREATE INDEX other ON instagram_connections (user_id, token_expires_at)").await;
    fixture
        .execute("CREATE TABLE users (id BIGINT PRIMARY KEY, email TEXT, username TEXT, show_token_warning BOOLEAN)")
        .await;
    let store = fixture.open(vec![Source::default()]).await.expect("opens");
    store.prepare().await.expect("prepares");
    let findings = store.findings().await.expect("looks");
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].kind, FindingKind::Advice);
    assert!(findings[0].text.contains("`instagram_connections`") && findings[0].text.contains("`perene migrate`"));
    let made = store.migrate().await.expect("migrates");
    assert_eq!(made.len(), 1, "{made:#?}");
    assert_eq!(store.findings().await.expect("looks"), []);
}

pub(crate) async fn prepare_can_be_repeated<F: Fixture>() {
    let world = World::<F>::new().await;
    world.insert(1, "EAA", Some(now() + days(1))).await;
    world.warn(1).await;
    for _ in 0..3 {
        world.store.prepare().await.expect("prepares");
        world.replica().await.prepare().await.expect("prepares");
    }
    assert_eq!(world.store.remembered(None, 9, now()).await.expect("reads").len(), 1, "nothing is lost");
}

pub(crate) async fn prepare_needs_no_app_tables_changed<F: Fixture>() {
    let (_fixture, store) = bare::<F>().await;
    store.prepare().await.expect("prepares");
    let findings = store.findings().await.expect("looks");
    assert!(find(&findings, FindingKind::Missing, "token_expires_at").is_some(), "that is for migrate");
    assert!(store.alarms().await.expect("reads").is_empty(), "own tables are there");
}

pub(crate) async fn a_newer_schema_is_refused<F: Fixture>() {
    let world = World::<F>::new().await;
    world.fixture.pretend_newer_schema().await;
    let store = world.replica().await;
    for error in [store.prepare().await.expect_err("newer"), store.migrate().await.expect_err("newer")] {
        assert!(matches!(error, StoreError::NewerSchema(_)), "{error}");
        assert!(!error.may_pass());
    }
}

pub(crate) async fn many_may_prepare_at_once<F: Fixture>() {
    let (fixture, _) = bare::<F>().await;
    let stores = join_all((0..4).map(|_| fixture.open(vec![Source::default()]))).await;
    let stores: Vec<_> = stores.into_iter().map(|store| store.expect("opens")).collect();
    for prepared in join_all(stores.iter().map(Store::prepare)).await {
        prepared.expect("prepares");
    }
    // Where an index is made beside running writers, whoever comes second may be told to come again.
    for migrated in join_all(stores.iter().map(Store::migrate)).await {
        assert!(migrated.as_ref().map_or_else(StoreError::may_pass, |_| true), "{migrated:?}");
    }
    stores[0].migrate().await.expect("migrates");
    assert_eq!(stores[0].migration().await.expect("plans"), [""; 0]);
    assert_eq!(stores[0].findings().await.expect("looks"), []);
}

pub(crate) async fn a_claim_on_a_missing_column_names_it<F: Fixture>() {
    let (_fixture, store) = bare::<F>().await;
    store.prepare().await.expect("prepares");
    let error = store.claim(&due()).await.expect_err("a column is missing");
    let StoreError::Missing(text) = &error else { panic!("{error:?}") };
    assert!(text.contains("token_expires_at") && text.contains("`perene migrate`"), "{text}");
    assert!(!error.may_pass());
}

pub(crate) async fn a_table_under_two_names_is_refused<F: Fixture>() {
    let (fixture, store) = bare::<F>().await;
    store.migrate().await.expect("migrates");
    let schema = if F::TIMESTAMP == "TIMESTAMPTZ" { "public" } else { "main" };
    let other = Source {
        table: crate::config::TableName { schema: Some(schema.to_owned()), name: "instagram_connections".to_owned() },
        ..Source::default()
    };
    let store = fixture.open(vec![Source::default(), other]).await.expect("opens");
    let findings = store.findings().await.expect("looks");
    let twice = findings.iter().find(|finding| finding.text.contains("are one table")).expect("it is found");
    assert_eq!(twice.kind, FindingKind::BadType);
    one_line(&findings);
}
