//! The app's rows: written by compare-and-swap on the token that was read, all of one kind in one statement.

use std::collections::{HashMap, HashSet};

use perene_policy::{Attempts, ErrorText, RowWrite, Secret};
use sqlx::Row;

use super::connect::{Transaction, query};
use super::row::shown;
use super::shape::Shape;
use super::time::PgTime;
use super::trouble::Trouble;
use crate::store::{Commit, Guard};

/// Which columns a statement writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Written {
    token: bool,
    refresh_token: bool,
    expires: bool,
    refreshed: bool,
    attempts: bool,
    error: bool,
}

impl Written {
    /// What `write` writes into the columns that the source maps.
    pub(super) fn of(write: Option<&RowWrite>, shape: &Shape) -> Self {
        let Some(write) = write else { return Self::default() };
        Self {
            token: write.token.is_some(),
            refresh_token: write.refresh_token.is_some() && shape.refresh_token.is_some(),
            expires: write.expires_at.is_some(),
            refreshed: write.refreshed_at.is_some() && shape.refreshed.is_some(),
            attempts: write.attempts != Attempts::Keep && shape.attempts.is_some(),
            error: write.error != ErrorText::Keep && shape.error.is_some(),
        }
    }

    fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// One row to be compared and written.
pub(super) struct Swap<'a> {
    /// Its place in the batch.
    pub(super) n: usize,
    pub(super) commit: &'a Commit,
}

impl Swap<'_> {
    /// Decided about a row that was gone, or held no token: both read as an empty one, and either is still
    /// as it was read.
    fn is_of_gone(&self) -> bool {
        matches!(self.commit.guard, Guard::Memory(_)) && self.commit.connection.token_bytes == 0
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swapped {
    Done,
    /// The row holds another token, or is gone.
    Changed,
    /// The row holds the token and was not written: something in the database has swallowed the write.
    Swallowed,
}

/// Compares and writes `swaps`, which are all of one source and write the same columns.
pub(super) async fn swap(
    transaction: &mut Transaction,
    shape: &Shape,
    written: Written,
    swaps: &[Swap<'_>],
) -> Result<HashMap<usize, Swapped>, Trouble> {
    // A key of a type that the column no longer has can be in no row.
    let (mut swaps, rowless): (Vec<&Swap<'_>>, Vec<&Swap<'_>>) =
        swaps.iter().partition(|swap| shape.id.canonical(&swap.commit.connection.id).is_some());
    let mut results: HashMap<usize, Swapped> = swaps.iter().map(|swap| (swap.n, Swapped::Changed)).collect();
    let rowless = rowless.iter().map(|swap| (swap.n, if swap.is_of_gone() { Swapped::Done } else { Swapped::Changed }));
    results.extend(rowless);
    swaps.sort_unstable_by(|a, b| a.commit.connection.id.cmp(&b.commit.connection.id));
    if written.is_nothing() {
        for n in unchanged(transaction, shape, &swaps).await? {
            results.insert(n, Swapped::Done);
        }
        return Ok(results);
    }
    let done = write(transaction, shape, written, &swaps).await?;
    if done.len() < swaps.len() {
        swaps.retain(|swap| !done.contains(&swap.n));
        for n in unchanged(transaction, shape, &swaps).await? {
            results.insert(n, Swapped::Swallowed);
        }
    }
    results.extend(done.into_iter().map(|n| (n, Swapped::Done)));
    Ok(results)
}

/// `t` is the row that `u` speaks of, and still holds the generation that was read. The pair of both tokens
/// is compared where both are mapped: at a rotating provider it is the refresh token that was sent.
fn is_same(shape: &Shape) -> String {
    let refresh = shape
        .refresh_token
        .as_deref()
        .map_or_else(String::new, |column| format!(" AND ({}) IS NOT DISTINCT FROM u.refresh", shown(column)));
    format!(
        "t.{id} = {key} AND coalesce(octet_length(t.{token}::text), 0) = u.bytes AND coalesce({shown}, '') = u.token{refresh}",
        id = shape.id.column,
        key = shape.id.cast("u.id"),
        token = shape.token,
        shown = shown(&shape.token),
    )
}

/// Which rows still hold what was read.
async fn unchanged(
    transaction: &mut Transaction,
    shape: &Shape,
    swaps: &[&Swap<'_>],
) -> Result<HashSet<usize>, Trouble> {
    if swaps.is_empty() {
        return Ok(HashSet::new());
    }
    let sql = format!(
        "SELECT u.n FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[],
                                 $6::boolean[])
         AS u (n, id, token, bytes, refresh, gone) LEFT JOIN {table} t ON t.{id} = {key}
         WHERE {same} OR (u.gone AND t.{id} IS NULL)",
        table = shape.table,
        id = shape.id.column,
        key = shape.id.cast("u.id"),
        same = is_same(shape)
    );
    let Read { n, id, token, bytes, refresh } = Read::of(swaps);
    let gone: Vec<bool> = swaps.iter().map(|swap| swap.is_of_gone()).collect();
    let rows = query(sql)
        .bind(n)
        .bind(id)
        .bind(token)
        .bind(bytes)
        .bind(refresh)
        .bind(gone)
        .fetch_all(&mut **transaction)
        .await?;
    numbers(&rows)
}

/// Writes; returns who was written.
async fn write(
    transaction: &mut Transaction,
    shape: &Shape,
    written: Written,
    swaps: &[&Swap<'_>],
) -> Result<HashSet<usize>, Trouble> {
    let mut sets = Vec::new();
    if written.token {
        sets.push(format!("{} = u.new_token", shape.token));
    }
    if let Some(column) = shape.refresh_token.as_deref().filter(|_| written.refresh_token) {
        sets.push(format!("{column} = u.new_refresh"));
    }
    if written.expires {
        sets.push(format!("{} = {}", shape.expires.column, shape.expires.write("u.expires")));
    }
    if let Some(moment) = shape.refreshed.as_ref().filter(|_| written.refreshed) {
        sets.push(format!("{} = {}", moment.column, moment.write("u.refreshed")));
    }
    if let Some(count) = shape.attempts.as_ref().filter(|_| written.attempts) {
        // The count stands at the end of its column's range rather than refusing the row.
        sets.push(format!(
            "{column} = CASE WHEN u.adds THEN CASE WHEN t.{column} >= {max} THEN {max} \
             ELSE greatest(coalesce(t.{column}, 0), 0) + 1 END ELSE 0 END",
            column = count.column,
            max = count.max
        ));
    }
    if let Some(column) = shape.error.as_deref().filter(|_| written.error) {
        sets.push(format!("{column} = u.error"));
    }
    let sql = format!(
        "UPDATE {} AS t SET {}
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
                     $8::timestamptz[], $9::timestamptz[], $10::boolean[], $11::text[])
         AS u (n, id, token, bytes, refresh, new_token, new_refresh, expires, refreshed, adds, error)
         WHERE {} RETURNING u.n",
        shape.table,
        sets.join(", "),
        is_same(shape)
    );
    let Read { n, id, token, bytes, refresh } = Read::of(swaps);
    let writes: Vec<&RowWrite> = swaps.iter().filter_map(|swap| swap.commit.decision.write.as_ref()).collect();
    let error = |write: &&RowWrite| match &write.error {
        ErrorText::Set(text) => Some(text.clone()),
        ErrorText::Keep | ErrorText::Clear => None,
    };
    let rows = query(sql)
        .bind(n)
        .bind(id)
        .bind(token)
        .bind(bytes)
        .bind(refresh)
        .bind(writes.iter().map(|write| write.token.as_ref().map(Secret::expose)).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.refresh_token.as_ref().map(Secret::expose)).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.expires_at.map(PgTime::from)).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.refreshed_at.map(PgTime::from)).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| write.attempts == Attempts::AddOne).collect::<Vec<_>>())
        .bind(writes.iter().map(error).collect::<Vec<_>>())
        .fetch_all(&mut **transaction)
        .await?;
    numbers(&rows)
}

/// What was read of the rows, column by column.
struct Read<'a> {
    n: Vec<i64>,
    id: Vec<&'a str>,
    token: Vec<&'a str>,
    bytes: Vec<i64>,
    refresh: Vec<Option<&'a str>>,
}

impl<'a> Read<'a> {
    fn of(swaps: &[&Swap<'a>]) -> Self {
        let connections = || swaps.iter().map(|swap| &swap.commit.connection);
        Self {
            n: swaps.iter().map(|swap| i64::try_from(swap.n).unwrap_or(i64::MAX)).collect(),
            id: connections().map(|connection| connection.id.as_str()).collect(),
            token: connections().map(|connection| connection.token.expose()).collect(),
            bytes: connections().map(|connection| i64::try_from(connection.token_bytes).unwrap_or(i64::MAX)).collect(),
            refresh: connections().map(|connection| connection.refresh_token.as_ref().map(Secret::expose)).collect(),
        }
    }
}

fn numbers(rows: &[sqlx::postgres::PgRow]) -> Result<HashSet<usize>, Trouble> {
    let numbers = rows.iter().map(|row| Ok(usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX)));
    Ok(numbers.collect::<Result<_, sqlx::Error>>()?)
}
