//! Looks for what a run needs: tables, columns, types, rights, and the index. Changes nothing.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use super::connect::query;
use super::mapped::{Mapped, column_finding, connection_columns, user_columns};
use super::migrate::{can_be_indexed, has_index};
use super::schema;
use super::shape::{self, Table, look_up};
use super::trouble::Trouble;
use crate::config::TableName;
use crate::store::{Finding, FindingKind, mapped_twice};

impl PostgresStore {
    pub(super) async fn findings_once(&self) -> Result<Vec<Finding>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let mut findings = Vec::new();
        let user = &self.connections.place.user;
        if let Some(finding) = self.own_tables(&mut transaction).await? {
            findings.push(finding);
        }
        let mut seen: Vec<(String, String)> = Vec::new();
        for source in &self.sources {
            let columns = connection_columns(source);
            let found = look_at(&mut transaction, user, &source.table, &columns, &mut findings).await?;
            if let Some(table) = &found {
                match seen.iter().find(|(sql, _)| *sql == table.sql()) {
                    Some((_, other)) => findings.push(mapped_twice(other, &table.written)),
                    None => seen.push((table.sql(), table.written.clone())),
                }
            }
            let expiry = &source.columns.token_expires_at;
            if let Some(table) = found.filter(|table| can_be_indexed(table) && table.columns.contains_key(expiry))
                && !has_index(&mut transaction, &table, expiry).await?
            {
                findings.push(Finding {
                    kind: FindingKind::Advice,
                    text: format!(
                        "table `{}` has no index that begins with `{expiry}`: each run reads the whole table; run `perene migrate`",
                        table.written
                    ),
                });
            }
            if let Some(users) = &source.user {
                look_at(&mut transaction, user, &users.table, &user_columns(source), &mut findings).await?;
            }
        }
        transaction.commit().await?;
        let mut unique: Vec<Finding> = Vec::with_capacity(findings.len());
        for finding in findings {
            if !unique.contains(&finding) {
                unique.push(finding);
            }
        }
        Ok(unique)
    }

    async fn own_tables(&self, connection: &mut PgConnection) -> Result<Option<Finding>, Trouble> {
        let user = &self.connections.place.user;
        let row = query(
            "SELECT coalesce((SELECT has_schema_privilege(n.oid, 'USAGE') FROM pg_catalog.pg_namespace n
                              WHERE n.nspname = 'perene'), true),
                    coalesce((SELECT string_agg(c.relname::text, '`, `' ORDER BY c.relname) FROM pg_catalog.pg_class c
                     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                     WHERE n.nspname = 'perene' AND c.relkind = 'r' AND NOT CASE c.relname
                         WHEN 'migration' THEN has_table_privilege(c.oid, 'SELECT')
                         ELSE has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                              AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE') END), '')",
        )
        .fetch_one(&mut *connection)
        .await?;
        let remedy = format!("`perene migrate --grant-to {user}`, run by the owner, gives it");
        if !row.try_get::<bool, _>(0)? {
            let text = format!("role `{user}` may not use schema `perene`, Perene's own: {remedy}");
            return Ok(Some(Finding { kind: FindingKind::Rights, text }));
        }
        let closed: String = row.try_get(1)?;
        if !closed.is_empty() {
            let text = format!("role `{user}` may not read and write `{closed}` in schema `perene`: {remedy}");
            return Ok(Some(Finding { kind: FindingKind::Rights, text }));
        }
        let is_complete = schema::standing(connection).await?.missing().is_empty();
        Ok((!is_complete).then(|| Finding {
            kind: FindingKind::Missing,
            text: "Perene's own tables (schema `perene`) are missing or of an older version: run `perene migrate`"
                .to_owned(),
        }))
    }
}

/// Looks at one mapped table; returns it if it is there.
async fn look_at(
    connection: &mut PgConnection,
    user: &str,
    name: &TableName,
    columns: &[Mapped<'_>],
    findings: &mut Vec<Finding>,
) -> Result<Option<Table>, Trouble> {
    let Some(table) = look_up(connection, name).await? else {
        let text = shape::missing_table(connection, name).await?;
        findings.push(Finding { kind: FindingKind::MissingTable, text });
        return Ok(None);
    };
    findings.extend(columns.iter().filter_map(|column| column_finding(&table, column)));
    rights(connection, user, &table, columns, findings).await?;
    row_security(connection, user, &table, findings).await?;
    Ok(Some(table))
}

/// The rights on the schema and on the columns that are there.
async fn rights(
    connection: &mut PgConnection,
    user: &str,
    table: &Table,
    columns: &[Mapped<'_>],
    findings: &mut Vec<Finding>,
) -> Result<(), Trouble> {
    let there: Vec<&Mapped<'_>> = columns.iter().filter(|column| table.columns.contains_key(column.name)).collect();
    let of = &table.written;
    let remedy = format!("`perene migrate --grant-to {user}`, run by the owner, gives it");
    let mut lack = |text: String| findings.push(Finding { kind: FindingKind::Rights, text });
    let row = query("SELECT has_schema_privilege($1, 'USAGE')").bind(&table.schema).fetch_one(&mut *connection).await?;
    if !row.try_get::<bool, _>(0)? {
        lack(format!("role `{user}` may not use schema `{}`: {remedy}", table.schema));
    }
    let rows = query(
        "SELECT u.name, has_column_privilege($1::bigint::oid, u.name, 'SELECT'),
                has_column_privilege($1::bigint::oid, u.name, 'UPDATE')
         FROM unnest($2::text[]) AS u (name)",
    )
    .bind(table.oid)
    .bind(there.iter().map(|column| column.name).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    for (row, column) in rows.iter().zip(there) {
        let name = column.name;
        if !row.try_get::<bool, _>(1)? {
            lack(format!("role `{user}` lacks SELECT on column `{name}` of table `{of}`: {remedy}"));
        }
        if column.is_written && !row.try_get::<bool, _>(2)? {
            lack(format!("role `{user}` lacks UPDATE on column `{name}` of table `{of}`: {remedy}"));
        }
    }
    Ok(())
}

/// Row-level security hides rows without an error: where no policy lets the role see any, nothing would
/// ever be refreshed, and nobody would know.
async fn row_security(
    connection: &mut PgConnection,
    user: &str,
    table: &Table,
    findings: &mut Vec<Finding>,
) -> Result<(), Trouble> {
    let of = &table.written;
    let row = query(
        "SELECT row_security_active($1::bigint::oid),
                (SELECT count(DISTINCT need) FROM pg_catalog.pg_policy p, unnest(ARRAY['r', 'w']) AS need
                 WHERE p.polrelid = $1::bigint::oid AND p.polpermissive AND p.polcmd::text IN (need, '*')
                   AND (p.polroles = '{0}' OR EXISTS (
                       SELECT 1 FROM unnest(p.polroles) AS r (oid) WHERE pg_has_role(r.oid, 'USAGE'))))",
    )
    .bind(table.oid)
    .fetch_one(&mut *connection)
    .await?;
    if !row.try_get::<bool, _>(0)? {
        return Ok(());
    }
    let remedy = format!("give `{user}` a policy for all rows, or BYPASSRLS");
    findings.push(if row.try_get::<i64, _>(1)? < 2 {
        let text = format!("row-level security hides the rows of table `{of}` from role `{user}`: {remedy}");
        Finding { kind: FindingKind::Rights, text }
    } else {
        let text = format!("row-level security may hide rows of table `{of}` from role `{user}`: {remedy}");
        Finding { kind: FindingKind::Advice, text }
    });
    Ok(())
}
