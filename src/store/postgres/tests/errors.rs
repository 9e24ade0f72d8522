//! Databases that cannot be reached, or do not let us in.

use perene_policy::Secret;

use super::super::PostgresStore;
use super::super::testing::Database;
use super::{due, insert, world};
use crate::config::Source;
use crate::store::contract::Fixture;
use crate::store::{Store, StoreError};

async fn error(url: &Secret) -> StoreError {
    let Err(error) = PostgresStore::connect(url, vec![Source::default()]).await else { panic!("connects") };
    let text = error.to_string();
    assert!(!text.contains("hunter2") && !text.contains('\n'), "{text}");
    error
}

#[tokio::test]
async fn nobody_at_the_port_is_told_with_the_place() {
    let error = error(&Secret::new("postgres://me:hunter2@127.0.0.1:1/app")).await;
    assert!(matches!(&error, StoreError::Unreachable(text) if text.contains("127.0.0.1:1")), "{error}");
    assert!(error.may_pass());
}

#[tokio::test]
async fn a_wrong_password_names_the_user_and_never_the_password() {
    let database = Database::new().await;
    database.execute("CREATE ROLE with_password LOGIN PASSWORD 'right'").await;
    let wrong = error(&database.url_of("with_password:hunter2")).await;
    assert!(matches!(&wrong, StoreError::NotLetIn(text) if text.contains("`with_password`")), "{wrong}");
    assert!(wrong.to_string().contains("password"));
    assert!(PostgresStore::connect(&database.url_of("with_password:right"), Vec::new()).await.is_ok());
    database.execute("DROP ROLE with_password").await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named() {
    let database = Database::new().await;
    let url = Secret::new(database.url().expose().replace(&database.name, "not_there"));
    let error = error(&url).await;
    assert!(matches!(&error, StoreError::NotLetIn(text) if text.contains("`not_there`")), "{error}");
}

#[tokio::test]
async fn a_url_that_is_none_is_wrong_use() {
    for url in ["postgres://[hunter2", "hunter2", "postgres://me@h/app?sslmode=hunter2", "postgres://me@h:hunter2/app"]
    {
        assert!(error(&Secret::new(url)).await.is_wrong_use(), "{url}");
    }
}

#[tokio::test]
async fn a_database_that_only_reads_changes_nothing_and_may_come_back() {
    let (database, store) = world().await;
    insert(&database, 1).await;
    store.close().await;
    database.execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name)).await;
    let store = database.store().await;
    let error = store.claim(&due()).await.expect_err("cannot take a lease");
    assert!(error.may_pass() && error.to_string().contains("read-only"), "{error}");
}
