//! One table of connections: the app's rows, what Perene keeps beside them, and the indexes over both.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use perene_policy::connection::TOKEN_BYTES_MAX;
use perene_policy::{Connection, Decision, ErrorText, Grant, Memory, RowWrite, Secret};
use uuid::Uuid;

use super::Mapped;
use super::key::Key;
use super::row::AppRow;
use crate::store::{Committed, HistoryLine};

/// So many characters of each end stand for a token that is too long to be read.
const END_CHARS: usize = 64;

/// A lease that is on a connection.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) holder: String,
    pub(super) fence: Uuid,
    pub(super) until: Timestamp,
}

/// What is remembered of a connection.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) version: i64,
    pub(super) memory: Memory,
    /// The user for whom a flag was raised: the app may give the connection to another one.
    pub(super) user_id: Option<String>,
}

/// The last commit under a lease, by its fence: one that is made again, because its answer was lost, is
/// told what became of the first.
#[derive(Debug, Clone)]
pub(super) struct Last {
    pub(super) fence: Uuid,
    pub(super) decision: Decision,
    pub(super) committed: Committed,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    rows: BTreeMap<Key, AppRow>,
    /// Rows with a token and a date.
    by_expiry: BTreeSet<(Timestamp, Key)>,
    /// Rows with a token and no date.
    undated: BTreeSet<Key>,
    memories: BTreeMap<Key, Kept>,
    by_next_try: BTreeSet<(Timestamp, Key)>,
    pub(super) leases: BTreeMap<Key, Held>,
    pub(super) history: BTreeMap<Key, BTreeMap<u64, HistoryLine>>,
    pub(super) last: BTreeMap<Key, Last>,
    /// Rows whose every update fails, with the message.
    pub(super) refusals: BTreeMap<Key, String>,
    /// The width of the column for the last error; `None` for any.
    pub(super) error_width: Option<usize>,
    /// How often Perene has written rows of this table.
    pub(super) writes: u64,
}

impl Table {
    /// With what message the table refuses this write.
    pub(super) fn refusal(&self, key: &Key, write: &RowWrite) -> Option<String> {
        let too_long = |width: usize| match &write.error {
            ErrorText::Set(text) if text.chars().count() > width => {
                Some(format!("value too long for type character varying({width})"))
            }
            _ => None,
        };
        self.refusals.get(key).cloned().or_else(|| self.error_width.and_then(too_long))
    }

    pub(super) fn row(&self, key: &Key) -> Option<&AppRow> {
        self.rows.get(key)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&Key, &AppRow)> {
        self.rows.iter()
    }

    pub(super) fn insert(&mut self, row: AppRow) {
        let key = Key::of(&row.id);
        self.remove(&key);
        let row = row.cut_to_microseconds();
        self.index(&key, &row);
        self.rows.insert(key, row);
    }

    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let Some(row) = self.rows.remove(key) else { return false };
        self.unindex(key, &row);
        true
    }

    /// Changes a row, if it is there.
    pub(super) fn change(&mut self, key: &Key, change: impl FnOnce(&mut AppRow)) -> bool {
        let Some(mut row) = self.rows.remove(key) else { return false };
        self.unindex(key, &row);
        change(&mut row);
        let row = row.cut_to_microseconds();
        self.index(key, &row);
        self.rows.insert(key.clone(), row);
        true
    }

    fn index(&mut self, key: &Key, row: &AppRow) {
        match row.expires_at {
            _ if !row.has_token() => {}
            Some(at) => drop(self.by_expiry.insert((at, key.clone()))),
            None => drop(self.undated.insert(key.clone())),
        }
    }

    fn unindex(&mut self, key: &Key, row: &AppRow) {
        match row.expires_at {
            _ if !row.has_token() => {}
            Some(at) => drop(self.by_expiry.remove(&(at, key.clone()))),
            None => drop(self.undated.remove(key)),
        }
    }

    /// Rows with a token that expire at `from` or later, soonest first.
    pub(super) fn dated_from(&self, from: (Timestamp, Key)) -> impl Iterator<Item = &(Timestamp, Key)> {
        self.by_expiry.range(from..)
    }

    /// Rows with a token and without a date, by key, from `from` on.
    pub(super) fn undated_from(&self, from: Key) -> impl Iterator<Item = &Key> {
        self.undated.range(from..)
    }

    pub(super) fn kept(&self, key: &Key) -> Option<&Kept> {
        self.memories.get(key)
    }

    /// What is remembered, by key, from `from` on.
    pub(super) fn kept_from(&self, from: Key) -> impl Iterator<Item = (&Key, &Kept)> {
        self.memories.range(from..)
    }

    /// Those whose retry time is `now` or earlier, in no order that matters.
    pub(super) fn to_be_tried(&self, now: Timestamp) -> impl Iterator<Item = &Key> {
        self.by_next_try.iter().take_while(move |(at, _)| *at <= now).map(|(_, key)| key)
    }

    /// Remembers, or forgets; returns what was remembered before.
    pub(super) fn keep(&mut self, key: &Key, kept: Option<Kept>) -> Option<Kept> {
        let before = self.memories.remove(key);
        if let Some(at) = before.as_ref().and_then(|before| before.memory.next_try_at) {
            self.by_next_try.remove(&(at, key.clone()));
        }
        if let Some(kept) = kept {
            self.by_next_try.extend(kept.memory.next_try_at.map(|at| (at, key.clone())));
            self.memories.insert(key.clone(), kept);
        }
        before
    }

    /// Whether a lease on `key` holds at `now` against a claim under `fence`.
    pub(super) fn is_leased(&self, key: &Key, fence: Option<Uuid>, now: Timestamp) -> bool {
        self.leases.get(key).is_some_and(|held| held.until > now && Some(held.fence) != fence)
    }

    /// A row as a store reads it.
    pub(super) fn connection(&self, mapped: &Mapped, key: &Key) -> Option<Connection> {
        let row = self.rows.get(key)?;
        let columns = &mapped.source.columns;
        let token = shown(row.token.as_ref());
        Some(Connection {
            id: row.id.clone(),
            user_id: columns.user_id.as_ref().and(row.user_id.clone()),
            token_bytes: row.token.as_ref().map_or(0, |token| token.expose().len()),
            refresh_token: columns
                .refresh_token
                .as_ref()
                .and(row.refresh_token.as_ref())
                .map(|token| shown(Some(token))),
            expires_at: row.expires_at,
            refreshed_at: columns.token_refreshed_at.as_ref().and(row.refreshed_at),
            attempts: columns.refresh_attempts.as_ref().and(row.attempts).unwrap_or(0),
            grant: mapped.grant(token.expose()),
            memory: self.memories.get(key).map(|kept| kept.memory.clone()),
            token,
        })
    }

    /// The grant with which a row's token is renewed.
    pub(super) fn grant(&self, mapped: &Mapped, key: &Key) -> Grant {
        let token = self.rows.get(key).and_then(|row| row.token.as_ref());
        mapped.grant(token.map_or("", Secret::expose))
    }
}

/// A token as far as it is read: whole, or its two ends.
pub(super) fn shown(token: Option<&Secret>) -> Secret {
    match token {
        None => Secret::new(""),
        Some(token) if token.expose().len() <= TOKEN_BYTES_MAX => token.clone(),
        Some(token) => {
            let text = token.expose();
            let begin = text.char_indices().nth(END_CHARS).map_or(text, |(at, _)| &text[..at]);
            let end = text.char_indices().nth_back(END_CHARS - 1).map_or(text, |(at, _)| &text[at..]);
            Secret::new([begin, end].concat())
        }
    }
}
