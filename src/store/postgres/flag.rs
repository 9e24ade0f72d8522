//! The users' flag: the OR over all of a user's connections.
//!
//! A raise and a lower for one user, committed at once by two replicas, must not pass each other unseen.
//! So who is going to write a flag first takes a lock on the user (advisory: also where the row does not
//! exist), and what it then reads of the user's other connections stays true to the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest, Sha256};
use sqlx::Row;

use super::commit::Task;
use super::connect::{Transaction, query};
use super::shape::UserShape;
use super::trouble::Trouble;

/// For whom flags were raised, by source and key of the connection: the app may have given a connection to
/// another user since, or its row may be gone.
pub(super) type RaisedFor = HashMap<(String, String), String>;

/// Locks every user whose flag may be written, in one order for all; returns for whom those flags that
/// are to be lowered were raised.
pub(super) async fn lock_users(transaction: &mut Transaction, tasks: &[Task<'_>]) -> Result<RaisedFor, Trouble> {
    let mut locks: BTreeSet<i64> = BTreeSet::new();
    let mut lowered: Vec<(&str, &str, &str)> = Vec::new();
    for Task { commit, shape } in tasks {
        let (Some(flag), Some(user)) = (commit.decision.flag, &shape.user) else { continue };
        locks.extend(commit.connection.user_id.as_deref().map(|id| lock(&user.name, id)));
        if !flag {
            lowered.push((&shape.source, &commit.connection.id, &user.name));
        }
    }
    let mut raised_for = RaisedFor::new();
    if !lowered.is_empty() {
        let rows = query(
            "SELECT c.source, c.id, c.user_id, c.user_table
             FROM unnest($1::text[], $2::text[], $3::text[]) AS u (source, id, user_table)
             JOIN perene.connection c ON c.source = u.source AND c.id = u.id AND c.user_table = u.user_table
             WHERE c.user_id IS NOT NULL AND c.flagged",
        )
        .bind(lowered.iter().map(|row| row.0).collect::<Vec<_>>())
        .bind(lowered.iter().map(|row| row.1).collect::<Vec<_>>())
        .bind(lowered.iter().map(|row| row.2).collect::<Vec<_>>())
        .fetch_all(&mut **transaction)
        .await?;
        for row in rows {
            let user_id: String = row.try_get(2)?;
            locks.insert(lock(row.try_get(3)?, &user_id));
            raised_for.insert((row.try_get(0)?, row.try_get(1)?), user_id);
        }
    }
    if !locks.is_empty() {
        query("SELECT pg_advisory_xact_lock(u.lock) FROM unnest($1::bigint[]) AS u (lock)")
            .bind(locks.into_iter().collect::<Vec<_>>())
            .fetch_all(&mut **transaction)
            .await?;
    }
    Ok(raised_for)
}

/// The number that stands for a user.
fn lock(table: &str, user_id: &str) -> i64 {
    let digest = Sha256::new().chain_update(table).chain_update([0]).chain_update(user_id).finalize();
    i64::from_be_bytes(std::array::from_fn(|n| digest[n]))
}

/// Raises and lowers flags. A row is written only if its flag changes; what is remembered must have been
/// written before.
pub(super) async fn write(
    transaction: &mut Transaction,
    done: &[&Task<'_>],
    raised_for: &RaisedFor,
) -> Result<(), Trouble> {
    // Per users' table: who is raised and who is lowered, each in order of the key.
    let mut changes: BTreeMap<&str, (&UserShape, BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for Task { commit, shape } in done {
        let (Some(flag), Some(user)) = (commit.decision.flag, &shape.user) else { continue };
        let (_, raised, lowered) =
            changes.entry(&user.name).or_insert_with(|| (user, BTreeSet::new(), BTreeSet::new()));
        let changed = if flag { raised } else { lowered };
        changed.extend(commit.connection.user_id.as_deref().and_then(|id| user.id.canonical(id)));
        if !flag {
            let before = raised_for.get(&(shape.source.clone(), commit.connection.id.clone()));
            changed.extend(before.and_then(|id| user.id.canonical(id)));
        }
    }
    for (user, raised, lowered) in changes.into_values() {
        let Some(flag) = &user.flag else { continue };
        let UserShape { table, id: key, name, .. } = user;
        let is_user = format!("t.{} = {}", key.column, key.cast("u.id"));
        if !raised.is_empty() {
            query(format!(
                "UPDATE {table} AS t SET {flag} = true FROM unnest($1::text[]) AS u (id)
                 WHERE {is_user} AND t.{flag} IS DISTINCT FROM true"
            ))
            .bind(raised.into_iter().collect::<Vec<_>>())
            .execute(&mut **transaction)
            .await?;
        }
        if !lowered.is_empty() {
            query(format!(
                "UPDATE {table} AS t SET {flag} = false FROM unnest($1::text[]) AS u (id)
                 WHERE {is_user} AND t.{flag} IS DISTINCT FROM false AND NOT EXISTS (
                     SELECT 1 FROM perene.connection c
                     WHERE c.user_table = $2 AND c.user_id = {} AND c.flagged)",
                key.text()
            ))
            .bind(lowered.into_iter().collect::<Vec<_>>())
            .bind(name)
            .execute(&mut **transaction)
            .await?;
        }
    }
    Ok(())
}
