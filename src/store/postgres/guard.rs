//! Who may still decide: the lease is there, or what is remembered is as it was read.

use std::collections::HashSet;

use jiff::Timestamp;
use sqlx::Row;
use uuid::Uuid;

use super::claim::give_back;
use super::commit::Task;
use super::connect::{Transaction, query};
use super::memory;
use super::time::PgTime;
use super::trouble::Trouble;
use crate::store::{Committed, Guard};

/// Whose guard holds. A lease is given back at once: until the transaction ends, its row stays locked, and
/// whoever wants to take it waits.
pub(super) async fn guarded(
    transaction: &mut Transaction,
    tasks: &[Task<'_>],
    now: Timestamp,
) -> Result<HashSet<usize>, Trouble> {
    let mut leases: Vec<(&str, &str, Uuid)> = Vec::new();
    let mut leased: Vec<usize> = Vec::new();
    let mut kept: Vec<(&str, &str, Uuid)> = Vec::new();
    let mut keeping: Vec<usize> = Vec::new();
    let mut remembered: Vec<(&str, &str, usize, i64)> = Vec::new();
    for (n, Task { commit, shape }) in tasks.iter().enumerate() {
        let id = commit.connection.id.as_str();
        match commit.guard {
            Guard::Lease(fence) => {
                leases.push((&shape.source, id, fence));
                leased.push(n);
            }
            Guard::Kept(fence) => {
                kept.push((&shape.source, id, fence));
                keeping.push(n);
            }
            Guard::Memory(version) => remembered.push((&shape.source, id, n, version)),
        }
    }
    let mut guarded = HashSet::new();
    if !leases.is_empty() {
        guarded.extend(give_back(transaction, &leases).await?.into_iter().filter_map(|place| leased.get(place)));
    }
    if !kept.is_empty() {
        guarded.extend(still_held(transaction, &kept).await?.into_iter().filter_map(|place| keeping.get(place)));
    }
    if !remembered.is_empty() {
        remembered.sort_unstable();
        guarded.extend(still_remembered(transaction, &remembered, now).await?);
    }
    Ok(guarded)
}

/// Which of `leases` are still there, by their places. They stay, locked until the transaction ends.
async fn still_held(transaction: &mut Transaction, leases: &[(&str, &str, Uuid)]) -> Result<Vec<usize>, Trouble> {
    let mut places: Vec<usize> = (0..leases.len()).collect();
    places.sort_unstable_by_key(|&n| leases[n]);
    let rows = query(
        "SELECT u.n FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]::uuid[]) AS u (n, source, id, fence),
                LATERAL (SELECT 1 FROM perene.lease l
                         WHERE l.source = u.source AND l.id = u.id AND l.fence = u.fence FOR UPDATE) held",
    )
    .bind(places.iter().map(|&n| i64::try_from(n).unwrap_or(i64::MAX)).collect::<Vec<_>>())
    .bind(places.iter().map(|&n| leases[n].0).collect::<Vec<_>>())
    .bind(places.iter().map(|&n| leases[n].1).collect::<Vec<_>>())
    .bind(places.iter().map(|&n| leases[n].2.to_string()).collect::<Vec<_>>())
    .fetch_all(&mut **transaction)
    .await?;
    Ok(numbers(&rows)?)
}

/// Which of `remembered` (source, key, place, version; sorted) are in that version and leased by nobody.
///
/// Each is leased for the time of this transaction: a claim that is under way has taken its lease before,
/// or waits for this transaction's end and then reads what it has written.
async fn still_remembered(
    transaction: &mut Transaction,
    remembered: &[(&str, &str, usize, i64)],
    now: Timestamp,
) -> Result<Vec<usize>, Trouble> {
    let fence = Uuid::new_v4();
    let sources: Vec<&str> = remembered.iter().map(|row| row.0).collect();
    let ids: Vec<&str> = remembered.iter().map(|row| row.1).collect();
    query(
        "INSERT INTO perene.lease AS l (source, id, holder, fence, until)
         SELECT DISTINCT u.source, u.id, 'sweep', $3::text::uuid, $4::timestamptz
         FROM unnest($1::text[], $2::text[]) AS u (source, id) ORDER BY u.source, u.id
         ON CONFLICT (source, id) DO UPDATE SET holder = excluded.holder, fence = excluded.fence, until = excluded.until
         WHERE l.until <= $4",
    )
    .bind(&sources)
    .bind(&ids)
    .bind(fence.to_string())
    .bind(PgTime::from(now))
    .execute(&mut **transaction)
    .await?;
    let rows = query(
        "SELECT u.n FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS u (source, id, n, version)
         JOIN perene.connection c ON c.source = u.source AND c.id = u.id AND c.version = u.version
         JOIN perene.lease l ON l.source = u.source AND l.id = u.id AND l.fence = $5::text::uuid
         ORDER BY c.source, c.id FOR UPDATE OF c",
    )
    .bind(&sources)
    .bind(&ids)
    .bind(remembered.iter().map(|row| i64::try_from(row.2).unwrap_or(i64::MAX)).collect::<Vec<_>>())
    .bind(remembered.iter().map(|row| row.3).collect::<Vec<_>>())
    .bind(fence.to_string())
    .fetch_all(&mut **transaction)
    .await?;
    query("DELETE FROM perene.lease WHERE fence = $1::text::uuid AND (source, id) IN (SELECT * FROM unnest($2::text[], $3::text[]))")
        .bind(fence.to_string())
        .bind(&sources)
        .bind(&ids)
        .execute(&mut **transaction)
        .await?;
    Ok(numbers(&rows)?)
}

/// What became of commits whose lease is gone: it may have been this very commit that gave it back.
pub(super) async fn earlier(
    transaction: &mut Transaction,
    tasks: &[Task<'_>],
    lost: &[usize],
) -> Result<Vec<Committed>, Trouble> {
    let leased: Vec<(usize, Uuid)> = lost.iter().filter_map(|&n| Some((n, memory::mark(tasks[n].commit)?))).collect();
    let mut results = vec![Committed::GuardLost; lost.len()];
    if leased.is_empty() {
        return Ok(results);
    }
    let rows = query(
        "SELECT DISTINCT ON (u.n) u.n, h.event, h.outcome, h.text
         FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]::uuid[]) AS u (source, id, n, mark)
         JOIN perene.history h ON h.source = u.source AND h.id = u.id AND h.mark = u.mark
         ORDER BY u.n, h.seq",
    )
    .bind(leased.iter().map(|&(n, _)| tasks[n].shape.source.as_str()).collect::<Vec<_>>())
    .bind(leased.iter().map(|&(n, _)| tasks[n].commit.connection.id.as_str()).collect::<Vec<_>>())
    .bind(leased.iter().map(|&(n, _)| i64::try_from(n).unwrap_or(i64::MAX)).collect::<Vec<_>>())
    .bind(leased.iter().map(|&(_, mark)| mark.to_string()).collect::<Vec<_>>())
    .fetch_all(&mut **transaction)
    .await?;
    for row in rows {
        let n = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
        let Some(place) = lost.iter().position(|&lost| lost == n) else { continue };
        let outcome: Option<String> = row.try_get(2)?;
        let is_superseded = outcome.as_deref() == Some("superseded");
        results[place] = if row.try_get::<&str, _>(1)? == memory::REFUSED {
            Committed::Refused(row.try_get(3)?)
        } else if is_superseded && tasks[n].commit.decision.outcome.name() != "superseded" {
            Committed::Superseded
        } else {
            Committed::Done
        };
    }
    Ok(results)
}

fn numbers(rows: &[sqlx::postgres::PgRow]) -> Result<Vec<usize>, sqlx::Error> {
    rows.iter().map(|row| Ok(usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX))).collect()
}
