//! What a commit writes beside the app's row: what is remembered, the history, the outbox.

use jiff::Timestamp;
use perene_policy::{Event, Memory, Outcome, State};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::commit::Task;
use super::connect::{Transaction, query};
use super::time::PgTime;
use super::trouble::Trouble;
use crate::store::{Commit, Guard, Outgoing, StoreError};

/// The event of a row that the database refused to write.
pub(super) const REFUSED: &str = "refused";

/// One line for the history.
pub(super) struct Line<'a> {
    task: &'a Task<'a>,
    event: &'static str,
    outcome: Option<Outcome>,
    text: String,
}

impl<'a> Line<'a> {
    /// An event of a decision about the task's connection.
    pub(super) fn of(task: &'a Task<'a>, event: &Event) -> Self {
        Self { task, event: event.kind.name(), outcome: event.outcome, text: event.text.clone() }
    }

    /// The database refused to write the task's row.
    pub(super) fn refused(task: &'a Task<'a>, text: &str) -> Self {
        Self { task, event: REFUSED, outcome: None, text: text.to_owned() }
    }
}

/// What tells a commit that is carried out once more from any other under the same lease.
pub(super) fn mark(commit: &Commit) -> Option<Uuid> {
    let (Guard::Lease(fence) | Guard::Kept(fence)) = commit.guard else { return None };
    let Commit { decision, .. } = commit;
    let mut digest = Sha256::new().chain_update(fence).chain_update(format!("{decision:?}"));
    // Secrets print nothing of themselves.
    for token in decision.write.iter().flat_map(|write| [&write.token, &write.refresh_token]).flatten() {
        digest.update(token.fingerprint().as_str());
    }
    let digest = digest.finalize();
    Some(Uuid::from_bytes(std::array::from_fn(|n| digest[n])))
}

/// Writes lines into the history, in their order.
pub(super) async fn write_history(
    transaction: &mut Transaction,
    lines: &[Line<'_>],
    now: Timestamp,
) -> Result<(), Trouble> {
    if lines.is_empty() {
        return Ok(());
    }
    query(
        "INSERT INTO perene.history (source, id, at, event, outcome, text, mark)
         SELECT u.source, u.id, $1, u.event, u.outcome, u.text, u.mark
         FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]::uuid[])
         WITH ORDINALITY AS u (source, id, event, outcome, text, mark, n) ORDER BY u.n",
    )
    .bind(PgTime::from(now))
    .bind(lines.iter().map(|line| line.task.shape.source.as_str()).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.task.commit.connection.id.as_str()).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.event).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.outcome.map(Outcome::name)).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| mark(line.task.commit).map(|mark| mark.to_string())).collect::<Vec<_>>())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Remembers and forgets what the decisions say.
pub(super) async fn write(transaction: &mut Transaction, done: &[&Task<'_>]) -> Result<(), Trouble> {
    let forgotten: Vec<&Task<'_>> = done.iter().copied().filter(|task| task.commit.decision.memory.is_none()).collect();
    if !forgotten.is_empty() {
        query(
            "DELETE FROM perene.connection c USING unnest($1::text[], $2::text[]) AS u (source, id)
             WHERE c.source = u.source AND c.id = u.id",
        )
        .bind(forgotten.iter().map(|task| task.shape.source.as_str()).collect::<Vec<_>>())
        .bind(forgotten.iter().map(|task| task.commit.connection.id.as_str()).collect::<Vec<_>>())
        .execute(&mut **transaction)
        .await?;
    }
    let mut remembered: Vec<(&Task<'_>, &Memory, String)> = Vec::new();
    for task in done {
        let Some(memory) = &task.commit.decision.memory else { continue };
        let json = serde_json::to_string(memory).map_err(|error| StoreError::Refused {
            text: format!("what is remembered cannot be written as JSON: {error}"),
            may_pass: false,
        })?;
        remembered.push((task, memory, json));
    }
    if remembered.is_empty() {
        return Ok(());
    }
    remembered.sort_unstable_by_key(|(task, ..)| (&task.shape.source, &task.commit.connection.id));
    let flagged_for = |task: &Task<'_>| task.shape.user.as_ref().map(|user| user.name.clone());
    query(
        "INSERT INTO perene.connection (source, id, generation, user_table, user_id, flagged, state, outcome,
                                        incident_id, expires_at, next_try_at, memory)
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::text[],
                              $8::text[], $9::text[], $10::timestamptz[], $11::timestamptz[], $12::text[])
         ON CONFLICT (source, id) DO UPDATE SET
             version = excluded.version, generation = excluded.generation, user_table = excluded.user_table,
             user_id = excluded.user_id, flagged = excluded.flagged, state = excluded.state, outcome = excluded.outcome,
             incident_id = excluded.incident_id, expires_at = excluded.expires_at,
             next_try_at = excluded.next_try_at, memory = excluded.memory",
    )
    .bind(remembered.iter().map(|(task, ..)| task.shape.source.as_str()).collect::<Vec<_>>())
    .bind(remembered.iter().map(|(task, ..)| task.commit.connection.id.as_str()).collect::<Vec<_>>())
    .bind(remembered.iter().map(|(_, memory, _)| memory.generation.as_str()).collect::<Vec<_>>())
    .bind(remembered.iter().map(|(task, ..)| flagged_for(task)).collect::<Vec<_>>())
    .bind(remembered.iter().map(|(task, ..)| task.commit.connection.user_id.as_deref()).collect::<Vec<_>>())
    .bind(remembered.iter().map(|(_, memory, _)| memory.is_flagged()).collect::<Vec<_>>())
    .bind(remembered.iter().map(|(_, memory, _)| memory.state.name()).collect::<Vec<_>>())
    .bind(remembered.iter().map(|(_, memory, _)| outcome(&memory.state).map(Outcome::name)).collect::<Vec<_>>())
    .bind(
        remembered
            .iter()
            .map(|(_, memory, _)| memory.incident.as_ref().map(|incident| incident.id.as_str()))
            .collect::<Vec<_>>(),
    )
    .bind(remembered.iter().map(|(_, memory, _)| memory.expires_at.map(PgTime::from)).collect::<Vec<_>>())
    .bind(remembered.iter().map(|(_, memory, _)| memory.next_try_at.map(PgTime::from)).collect::<Vec<_>>())
    .bind(remembered.iter().map(|(.., json)| json.as_str()).collect::<Vec<_>>())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// The outcome that a state keeps.
const fn outcome(state: &State) -> Option<Outcome> {
    match state {
        State::Failing { outcome, .. } | State::Waiting { outcome, .. } => Some(*outcome),
        _ => None,
    }
}

/// Puts the messages into the outbox; one that is there already is left as it is.
pub(super) async fn write_outbox(transaction: &mut Transaction, done: &[&Task<'_>]) -> Result<(), Trouble> {
    let messages: Vec<(&str, &Outgoing)> = done
        .iter()
        .flat_map(|task| task.commit.outbox.iter().map(|message| (task.shape.source.as_str(), message)))
        .collect();
    if messages.is_empty() {
        return Ok(());
    }
    query(
        "INSERT INTO perene.outbox (id, incident_id, source, connection_id, user_id, channel, kind, payload,
                                    created_at, next_at)
         SELECT u.id, u.incident_id, u.source, u.connection_id, u.user_id, u.channel, u.kind, u.payload,
                u.created_at, u.created_at
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::timestamptz[])
         WITH ORDINALITY
         AS u (id, incident_id, source, connection_id, user_id, channel, kind, payload, created_at, n)
         ORDER BY u.n
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(messages.iter().map(|(_, message)| message.id.as_str()).collect::<Vec<_>>())
    .bind(messages.iter().map(|(_, message)| message.incident_id.as_str()).collect::<Vec<_>>())
    .bind(messages.iter().map(|(source, _)| *source).collect::<Vec<_>>())
    .bind(messages.iter().map(|(_, message)| message.connection_id.as_str()).collect::<Vec<_>>())
    .bind(messages.iter().map(|(_, message)| message.user_id.as_deref()).collect::<Vec<_>>())
    .bind(messages.iter().map(|(_, message)| message.channel.as_str()).collect::<Vec<_>>())
    .bind(messages.iter().map(|(_, message)| message.kind.as_str()).collect::<Vec<_>>())
    .bind(messages.iter().map(|(_, message)| message.payload.as_str()).collect::<Vec<_>>())
    .bind(messages.iter().map(|(_, message)| PgTime::from(message.created_at)).collect::<Vec<_>>())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
