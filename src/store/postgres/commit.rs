//! Commits: some hundred decisions in one transaction of about ten statements.
//!
//! Every transaction takes its locks in the same order: users (advisory), leases by key, the app's rows,
//! what is remembered, the users' rows. When the database refuses the data of some row, the batch is halved
//! until that row stands alone, so that the others are written all the same.
//!
//! A commit may be carried out again, because its answer was lost: the history bears the mark of the commit
//! that wrote it, so the second time finds the first.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use perene_policy::decide::superseded;
use perene_policy::redact;

use super::PostgresStore;
use super::app_row::{Swap, Swapped};
use super::connect::Transaction;
use super::memory::Line;
use super::shape::Shape;
use super::trouble::Trouble;
use super::{app_row, flag, guard, memory};
use crate::store::{Commit, Committed};

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

/// So many rows that somebody else keeps locked are left out one by one; with more, it is the table, and
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
        let guarded = guard::guarded(&mut transaction, &tasks, now).await?;
        let mut results: Vec<Option<Committed>> = vec![None; tasks.len()];
        let lost: Vec<usize> = (0..tasks.len()).filter(|n| !guarded.contains(n)).collect();
        for (n, earlier) in lost.iter().zip(guard::earlier(&mut transaction, &tasks, &lost).await?) {
            results[*n] = Some(earlier);
        }
        let todo: Vec<usize> = (0..tasks.len()).filter(|n| guarded.contains(n)).collect();
        let batch = Batch { tasks: &tasks, raised_for: &raised_for, now };
        carry_out_by_parts(&mut transaction, &batch, todo, &mut results).await?;
        transaction.commit().await?;
        Ok(results.into_iter().map(|result| result.unwrap_or(Committed::GuardLost)).collect())
    }
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
            results[alone] = Some(if trouble.is_lock_timeout() {
                Committed::Locked
            } else {
                let text = refusal(&tasks[alone], &trouble);
                memory::write_history(transaction, &[Line::refused(&tasks[alone], &text)], now).await?;
                Committed::Refused(text)
            });
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
