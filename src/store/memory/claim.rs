//! Leases: pages of connections, handed out to one replica each.

use jiff::{SignedDuration, Timestamp};
use perene_policy::backoff::later;
use perene_policy::planted::{self, Bug};
use perene_policy::{Connection, State as Standing};
use uuid::Uuid;

use super::key::Key;
use super::table::{Held, Table};
use super::{Mapped, State};
use crate::store::{Claim, Claimed, Cursor, Which};

type Candidate = (Option<Timestamp>, Key);

pub(super) fn claim(state: &mut State, mapped: &Mapped, claim: &Claim<'_>) -> Claimed {
    let table = &mut state.tables[mapped.table];
    let mut page: Vec<Candidate> = wanted(table, mapped, claim).take(claim.limit.saturating_add(1)).collect();
    let has_more = page.len() > claim.limit;
    page.truncate(claim.limit);
    let next = page.last().filter(|_| has_more).map(|(expires_at, key)| Cursor {
        expires_us: expires_at.map(Timestamp::as_microsecond),
        id: table.row(key).map(|row| row.id.clone()).unwrap_or_default(),
    });
    let mut claimed = Claimed { connections: Vec::with_capacity(page.len()), elsewhere: 0, next };
    for (_, key) in page {
        if table.is_leased(&key, Some(claim.fence), claim.now) {
            claimed.elsewhere += 1;
            continue;
        }
        claimed.connections.extend(table.connection(mapped, &key));
        table.leases.insert(key, Held { holder: claim.holder.to_owned(), fence: claim.fence, until: claim.until });
    }
    claimed
}

pub(super) fn peek(state: &State, mapped: &Mapped, claim: &Claim<'_>) -> Vec<Connection> {
    let table = &state.tables[mapped.table];
    free(table, mapped, claim).take(claim.limit).filter_map(|(_, key)| table.connection(mapped, &key)).collect()
}

pub(super) fn count(state: &State, mapped: &Mapped, claim: &Claim<'_>) -> u64 {
    let claim = Claim { after: None, ..*claim };
    free(&state.tables[mapped.table], mapped, &claim).map(|_| 1).sum()
}

pub(super) fn extend(state: &mut State, fence: Uuid, until: Timestamp) -> u64 {
    let held = state.tables.iter_mut().flat_map(|table| table.leases.values_mut());
    held.filter(|held| held.fence == fence).map(|held| held.until = until).map(|()| 1).sum()
}

/// Gives a lease back, if it is still there.
pub(super) fn release(table: &mut Table, key: &Key, fence: Uuid) {
    if table.leases.get(key).is_some_and(|held| held.fence == fence) {
        table.leases.remove(key);
    }
}

fn free<'a>(table: &'a Table, mapped: &'a Mapped, claim: &'a Claim<'a>) -> impl Iterator<Item = Candidate> + 'a {
    wanted(table, mapped, claim).filter(|(_, key)| !table.is_leased(key, Some(claim.fence), claim.now))
}

/// The rows that a claim asks for, leased or not, behind its cursor and in its order.
fn wanted<'a>(table: &'a Table, mapped: &'a Mapped, claim: &'a Claim<'a>) -> Box<dyn Iterator<Item = Candidate> + 'a> {
    let now = claim.now;
    let rows: Box<dyn Iterator<Item = Candidate>> = match claim.which {
        Which::Due { window } => {
            let end = later(now, window);
            let ahead = dated(table, claim).take_while(move |(at, _)| at.is_some_and(|at| at < end));
            Box::new(ahead.filter(move |(_, key)| !waits(table, key, now)))
        }
        Which::Undated => Box::new(undated(table, claim).filter(move |(_, key)| {
            let never_expires = table.kept(key).is_some_and(|kept| kept.memory.state == Standing::NeverExpires);
            !never_expires && !waits(table, key, now)
        })),
        Which::Retry => Box::new(to_be_tried(table, claim).into_iter()),
        Which::Live => {
            let dated =
                Some(dated(table, claim)).filter(|_| !matches!(claim.after, Some(Cursor { expires_us: None, .. })));
            Box::new(dated.into_iter().flatten().chain(undated(table, claim)))
        }
        Which::Named { ids } => Box::new(named(table, claim, ids).into_iter()),
    };
    Box::new(rows.filter(move |(_, key)| claim.grants.contains(&table.grant(mapped, key))))
}

/// A retry time holds back whatever generation the row has now, as it does in a database.
fn waits(table: &Table, key: &Key, now: Timestamp) -> bool {
    table.kept(key).and_then(|kept| kept.memory.next_try_at).is_some_and(|at| at > now)
}

/// Those that expire late enough, behind the cursor.
fn dated<'a>(table: &'a Table, claim: &Claim<'_>) -> impl Iterator<Item = Candidate> + 'a {
    let expired = SignedDuration::from_hours(if planted::has(Bug::ExpiredSent) { 48 } else { 0 });
    let since = later(claim.since(), -expired);
    let after = claim.after.and_then(|cursor| Some((instant(cursor.expires_us?), Key::of(&cursor.id))));
    let from = (since, Key::FIRST);
    let from = after.clone().map_or_else(|| from.clone(), |after| after.max(from.clone()));
    table
        .dated_from(from)
        .filter(move |row| row.0 > since && after.as_ref() != Some(row))
        .map(|(at, key)| (Some(*at), key.clone()))
}

/// Those without a date, behind the cursor if it is one of them.
fn undated<'a>(table: &'a Table, claim: &Claim<'_>) -> impl Iterator<Item = Candidate> + 'a {
    let after = claim.after.filter(|cursor| cursor.expires_us.is_none()).map(|cursor| Key::of(&cursor.id));
    let from = after.clone().unwrap_or(Key::FIRST);
    table.undated_from(from).filter(move |key| after.as_ref() != Some(key)).map(|key| (None, key.clone()))
}

fn to_be_tried(table: &Table, claim: &Claim<'_>) -> Vec<Candidate> {
    let (now, since) = (claim.now, claim.since());
    let mut rows: Vec<Candidate> = table
        .to_be_tried(now)
        .filter_map(|key| {
            let row = table.row(key).filter(|row| row.has_token())?;
            row.expires_at.is_none_or(|at| since < at).then(|| (row.expires_at, key.clone()))
        })
        .collect();
    rows.sort_unstable_by(|a, b| place(a).cmp(&place(b)));
    if let Some(cursor) = claim.after {
        let after = (cursor.expires_us.map(instant), Key::of(&cursor.id));
        rows.retain(|row| place(row) > place(&after));
    }
    rows
}

/// Sorts those without a date behind the others.
fn place(row: &Candidate) -> (bool, Option<Timestamp>, &Key) {
    (row.0.is_none(), row.0, &row.1)
}

fn named(table: &Table, claim: &Claim<'_>, ids: &[String]) -> Vec<Candidate> {
    let after = claim.after.map(|cursor| Key::of(&cursor.id));
    let mut keys: Vec<Key> = ids.iter().map(|id| Key::of(id)).filter(|key| Some(key) > after.as_ref()).collect();
    keys.sort_unstable();
    keys.dedup();
    let found = keys.into_iter().filter_map(|key| {
        let row = table.row(&key).filter(|row| row.has_token())?;
        Some((row.expires_at, key))
    });
    found.collect()
}

fn instant(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
