//! Perene's own tables: numbered steps that are only ever added to, each carried out once.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, Row};

use super::PostgresStore;
use super::connect::query;
use super::trouble::Trouble;
use crate::store::StoreError;

/// The steps, in order; the version of a schema is how many of them it has seen. A step that was released
/// is never changed.
pub(super) const STEPS: [&[&str]; 3] = [
    &[
        "CREATE TABLE perene.migration (version integer PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now())",
        // What is in flight. Rows come and go all the time: room in each page lets an update stay in it.
        "CREATE TABLE perene.lease (
        source text COLLATE \"C\" NOT NULL, id text COLLATE \"C\" NOT NULL,
        holder text NOT NULL, fence uuid NOT NULL, until timestamptz NOT NULL,
        PRIMARY KEY (source, id)
    ) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02)",
        // Versions are never used twice, also not by a row that was forgotten and is remembered again.
        "CREATE SEQUENCE perene.connection_version",
        "CREATE TABLE perene.connection (
        source text COLLATE \"C\" NOT NULL, id text COLLATE \"C\" NOT NULL,
        version bigint NOT NULL DEFAULT nextval('perene.connection_version'),
        generation text NOT NULL, user_table text, user_id text, flagged boolean NOT NULL,
        state text NOT NULL, outcome text, incident_id text,
        expires_at timestamptz, next_try_at timestamptz, memory text NOT NULL,
        PRIMARY KEY (source, id)
    )",
        "CREATE INDEX connection_next_try ON perene.connection (source, next_try_at)",
        "CREATE INDEX connection_incident ON perene.connection (incident_id) WHERE incident_id IS NOT NULL",
        "CREATE INDEX connection_flagged ON perene.connection (user_table, user_id) WHERE flagged",
        // The mark tells a commit that is carried out again, because its answer was lost, from a late one.
        "CREATE TABLE perene.history (
        seq bigint GENERATED ALWAYS AS IDENTITY,
        source text COLLATE \"C\" NOT NULL, id text COLLATE \"C\" NOT NULL, at timestamptz NOT NULL,
        event text NOT NULL, outcome text, text text NOT NULL, mark uuid,
        PRIMARY KEY (source, id, seq)
    )",
        // It grows by a line for every refresh, in order of time: an index of page ranges is enough, and almost free.
        "CREATE INDEX history_at ON perene.history USING brin (at)",
        "CREATE TABLE perene.outbox (
        id text PRIMARY KEY, seq bigint GENERATED ALWAYS AS IDENTITY,
        incident_id text NOT NULL, source text NOT NULL, connection_id text NOT NULL, user_id text,
        channel text NOT NULL, kind text NOT NULL, payload text NOT NULL,
        created_at timestamptz NOT NULL, next_at timestamptz NOT NULL, attempts integer NOT NULL DEFAULT 0,
        lease_until timestamptz, done_at timestamptz, error text
    )",
        "CREATE INDEX outbox_next ON perene.outbox (next_at) WHERE done_at IS NULL",
        "CREATE TABLE perene.app (name text PRIMARY KEY, version bigint NOT NULL, state text NOT NULL)",
        "CREATE TABLE perene.run (
        seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL, replica text NOT NULL,
        started_at timestamptz NOT NULL, finished_at timestamptz, report text
    )",
        "CREATE TABLE perene.alarm (
        subject text NOT NULL, kind text NOT NULL, since timestamptz NOT NULL, text text NOT NULL,
        PRIMARY KEY (subject, kind)
    )",
    ],
    &[
        // What is kept outside of the database, in journals, is kept under this name. One row.
        "CREATE TABLE perene.identity (is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one), id uuid NOT NULL)",
        "INSERT INTO perene.identity (id) VALUES (gen_random_uuid())",
    ],
    // Which servers have answered, and since when in another one's place: NULL for the first.
    &[
        "CREATE TABLE perene.server (name text PRIMARY KEY, since timestamptz)",
        // Since when Perene is in charge of a table: what had ended before is none of its business.
        "CREATE TABLE perene.source (name text COLLATE \"C\" PRIMARY KEY, since timestamptz NOT NULL)",
    ],
];

/// Replicas that start together make the tables one after the other. The number is any, and always this.
const LOCK: i64 = 0x7065_7265_6e65;

/// How far Perene's own tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) has_schema: bool,
    /// How many of [`STEPS`] were carried out.
    pub(super) version: usize,
}

impl Standing {
    /// What is still to be done.
    pub(super) fn missing(self) -> Vec<String> {
        let mut statements = Vec::new();
        if !self.has_schema {
            statements.push("CREATE SCHEMA perene".to_owned());
        }
        for (number, step) in STEPS.iter().enumerate().skip(self.version) {
            statements.extend(step.iter().map(|&statement| statement.to_owned()));
            statements.push(format!("INSERT INTO perene.migration (version) VALUES ({})", number + 1));
        }
        statements
    }
}

/// Looks how far Perene's own tables are.
///
/// # Errors
/// [`StoreError::NewerSchema`] if a newer Perene has made them.
pub(super) async fn standing(connection: &mut PgConnection) -> Result<Standing, Trouble> {
    // The catalog, and not `to_regclass`: it answers also where the role has no right to use the schema.
    let row = query(
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'perene'),
                EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname = 'perene' AND c.relname = 'migration')",
    )
    .fetch_one(&mut *connection)
    .await?;
    let has_schema = row.try_get(0)?;
    if !row.try_get::<bool, _>(1)? {
        return Ok(Standing { has_schema, version: 0 });
    }
    let row = query("SELECT coalesce(max(version), 0) FROM perene.migration").fetch_one(&mut *connection).await?;
    let version = usize::try_from(row.try_get::<i32, _>(0)?).unwrap_or(0);
    if version > STEPS.len() {
        return Err(StoreError::NewerSchema(format!(
            "the tables in schema `perene` are of version {version}, and this Perene knows versions up to {}: \
             start a newer Perene",
            STEPS.len()
        ))
        .into());
    }
    Ok(Standing { has_schema, version })
}

/// Makes what is missing of Perene's own tables; returns the statements.
pub(super) async fn make(store: &PostgresStore) -> Result<Vec<String>, Trouble> {
    let mut transaction = store.connections.begin().await?;
    if standing(&mut transaction).await?.missing().is_empty() {
        transaction.commit().await?;
        return Ok(Vec::new());
    }
    query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    let missing = standing(&mut transaction).await?.missing();
    for statement in &missing {
        (*transaction).execute(sqlx::raw_sql(AssertSqlSafe(statement.as_str()))).await?;
    }
    transaction.commit().await?;
    // The first server is put on record with the tables, so that a standby that takes over before the first run is known
    // to be another one.
    store.incarnation_once().await?;
    Ok(missing)
}

impl PostgresStore {
    pub(super) async fn prepare_once(&self) -> Result<(), Trouble> {
        match make(self).await {
            Ok(_) => Ok(()),
            Err(trouble) if trouble.code() == "42501" => Err(StoreError::Missing(format!(
                "Perene's own tables (schema `perene`) are missing, and the database role `{user}` may not make them: \
                 run `perene migrate --grant-to {user}` as the database's owner",
                user = self.connections.place.user
            ))
            .into()),
            Err(trouble) => Err(trouble),
        }
    }
}
