//! Commits: each row together or not at all, and only where nobody else was faster.

use jiff::Timestamp;
use perene_policy::decide::superseded;
use perene_policy::planted::{self, Bug};
use perene_policy::{Attempts, Connection, ErrorText, RowWrite, Secret, redact};

use super::claim::release;
use super::key::Key;
use super::table::{Kept, Last, Table, shown};
use super::{Change, Mapped, State, flag};
use crate::store::{Commit, Committed, Guard};

/// The event of a row that the database refused to write.
const REFUSED: &str = "refused";

pub(super) fn commit(state: &mut State, mapped: &Mapped, commit: &Commit, now: Timestamp) -> Committed {
    let key = Key::of(&commit.connection.id);
    let table = &mut state.tables[mapped.table];
    let holds = match commit.guard {
        Guard::Lease(fence) | Guard::Kept(fence) => table.leases.get(&key).is_some_and(|held| held.fence == fence),
        Guard::Memory(version) => {
            table.kept(&key).is_some_and(|kept| kept.version == version) && !table.is_leased(&key, None, now)
        }
    };
    if !holds {
        return earlier(table, &key, commit).unwrap_or(Committed::GuardLost);
    }
    let committed = carry_out(state, mapped, commit, &key, now);
    let table = &mut state.tables[mapped.table];
    match commit.guard {
        Guard::Lease(fence) => {
            release(table, &key, fence);
            let last = Last { fence, decision: commit.decision.clone(), committed: committed.clone() };
            table.last.insert(key, last);
        }
        Guard::Kept(_) => {}
        // Whoever held the lapsed lease must not find it when it wakes up.
        Guard::Memory(_) => drop(table.leases.remove(&key)),
    }
    committed
}

/// What became of this very commit, if it is made again because its answer was lost.
fn earlier(table: &Table, key: &Key, commit: &Commit) -> Option<Committed> {
    let Guard::Lease(fence) = commit.guard else { return None };
    let last = table.last.get(key)?;
    (last.fence == fence && last.decision == commit.decision).then(|| last.committed.clone())
}

fn carry_out(state: &mut State, mapped: &Mapped, commit: &Commit, key: &Key, now: Timestamp) -> Committed {
    let Commit { connection, decision, .. } = commit;
    let table = &state.tables[mapped.table];
    if !is_same(table, mapped, key, connection) {
        for event in superseded(connection).events {
            state.tell(mapped.table, key, now, event.kind.name(), event.outcome, event.text);
        }
        return Committed::Superseded;
    }
    let write = decision.write.as_ref().filter(|write| is_something(write, mapped) && table.row(key).is_some());
    let flag = flag::plan(state, mapped, commit, key);
    let refusal = write.and_then(|write| table.refusal(key, write)).or_else(|| flag.refusal(state).cloned());
    if let Some(message) = refusal {
        let text = redact::for_row(&message, &secrets(connection, decision.write.as_ref()));
        state.tell(mapped.table, key, now, REFUSED, None, text.clone());
        return Committed::Refused(text);
    }

    // From here on nothing can fail.
    let kept = decision.memory.as_ref().map(|memory| Kept {
        version: state.signed_number(),
        memory: memory.clone(),
        user_id: connection.user_id.clone(),
    });
    let table = &mut state.tables[mapped.table];
    if let Some(write) = write {
        table.writes += 1;
        table.change(key, |row| apply(write, row, mapped));
    }
    state.remember(mapped, key, kept);
    for event in &decision.events {
        state.tell(mapped.table, key, now, event.kind.name(), event.outcome, event.text.clone());
    }
    for message in &commit.outbox {
        let number = state.number();
        state.outbox.put(mapped.table, number, message);
        state.changed(|| Change::Message(message.id.clone()));
    }
    flag.carry_out(state);
    state.changed(|| Change::Connection(mapped.table, connection.id.clone()));
    Committed::Done
}

/// Whether the row still holds the generation that was read. The pair of both tokens is compared where both
/// are mapped: at a rotating provider it is the refresh token that was sent. A row that is gone reads as one
/// without a token.
fn is_same(table: &Table, mapped: &Mapped, key: &Key, connection: &Connection) -> bool {
    if planted::has(Bug::NoCompareAndSwap) {
        return true;
    }
    let row = table.row(key);
    let token = row.and_then(|row| row.token.as_ref());
    let refresh = row.and_then(|row| row.refresh_token.as_ref());
    token.map_or(0, |token| token.expose().len()) == connection.token_bytes
        && shown(token) == connection.token
        && (mapped.source.columns.refresh_token.is_none()
            || refresh.map(|token| shown(Some(token))) == connection.refresh_token)
}

/// Whether `write` writes any column that is mapped.
fn is_something(write: &RowWrite, mapped: &Mapped) -> bool {
    let columns = &mapped.source.columns;
    write.token.is_some()
        || write.expires_at.is_some()
        || (write.refresh_token.is_some() && columns.refresh_token.is_some())
        || (write.refreshed_at.is_some() && columns.token_refreshed_at.is_some())
        || (write.attempts != Attempts::Keep && columns.refresh_attempts.is_some())
        || (write.error != ErrorText::Keep && columns.last_refresh_error.is_some())
}

fn apply(write: &RowWrite, row: &mut super::AppRow, mapped: &Mapped) {
    let columns = &mapped.source.columns;
    if let Some(token) = &write.token {
        row.token = Some(token.clone());
    }
    if let Some(token) = write.refresh_token.as_ref().filter(|_| columns.refresh_token.is_some()) {
        row.refresh_token = Some(token.clone());
    }
    row.expires_at = write.expires_at.or(row.expires_at);
    if columns.token_refreshed_at.is_some() {
        row.refreshed_at = write.refreshed_at.or(row.refreshed_at);
    }
    if columns.refresh_attempts.is_some() {
        row.attempts = match write.attempts {
            Attempts::Keep => row.attempts,
            Attempts::Zero => Some(0),
            Attempts::AddOne => Some(row.attempts.unwrap_or(0).max(0).saturating_add(1)),
        };
    }
    if columns.last_refresh_error.is_some() {
        match &write.error {
            ErrorText::Keep => {}
            ErrorText::Clear => row.error = None,
            ErrorText::Set(text) => row.error = Some(text.clone()),
        }
    }
}

fn secrets<'a>(connection: &'a Connection, write: Option<&'a RowWrite>) -> Vec<&'a str> {
    let stored = [Some(&connection.token), connection.refresh_token.as_ref()];
    let issued = [write.and_then(|write| write.token.as_ref()), write.and_then(|write| write.refresh_token.as_ref())];
    stored.into_iter().chain(issued).flatten().map(Secret::expose).collect()
}
