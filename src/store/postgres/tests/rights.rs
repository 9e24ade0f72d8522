//! Roles that may do what a run needs, and roles that may not.

use super::super::PostgresStore;
use super::super::testing::Database;
use super::{due, insert, leased, now, refreshed, world};
use crate::config::Source;
use crate::store::contract::Fixture;
use crate::store::{Committed, FindingKind, Store, StoreError};

async fn role(database: &Database) -> String {
    let role = format!("worker {}", database.name);
    database.execute(&format!("CREATE ROLE \"{role}\" LOGIN")).await;
    role
}

async fn open(database: &Database, role: &str) -> PostgresStore {
    let url = database.url_of(&role.replace(' ', "%20"));
    PostgresStore::connect(&url, vec![Source::default()]).await.expect("connects")
}

async fn remove(database: &Database, role: &str) {
    database.execute(&format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"")).await;
}

#[tokio::test]
async fn the_grants_are_enough_for_a_run_and_no_more() {
    let (database, owner) = world().await;
    insert(&database, 2).await;
    database.execute("ALTER TABLE users ADD COLUMN password_hash text").await;
    let role = role(&database).await;
    let planned = owner.grants(&role).await.expect("plans");
    assert!(planned.iter().all(|sql| sql.contains(&format!("\"{role}\""))), "{planned:#?}");
    owner.grant(&role).await.expect("grants");
    owner.grant(&role).await.expect("grants again");
    let store = open(&database, &role).await;
    assert_eq!(store.findings().await.expect("looks"), []);
    store.prepare().await.expect("prepares");
    let commits: Vec<_> = store
        .claim(&due())
        .await
        .expect("claims")
        .connections
        .into_iter()
        .map(|connection| {
            let mut decision = refreshed("EAA-new");
            decision.flag = Some(connection.id == "1");
            leased(connection, decision)
        })
        .collect();
    assert_eq!(store.commit(&commits, now()).await.expect("commits"), [Committed::Done, Committed::Done]);
    store.set_alarms("mail", &[]).await.expect("sets");
    let run = store.begin_run("scheduled", "replica-a", now()).await.expect("begins");
    store.finish_run(run, "{}", now()).await.expect("finishes");
    store.forget_before(now()).await.expect("forgets");
    let may = database
        .texts(&format!(
            "SELECT has_column_privilege('{role}', 'users', 'password_hash', 'SELECT')::text,
                    has_column_privilege('{role}', 'users', 'email', 'UPDATE')::text,
                    has_column_privilege('{role}', 'instagram_connections', 'id', 'UPDATE')::text,
                    has_table_privilege('{role}', 'instagram_connections', 'DELETE')::text,
                    has_table_privilege('{role}', 'perene.migration', 'INSERT')::text"
        ))
        .await;
    assert!(may[0].iter().all(|may| may.as_deref() == Some("false")), "{may:?}");
    store.close().await;
    remove(&database, &role).await;
}

#[tokio::test]
async fn what_a_role_lacks_is_named_before_and_after() {
    let (database, owner) = world().await;
    insert(&database, 1).await;
    let role = role(&database).await;
    let store = open(&database, &role).await;
    let findings = store.findings().await.expect("looks");
    assert!(findings.iter().all(|finding| finding.kind == FindingKind::Rights), "{findings:#?}");
    assert!(findings.iter().any(|finding| finding.text.contains("schema `perene`")), "{findings:#?}");
    let lacks = |right: &str, column: &str| {
        let words = format!("lacks {right} on column `{column}`");
        findings.iter().any(|finding| finding.text.contains(&words) && finding.text.contains("--grant-to"))
    };
    assert!(lacks("SELECT", "access_token") && lacks("UPDATE", "show_token_warning"), "{findings:#?}");
    assert!(!lacks("UPDATE", "email"));

    owner.grant(&role).await.expect("grants");
    database.execute(&format!("REVOKE UPDATE (access_token) ON instagram_connections FROM \"{role}\"")).await;
    let findings = store.findings().await.expect("looks");
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let connection = store.claim(&due()).await.expect("claims").connections.remove(0);
    let error = store.commit(&[leased(connection, refreshed("EAA-new"))], now()).await.expect_err("may not write");
    let StoreError::Missing(text) = &error else { panic!("{error:?}") };
    assert!(text.contains("instagram_connections") && text.contains("--grant-to"), "{text}");
    store.close().await;
    remove(&database, &role).await;
}

#[tokio::test]
async fn who_may_not_make_perenes_own_tables_is_told_how_they_are_made() {
    let database = Database::new().await;
    let role = role(&database).await;
    let store = open(&database, &role).await;
    let error = store.prepare().await.expect_err("may not");
    assert!(matches!(&error, StoreError::Missing(text) if text.contains("perene migrate")), "{error}");
    store.close().await;
    remove(&database, &role).await;
}

#[tokio::test]
async fn a_role_that_does_not_exist_is_wrong_use() {
    let (_database, store) = world().await;
    for role in ["nobody", "a\"b; --", "a\0b"] {
        let error = store.grants(role).await.expect_err("there is none");
        assert!(error.is_wrong_use() && !error.to_string().contains('\0'), "{error}");
    }
}

// A worker without BYPASSRLS sees no row and no error: the silence must be broken here.
#[tokio::test]
async fn row_level_security_that_hides_all_rows_is_found() {
    let (database, owner) = world().await;
    insert(&database, 1).await;
    let role = role(&database).await;
    owner.grant(&role).await.expect("grants");
    database.execute("ALTER TABLE instagram_connections ENABLE ROW LEVEL SECURITY").await;
    let store = open(&database, &role).await;
    let findings = store.findings().await.expect("looks");
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].kind, FindingKind::Rights);
    assert!(findings[0].text.contains("row-level security hides") && findings[0].text.contains(&role));
    database.execute("CREATE POLICY see ON instagram_connections FOR SELECT USING (true)").await;
    assert_eq!(store.findings().await.expect("looks")[0].kind, FindingKind::Rights, "seen, but not written");
    let connection = store.claim(&due()).await.expect("claims").connections.remove(0);
    let committed = store.commit(&[leased(connection, refreshed("EAA-new"))], now()).await.expect("commits");
    assert!(matches!(&committed[0], Committed::Refused(text) if text.contains("row-level security")), "{committed:?}");
    database.execute(&format!("CREATE POLICY write ON instagram_connections TO \"{role}\" USING (true)")).await;
    assert_eq!(store.findings().await.expect("looks")[0].kind, FindingKind::Advice);
    assert_eq!(owner.findings().await.expect("looks"), [], "a superuser is above it");
    store.close().await;
    remove(&database, &role).await;
}
