//! Commits: what was decided about a page, in one transaction.
//!
//! The app's row costs one statement each; leases, guards and history go in bulk. A row that the database
//! refuses undoes its own statement alone. Only a trigger that rolls everything back costs a second
//! attempt at the whole page, without that row.

use std::collections::HashMap;

use jiff::Timestamp;
use perene_policy::{Connection, Decision, Secret, redact};
use sqlx::{Row, Sqlite, Transaction};

use super::connect::{Database, refusal};
use super::shape::Shapes;
use super::sql::{Mapped, micros};
use super::{app_row, flag, history, outbox, remembered};
use crate::store::{Commit, Committed, Guard, StoreError};

/// A key in Perene's own tables.
type Key<'a> = (&'a str, &'a str);

/// Why a page could not be committed.
enum Trouble {
    /// The database itself is in trouble.
    Database(sqlx::Error),
    /// The row of this commit rolled back the whole transaction, with this text.
    RolledBack(usize, String),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

pub(super) async fn commit(
    database: &Database,
    sources: &[Mapped],
    commits: &[Commit],
    now: Timestamp,
) -> Result<Vec<Committed>, StoreError> {
    if commits.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(commit) = commits.iter().find(|commit| commit.source >= sources.len()) {
        return Err(StoreError::Mapping(format!("there is no source number {} in the configuration", commit.source)));
    }
    let mut page = Page { sources, commits, now, refused: HashMap::new() };
    loop {
        let mut transaction = database.write().await?;
        match page.attempt(&mut transaction).await {
            Ok(committed) => {
                transaction.commit().await.map_err(|error| database.failed(error))?;
                return Ok(committed);
            }
            Err(Trouble::Database(error)) => return Err(database.failed(error)),
            Err(Trouble::RolledBack(place, text)) => {
                page.refused.insert(place, text);
            }
        }
    }
}

struct Page<'a> {
    sources: &'a [Mapped],
    commits: &'a [Commit],
    now: Timestamp,
    /// Commits that have rolled back an earlier attempt, and with what words.
    refused: HashMap<usize, String>,
}

/// What Perene's own tables hold about the rows of a page.
#[derive(Default)]
pub(super) struct Known {
    fence: Option<String>,
    lease_until: Option<i64>,
    version: Option<i64>,
    /// The user at whom the flag was raised: table and key.
    pub(super) user: Option<(String, String)>,
}

impl Page<'_> {
    async fn attempt(&self, transaction: &mut Transaction<'static, Sqlite>) -> Result<Vec<Committed>, Trouble> {
        let mut known = self.known(transaction).await?;
        let version = next_version(transaction).await?;
        let mut shapes: HashMap<usize, Shapes> = HashMap::new();
        let mut lines = Vec::new();
        let mut given_back: Vec<Key<'_>> = Vec::new();
        let mut results = Vec::with_capacity(self.commits.len());
        for (place, commit) in self.commits.iter().enumerate() {
            let mapped = &self.sources[commit.source];
            let key = (mapped.name.as_str(), commit.connection.id.as_str());
            let about = known.entry(key).or_default();
            if !holds(commit.guard, about, self.now) {
                results.push(Committed::GuardLost);
                continue;
            }
            if !matches!(commit.guard, Guard::Kept(_)) && about.fence.take().is_some() {
                given_back.push(key);
            }
            let result = if let Some(text) = self.refused.get(&place) {
                Committed::Refused(text.clone())
            } else {
                let shapes = match shapes.entry(commit.source) {
                    std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::hash_map::Entry::Vacant(entry) => {
                        entry.insert(Shapes::of(transaction, mapped).await?)
                    }
                };
                self.carry_out(transaction, place, mapped, shapes, about, version).await?
            };
            match &result {
                Committed::Done => {
                    about.version = commit.decision.memory.as_ref().map(|_| version);
                    lines.extend(commit.decision.events.iter().map(|event| history::line(key, self.now, event)));
                }
                Committed::Superseded => {
                    let superseded = perene_policy::decide::superseded(&commit.connection);
                    lines.extend(superseded.events.iter().map(|event| history::line(key, self.now, event)));
                }
                Committed::Refused(text) => lines.push(history::refused(key, self.now, text)),
                Committed::GuardLost | Committed::Locked => {}
            }
            results.push(result);
        }
        history::insert(transaction, &lines).await?;
        give_back(transaction, &given_back).await?;
        Ok(results)
    }

    /// Reads the leases and versions of all rows of the page at once.
    async fn known(&self, transaction: &mut Transaction<'_, Sqlite>) -> Result<HashMap<Key<'_>, Known>, sqlx::Error> {
        let keys: Vec<Key<'_>> = self
            .commits
            .iter()
            .map(|commit| (self.sources[commit.source].name.as_str(), commit.connection.id.as_str()))
            .collect();
        let rows = sqlx::query(
            "SELECT j.key, l.fence, l.until, c.version, c.user_table, c.user_id FROM json_each(?) AS j
             LEFT JOIN perene_lease AS l ON l.source = j.value ->> 0 AND l.id = j.value ->> 1
             LEFT JOIN perene_connection AS c ON c.source = j.value ->> 0 AND c.id = j.value ->> 1",
        )
        .bind(super::claim::json(&keys))
        .fetch_all(&mut **transaction)
        .await?;
        let mut known = HashMap::with_capacity(keys.len());
        for row in rows {
            let place: i64 = row.try_get(0)?;
            let Some(key) = usize::try_from(place).ok().and_then(|place| keys.get(place)) else { continue };
            let user_table: Option<String> = row.try_get(4)?;
            let user_id: Option<String> = row.try_get(5)?;
            let about = Known {
                fence: row.try_get(1)?,
                lease_until: row.try_get(2)?,
                version: row.try_get(3)?,
                user: user_table.zip(user_id),
            };
            known.insert(*key, about);
        }
        Ok(known)
    }

    async fn carry_out(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
        place: usize,
        mapped: &Mapped,
        shapes: &Shapes,
        known: &Known,
        version: i64,
    ) -> Result<Committed, Trouble> {
        let commit = &self.commits[place];
        let Commit { connection, decision, .. } = commit;
        // One statement undoes itself; two need a mark to go back to.
        let is_marked = decision.flag.is_some();
        if is_marked {
            sqlx::query("SAVEPOINT perene_row").execute(&mut **transaction).await?;
        }
        let written = match app_row::swap(transaction, mapped, shapes, commit).await {
            Ok(true) => flag::apply(transaction, mapped, shapes, connection, decision.flag, known).await.map(|()| true),
            other => other,
        };
        let result = match written {
            Ok(true) => Committed::Done,
            Ok(false) => Committed::Superseded,
            Err(error) => {
                let Some(text) = refusal(&error) else { return Err(error.into()) };
                let text = redacted(&text, connection, decision);
                // Where a BEGIN succeeds, a trigger has ended the transaction.
                if sqlx::query("BEGIN").execute(&mut **transaction).await.is_ok() {
                    return Err(Trouble::RolledBack(place, text));
                }
                Committed::Refused(text)
            }
        };
        if is_marked {
            if result != Committed::Done {
                sqlx::query("ROLLBACK TO perene_row").execute(&mut **transaction).await?;
            }
            sqlx::query("RELEASE perene_row").execute(&mut **transaction).await?;
        }
        if result == Committed::Done {
            remembered::keep(transaction, mapped, connection, decision.memory.as_ref(), known.version, version).await?;
            for message in &commit.outbox {
                outbox::insert(transaction, self.sources, message).await?;
            }
        }
        Ok(result)
    }
}

/// Whether nobody else has decided meanwhile.
fn holds(guard: Guard, known: &Known, now: Timestamp) -> bool {
    match guard {
        Guard::Lease(fence) | Guard::Kept(fence) => known.fence.as_deref() == Some(fence.to_string().as_str()),
        // A lapsed lease is gone with this commit, so that its holder has lost it when it wakes up.
        Guard::Memory(version) => {
            known.version == Some(version)
                && (known.fence.is_none() || known.lease_until.is_none_or(|until| until <= micros(now)))
        }
    }
}

/// A version that no memory has had before, so that one made anew is never taken for the old one.
async fn next_version(transaction: &mut Transaction<'_, Sqlite>) -> Result<i64, sqlx::Error> {
    sqlx::query("UPDATE perene_meta SET value = value + 1 WHERE name = 'version' RETURNING value")
        .fetch_one(&mut **transaction)
        .await?
        .try_get(0)
}

async fn give_back(transaction: &mut Transaction<'_, Sqlite>, keys: &[Key<'_>]) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query("DELETE FROM perene_lease WHERE (source, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))")
        .bind(super::claim::json(keys))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// The database's words without the tokens that they may repeat.
fn redacted(text: &str, connection: &Connection, decision: &Decision) -> String {
    let write = decision.write.as_ref();
    let secrets: Vec<&str> = [
        Some(&connection.token),
        connection.refresh_token.as_ref(),
        write.and_then(|write| write.token.as_ref()),
        write.and_then(|write| write.refresh_token.as_ref()),
    ]
    .into_iter()
    .flatten()
    .map(Secret::expose)
    .collect();
    redact::for_row(&format!("the database refused the row: {text}"), &secrets)
}
