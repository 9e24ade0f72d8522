//! The rights that a run needs, and no more.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Executor, Row};

use super::PostgresStore;
use super::connect::query;
use super::mapped::{connection_columns, user_columns};
use super::shape::{self, look_up};
use super::sql::ident;
use super::trouble::Trouble;
use crate::store::StoreError;

/// What is given on one table: its schema, and the columns that are read and written.
#[derive(Default)]
struct Given {
    schema: String,
    read: Vec<String>,
    written: Vec<String>,
}

impl PostgresStore {
    pub(super) async fn grants_once(&self, role: &str) -> Result<Vec<String>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let row = query("SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1)")
            .bind(role.replace('\0', ""))
            .fetch_one(&mut *transaction)
            .await?;
        if !row.try_get::<bool, _>(0)? || role.contains('\0') {
            return Err(StoreError::Mapping(format!(
                "there is no role `{}` in the database: create it first (`CREATE ROLE … LOGIN`)",
                role.escape_debug()
            ))
            .into());
        }
        let mut tables: BTreeMap<String, Given> = BTreeMap::new();
        for source in &self.sources {
            let users = source.user.as_ref().map(|user| (&user.table, user_columns(source)));
            for (name, columns) in [(&source.table, connection_columns(source))].into_iter().chain(users) {
                let Some(table) = look_up(&mut transaction, name).await? else {
                    return Err(StoreError::Missing(shape::missing_table(&mut transaction, name).await?).into());
                };
                let given = tables.entry(table.sql()).or_default();
                given.schema = ident(&table.schema);
                for column in columns {
                    given.read.push(ident(column.name));
                    if column.is_written {
                        given.written.push(ident(column.name));
                    }
                }
            }
        }
        transaction.commit().await?;
        Ok(statements(tables, &ident(role)))
    }

    pub(super) async fn grant_once(&self, role: &str) -> Result<(), Trouble> {
        let statements = self.grants_once(role).await?;
        let mut transaction = self.connections.begin().await?;
        for statement in statements {
            (*transaction).execute(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
        }
        transaction.commit().await
    }
}

fn statements(tables: BTreeMap<String, Given>, role: &str) -> Vec<String> {
    let mut schemas: Vec<String> = tables.values().map(|given| given.schema.clone()).collect();
    schemas.push("perene".to_owned());
    schemas.sort();
    schemas.dedup();
    let mut statements: Vec<String> =
        schemas.iter().map(|schema| format!("GRANT USAGE ON SCHEMA {schema} TO {role}")).collect();
    for (table, mut given) in tables {
        for (right, columns) in [("SELECT", &mut given.read), ("UPDATE", &mut given.written)] {
            columns.sort();
            columns.dedup();
            if !columns.is_empty() {
                statements.push(format!("GRANT {right} ({}) ON {table} TO {role}", columns.join(", ")));
            }
        }
    }
    statements.push(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA perene TO {role}"));
    // How far the tables are is the owner's to say.
    statements.push(format!("REVOKE INSERT, UPDATE, DELETE ON perene.migration FROM {role}"));
    statements.push(format!("GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA perene TO {role}"));
    statements
}
