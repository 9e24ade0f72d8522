//! Commits: some hundred decisions in one transaction of about ten statements.
//!
//! Every transaction takes its locks in the same order: users (advisory), leases by key, the app's rows,
//! what is remembered, the users' rows. When the database refuses the data of some row, the batch is halved
//! until that row stands alone, so that the others are written all the same.
//!
//! A commit may be carried out again, because its answer was lost: the history bears the mark of the commit
//! that wrote it, so the second time finds the first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use perene_policy::decide::superseded;
use perene_policy::redact;
use sqlx::Row;
use uuid::Uuid;

use super::PostgresStore;
use super::app_row::{Swap, Swapped};
use super::claim::give_back;
use super::connect::{Transaction, query};
use super::memory::Line;
use super::shape::Shape;
use super::time::PgTime;
use super::trouble::Trouble;
use super::{app_row, flag, memory};
use crate::store::{Commit, Committed, Guard};

/// A commit with what its source's statements need.
pub(super) struct Task<'a> {
    pub(super) commit: &'a Commit,
    pub(super) shape: Arc<Shape>,
}

/// A batch whose guards are held.
struct Batch<'a> {
    tasks: &'a [Task<'a>],
    raised_for: &'a flag::RaisedFor,
    now: Timestamp,
}

/// So many rows that somebody else keeps locked are refused one by one; with more, it is the table, and
/// the whole batch is tried again later.
const LOCKED_ROWS_MAX: usize = 4;

impl PostgresStore {
    pub(super) async fn commit_once(&self, commits: &[Commit], now: Timestamp) -> Result<Vec<Committed>, Trouble> {
        if commits.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.connections.begin().await?;
        let mut tasks = Vec::with_capacity(commits.len());
        for commit in commits {
            tasks.push(Task { commit, shape: self.shape(&mut transaction, commit.source).await? });
        }
        let raised_for = flag::lock_users(&mut transaction, &tasks).await?;
        let guarded = guarded(&mut transaction, &tasks, now).await?;
        let mut results: Vec<Option<Committed>> = vec![None; tasks.len()];
        let lost: Vec<usize> = (0..tasks.len()).filter(|n| !guarded.contains(n)).collect();
        for (n, earlier) in lost.iter().zip(earlier(&mut transaction, &tasks, &lost).await?) {
            results[*n] = Some(earlier);
        }
        let todo: Vec<usize> = (0..tasks.len()).filter(|n| guarded.contains(n)).collect();
        let batch = Batch { tasks: &tasks, raised_for: &raised_for, now };
        carry_out_by_parts(&mut transaction, &batch, todo, &mut results).await?;
        transaction.commit().await?;
        Ok(results.into_iter().map(|result| result.unwrap_or(Committed::GuardLost)).collect())
    }
}

/// Whose guard holds. A lease is given back at once: until the transaction ends, its row stays locked, and
/// whoever wants to take it waits.
async fn guarded(transaction: &mut Transaction, tasks: &[Task<'_>], now: Timestamp) -> Result<HashSet<usize>, Trouble> {
    let mut leases: Vec<(&str, &str, Uuid)> = Vec::new();
    let mut leased: Vec<usize> = Vec::new();
    let mut remembered: Vec<(&str, &str, usize, i64)> = Vec::new();
    for (n, Task { commit, shape }) in tasks.iter().enumerate() {
        let id = commit.connection.id.as_str();
        match commit.guard {
            Guard::Lease(fence) => {
                leases.push((&shape.source, id, fence));
                leased.push(n);
            }
            Guard::Memory(version) => remembered.push((&shape.source, id, n, version)),
        }
    }
    let mut guarded = HashSet::new();
    if !leases.is_empty() {
        guarded.extend(give_back(transaction, &leases).await?.into_iter().filter_map(|place| leased.get(place)));
    }
    if !remembered.is_empty() {
        remembered.sort_unstable();
        guarded.extend(still_remembered(transaction, &remembered, now).await?);
    }
    Ok(guarded)
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
async fn earlier(transaction: &mut Transaction, tasks: &[Task<'_>], lost: &[usize]) -> Result<Vec<Committed>, Trouble> {
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

/// Carries out the tasks `todo`; when the database refuses a row's data, halves them until it stands alone.
async fn carry_out_by_parts(
    transaction: &mut Transaction,
    batch: &Batch<'_>,
    todo: Vec<usize>,
    results: &mut [Option<Committed>],
) -> Result<(), Trouble> {
    let Batch { tasks, now, .. } = *batch;
    let mut parts = vec![todo];
    let mut locked = 0;
    while let Some(part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        transaction.run("SAVEPOINT part").await?;
        let trouble = match carry_out(transaction, batch, &part).await {
            Ok(done) => {
                transaction.run("RELEASE SAVEPOINT part").await?;
                for (n, committed) in done {
                    results[n] = Some(committed);
                }
                continue;
            }
            Err(trouble) if trouble.is_about_data() || trouble.is_lock_timeout() => trouble,
            Err(trouble) => return Err(trouble),
        };
        transaction.run("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part").await?;
        if trouble.is_lock_timeout() {
            // The first try has waited long enough for all of them.
            transaction.run("SET LOCAL lock_timeout = '300ms'").await?;
        }
        if let [alone] = part[..] {
            locked += usize::from(trouble.is_lock_timeout());
            if locked > LOCKED_ROWS_MAX {
                return Err(trouble);
            }
            let text = refusal(&tasks[alone], &trouble);
            memory::write_history(transaction, &[Line::refused(&tasks[alone], &text)], now).await?;
            results[alone] = Some(Committed::Refused(text));
        } else {
            let (first, second) = part.split_at(part.len() / 2);
            parts.push(second.to_vec());
            parts.push(first.to_vec());
        }
    }
    Ok(())
}

/// Why a row was refused, without what it holds.
fn refusal(task: &Task<'_>, trouble: &Trouble) -> String {
    let Commit { connection, decision, .. } = task.commit;
    let write = decision.write.as_ref();
    let secrets: Vec<&str> = [
        Some(&connection.token),
        connection.refresh_token.as_ref(),
        write.and_then(|write| write.token.as_ref()),
        write.and_then(|write| write.refresh_token.as_ref()),
    ]
    .into_iter()
    .flatten()
    .map(perene_policy::Secret::expose)
    .collect();
    redact::for_row(&trouble.data_text(), &secrets)
}

/// The statements of one part.
async fn carry_out(
    transaction: &mut Transaction,
    batch: &Batch<'_>,
    part: &[usize],
) -> Result<Vec<(usize, Committed)>, Trouble> {
    let Batch { tasks, raised_for, now } = *batch;
    let mut groups: HashMap<(usize, app_row::Written), Vec<Swap<'_>>> = HashMap::new();
    let mut results: HashMap<usize, Swapped> = HashMap::new();
    for &n in part {
        let commit = tasks[n].commit;
        let written = app_row::Written::of(commit.decision.write.as_ref(), &tasks[n].shape);
        groups.entry((commit.source, written)).or_default().push(Swap { n, commit });
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_unstable_by_key(|(key, _)| *key);
    for ((_, written), swaps) in groups {
        let shape = &tasks[swaps[0].n].shape;
        results.extend(app_row::swap(transaction, shape, written, &swaps).await?);
    }
    let mut lines = Vec::new();
    let mut done: Vec<&Task<'_>> = Vec::new();
    let mut committed = Vec::with_capacity(part.len());
    for &n in part {
        let task = &tasks[n];
        committed.push((
            n,
            match results.get(&n).copied().unwrap_or(Swapped::Changed) {
                Swapped::Done => {
                    done.push(task);
                    lines.extend(task.commit.decision.events.iter().map(|event| Line::of(task, event)));
                    Committed::Done
                }
                Swapped::Changed => {
                    let decision = superseded(&task.commit.connection);
                    lines.extend(decision.events.iter().map(|event| Line::of(task, event)));
                    Committed::Superseded
                }
                Swapped::Swallowed => {
                    let text =
                        "the row was not written, though nothing else changed it: a trigger, a rule or row-level \
                                security of the table holds it back"
                            .to_owned();
                    lines.push(Line::refused(task, &text));
                    Committed::Refused(text)
                }
            },
        ));
    }
    memory::write(transaction, &done).await?;
    memory::write_history(transaction, &lines, now).await?;
    memory::write_outbox(transaction, &done).await?;
    flag::write(transaction, &done, raised_for).await?;
    Ok(committed)
}

fn numbers(rows: &[sqlx::postgres::PgRow]) -> Result<Vec<usize>, sqlx::Error> {
    rows.iter().map(|row| Ok(usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX))).collect()
}
