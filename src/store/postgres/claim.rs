//! Leases: pages of connections, handed out to one replica each.
//!
//! A claim reads which rows are wanted, takes leases on them, and then reads the rows. The last read sees
//! whatever was committed before the lease was taken (READ COMMITTED takes a new look for each statement),
//! so a row that another replica has done between the first read and the lease is noticed and let go.
//! Leases are taken and locked in the order of their keys: two replicas wait for one another, never both.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use perene_policy::Connection;
use sqlx::Postgres;
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use uuid::Uuid;

use super::PostgresStore;
use super::connect::{Transaction, query};
use super::row::{self, Wanted};
use super::shape::Shape;
use super::time::PgTime;
use super::trouble::Trouble;
use crate::store::{Claim, Claimed, Cursor, Lease};

/// One row of the first read.
struct Candidate {
    id: String,
    expires: Option<PgTime>,
    is_elsewhere: bool,
}

impl PostgresStore {
    pub(super) async fn claim_once(&self, claim: &Claim<'_>) -> Result<Claimed, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let shape = self.shape(&mut transaction, claim.source).await?;
        let Some(wanted) = Wanted::of(claim, &shape) else {
            transaction.commit().await?;
            return Ok(Claimed { connections: Vec::new(), elsewhere: 0, next: None });
        };
        let (page, next) = candidates(&mut transaction, claim, &shape, &wanted).await?;
        let mut free: Vec<String> =
            page.iter().filter(|candidate| !candidate.is_elsewhere).map(|candidate| candidate.id.clone()).collect();
        free.sort_unstable();
        // A table without a unique key may hold a key twice; it is one connection all the same.
        free.dedup();
        let taken = take(&mut transaction, claim, &shape.source, &free).await?;
        let connections = read(&mut transaction, claim, &shape, &wanted, &taken).await?;
        let kept: HashSet<&str> = connections.iter().map(|connection| connection.id.as_str()).collect();
        let dropped: Vec<&str> = taken.iter().map(String::as_str).filter(|id| !kept.contains(id)).collect();
        if !dropped.is_empty() {
            query("DELETE FROM perene.lease WHERE source = $1 AND id = ANY ($2::text[]) AND fence = $3::uuid")
                .bind(&shape.source)
                .bind(&dropped)
                .bind(claim.fence.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(Claimed { connections, elsewhere: count(page.len() - taken.len()), next })
    }

    pub(super) async fn peek_once(&self, claim: &Claim<'_>) -> Result<Vec<Connection>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let shape = self.shape(&mut transaction, claim.source).await?;
        let Some(wanted) = Wanted::of(claim, &shape) else {
            transaction.commit().await?;
            return Ok(Vec::new());
        };
        let Wanted { from, condition, order, after, .. } = &wanted;
        let sql = format!(
            "SELECT {} {from} {} WHERE {condition}{after} AND l.is_held IS NULL {order} LIMIT $8",
            row::columns(&shape),
            leased(&shape)
        );
        let rows = bound(sql, claim, &shape, &wanted)
            .bind(claim.fence.to_string())
            .bind(limit(claim.limit))
            .fetch_all(&mut *transaction)
            .await?;
        let connections = rows.iter().map(|row| row::connection(row, &shape)).collect::<Result<_, _>>()?;
        transaction.commit().await?;
        Ok(connections)
    }

    pub(super) async fn count_once(&self, claim: &Claim<'_>) -> Result<u64, Trouble> {
        let mut transaction = self.connections.begin().await?;
        transaction.run("SET LOCAL statement_timeout = '5min'").await?;
        let claim = Claim { after: None, ..*claim };
        let shape = self.shape(&mut transaction, claim.source).await?;
        let Some(wanted) = Wanted::of(&claim, &shape) else {
            transaction.commit().await?;
            return Ok(0);
        };
        let Wanted { from, condition, .. } = &wanted;
        let sql = format!("SELECT count(*) {from} {} WHERE {condition} AND l.is_held IS NULL", leased(&shape));
        let row =
            bound(sql, &claim, &shape, &wanted).bind(claim.fence.to_string()).fetch_one(&mut *transaction).await?;
        let rows: i64 = row.try_get(0)?;
        transaction.commit().await?;
        Ok(u64::try_from(rows).unwrap_or(0))
    }

    pub(super) async fn find_once(&self, source: usize, id: &str) -> Result<Option<Connection>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let shape = self.shape(&mut transaction, source).await?;
        let Some(id) = shape.id.canonical(id) else {
            transaction.commit().await?;
            return Ok(None);
        };
        let sql = format!(
            "SELECT {} FROM {} t LEFT JOIN perene.connection c ON c.source = $1 AND c.id = {} WHERE t.{} = {} LIMIT 1",
            row::columns(&shape),
            shape.table,
            shape.id.text(),
            shape.id.column,
            shape.id.cast("$2::text")
        );
        let found = query(sql).bind(&shape.source).bind(id).fetch_optional(&mut *transaction).await?;
        let connection = found.map(|found| row::connection(&found, &shape)).transpose()?;
        transaction.commit().await?;
        Ok(connection)
    }

    pub(super) async fn extend_once(&self, fence: Uuid, until: Timestamp) -> Result<u64, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let done = query(
            "WITH mine AS (SELECT source, id FROM perene.lease WHERE fence = $1::text::uuid ORDER BY source, id FOR UPDATE)
             UPDATE perene.lease l SET until = $2 FROM mine
             WHERE l.source = mine.source AND l.id = mine.id AND l.fence = $1::text::uuid",
        )
        .bind(fence.to_string())
        .bind(PgTime::from(until))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn release_once(&self, leases: &[Lease]) -> Result<(), Trouble> {
        let mut held = Vec::with_capacity(leases.len());
        for Lease { source, id, fence } in leases {
            held.push((self.source(*source)?.table.to_string(), id.as_str(), *fence));
        }
        let held: Vec<_> = held.iter().map(|(source, id, fence)| (source.as_str(), *id, *fence)).collect();
        let mut transaction = self.connections.begin().await?;
        give_back(&mut transaction, &held).await?;
        transaction.commit().await
    }
}

/// Gives leases back that are still held; returns which, by their places. They are locked in the order in
/// which claims take them; from then on nobody else can decide about these connections.
pub(super) async fn give_back(
    connection: &mut PgConnection,
    leases: &[(&str, &str, Uuid)],
) -> Result<Vec<usize>, Trouble> {
    let mut places: Vec<usize> = (0..leases.len()).collect();
    places.sort_unstable_by_key(|&n| leases[n]);
    let rows = query(
        "WITH mine AS (
             SELECT u.n, u.source, u.id, u.fence
             FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]::uuid[]) AS u (n, source, id, fence),
                  LATERAL (SELECT 1 FROM perene.lease l
                           WHERE l.source = u.source AND l.id = u.id AND l.fence = u.fence FOR UPDATE) held
         )
         DELETE FROM perene.lease l USING mine
         WHERE l.source = mine.source AND l.id = mine.id AND l.fence = mine.fence RETURNING mine.n",
    )
    .bind(places.iter().map(|&n| i64::try_from(n).unwrap_or(i64::MAX)).collect::<Vec<_>>())
    .bind(places.iter().map(|&n| leases[n].0).collect::<Vec<_>>())
    .bind(places.iter().map(|&n| leases[n].1).collect::<Vec<_>>())
    .bind(places.iter().map(|&n| leases[n].2.to_string()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let held = rows.iter().map(|row| Ok(usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX)));
    Ok(held.collect::<Result<_, sqlx::Error>>()?)
}

/// Joins whether another holder has the row, as `l.is_held`. `$7` is the claim's own fence: a claim that is
/// made again, because its answer was lost, finds its own leases. The limit keeps it a look into the index
/// for each row; all leases at once are many, and most of them dead ones.
fn leased(shape: &Shape) -> String {
    format!(
        "LEFT JOIN LATERAL (SELECT true AS is_held FROM perene.lease l WHERE l.source = $1 AND l.id = {} \
         AND l.until > $2::timestamptz AND l.fence <> $7::text::uuid LIMIT 1) l ON true",
        shape.id.text()
    )
}

/// Binds `$1` to `$6`.
fn bound<'q>(sql: String, claim: &Claim<'_>, shape: &Arc<Shape>, wanted: &Wanted) -> Query<'q, Postgres, PgArguments> {
    let cursor = claim.after;
    query(sql)
        .bind(shape.source.clone())
        .bind(PgTime::from(claim.now))
        .bind(PgTime::from(wanted.horizon))
        .bind(cursor.and_then(|cursor| cursor.expires_us).map(PgTime))
        .bind(cursor.and_then(|cursor| shape.id.canonical(&cursor.id)))
        .bind(wanted.named.clone())
}

/// The first read: one page, and where the next begins.
async fn candidates(
    transaction: &mut Transaction,
    claim: &Claim<'_>,
    shape: &Arc<Shape>,
    wanted: &Wanted,
) -> Result<(Vec<Candidate>, Option<Cursor>), Trouble> {
    let Wanted { from, condition, order, after, .. } = wanted;
    let sql = format!(
        "SELECT {}, {}, l.is_held IS NOT NULL {from} {} WHERE {condition}{after} {order} LIMIT $8",
        shape.id.text(),
        shape.expires.read(),
        leased(shape)
    );
    let rows = bound(sql, claim, shape, wanted)
        .bind(claim.fence.to_string())
        .bind(limit(claim.limit).saturating_add(1))
        .fetch_all(&mut **transaction)
        .await?;
    let mut page = rows
        .iter()
        .map(|row| Ok(Candidate { id: row.try_get(0)?, expires: row.try_get(1)?, is_elsewhere: row.try_get(2)? }))
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    let has_more = page.len() > claim.limit;
    page.truncate(claim.limit);
    let next = page
        .last()
        .filter(|_| has_more)
        .map(|last| Cursor { expires_us: last.expires.map(|at| at.0), id: last.id.clone() });
    Ok((page, next))
}

/// Takes leases on `ids`, which are sorted; returns those that were free.
async fn take(
    transaction: &mut Transaction,
    claim: &Claim<'_>,
    source: &str,
    ids: &[String],
) -> Result<Vec<String>, Trouble> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = query(
        "INSERT INTO perene.lease AS l (source, id, holder, fence, until)
         SELECT $1, u.id, $2, $3::text::uuid, $4 FROM unnest($5::text[]) AS u (id)
         ON CONFLICT (source, id) DO UPDATE SET holder = excluded.holder, fence = excluded.fence, until = excluded.until
         WHERE l.until <= $6 OR l.fence = excluded.fence
         RETURNING l.id",
    )
    .bind(source)
    .bind(claim.holder)
    .bind(claim.fence.to_string())
    .bind(PgTime::from(claim.until))
    .bind(ids)
    .bind(PgTime::from(claim.now))
    .fetch_all(&mut **transaction)
    .await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// The second read: the rows that are leased and still wanted.
async fn read(
    transaction: &mut Transaction,
    claim: &Claim<'_>,
    shape: &Arc<Shape>,
    wanted: &Wanted,
    ids: &[String],
) -> Result<Vec<Connection>, Trouble> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let Wanted { condition, order, .. } = wanted;
    let sql = format!(
        "SELECT {columns} FROM unnest($7::text[]) AS u (id) JOIN {table} t ON t.{id} = {key}
         LEFT JOIN perene.connection c ON c.source = $1 AND c.id = {text}
         WHERE {condition} {order}",
        columns = row::columns(shape),
        table = shape.table,
        id = shape.id.column,
        key = shape.id.cast("u.id"),
        text = shape.id.text(),
    );
    let rows = bound(sql, claim, shape, wanted).bind(ids).fetch_all(&mut **transaction).await?;
    Ok(rows.iter().map(|row| row::connection(row, shape)).collect::<Result<_, _>>()?)
}

fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}
