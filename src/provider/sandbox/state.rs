//! What the sandbox remembers: one small record for each lineage of tokens, and the record of calls.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::record::Record;
use super::refusal::Death;
use super::token::TokenText;
use super::{Behaviour, chance};

/// How long a refreshed token lives, in seconds: Meta's own sample, 59 d 23 h 59 min 4 s.
/// <https://developers.facebook.com/docs/instagram-platform/reference/refresh_access_token>
pub(super) const LIFE_S: i64 = 5_183_944;

/// All that is remembered.
pub(super) struct Memory {
    lineages: HashMap<u64, Lineage>,
    untold_life_s: i64,
    /// The calls so far.
    pub(super) record: Record,
}

/// What is remembered of one lineage.
#[derive(Clone, Copy)]
pub(super) struct Lineage {
    calls: u32,
    /// Refreshes that reached the token itself.
    pub(super) refreshes: u32,
    /// The newest string that was handed out or shown.
    pub(super) generation: u32,
    /// When it ends if nobody tells.
    untold_end_s: i64,
    /// The end of the newest string, once a refresh has moved it; 0 is never.
    pub(super) issued_until_s: Option<i64>,
}

/// When a string ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Never.
    Never,
    /// At this instant, in unix seconds: dead from then on.
    At(i64),
    /// Probably then; nobody has said so, and it lives on.
    Untold(i64),
}

impl Memory {
    /// Nothing is remembered yet. `untold_life` is how long a token lives from its first sight when nothing
    /// else is known of its end.
    pub(super) fn new(untold_life: Duration) -> Self {
        // A hundred years are as good as any longer time, and no sum with them overflows.
        let untold_life_s = i64::try_from(untold_life.as_secs()).unwrap_or(i64::MAX).min(100 * 366 * 86_400);
        Self { lineages: HashMap::new(), untold_life_s, record: Record::default() }
    }

    /// Counts a call on a lineage and says how many there were before. Calls without a token are a lineage too.
    pub(super) fn count_call(&mut self, text: &TokenText<'_>, now: Timestamp) -> u64 {
        let lineage = self.lineage(text, now);
        lineage.calls = lineage.calls.saturating_add(1);
        u64::from(lineage.calls - 1)
    }

    /// What is remembered of a token's lineage, from its first call on.
    pub(super) fn lineage(&mut self, text: &TokenText<'_>, now: Timestamp) -> &mut Lineage {
        self.lineages.entry(chance::hash(text.lineage)).or_insert(Lineage {
            calls: 0,
            refreshes: 0,
            generation: text.generation,
            untold_end_s: now.as_second() + self.untold_life_s,
            issued_until_s: None,
        })
    }

    /// How many tokens there are, each counted once over all its generations.
    pub(super) fn tokens_seen(&self) -> usize {
        self.lineages.len() - usize::from(self.lineages.contains_key(&chance::hash("")))
    }
}

impl Lineage {
    /// When the presented string ends.
    pub(super) fn end(&self, text: &TokenText<'_>, now: Timestamp) -> End {
        let newest = text.generation >= self.generation;
        let told = match (self.issued_until_s.filter(|_| newest), text.expires_at_s.filter(|_| text.generation == 0)) {
            (Some(issued), _) => Some(issued),
            (None, named) => named,
        };
        match told {
            Some(0) => End::Never,
            Some(instant) => End::At(instant),
            None if text.behaviour == Behaviour::Stuck => End::At(self.untold_end_s),
            None => End::Untold(self.untold_end_s.max(now.as_second() + 3_600)),
        }
    }

    /// Why the presented string is no longer accepted; `None` while it is.
    pub(super) fn death(&self, text: &TokenText<'_>, now: Timestamp) -> Option<Death> {
        match text.behaviour {
            // A token that has ended says when: an hour ago, if nothing else is known.
            Behaviour::Dead { subcode: Some(463) } => Some(Death::expired(match self.end(text, now) {
                End::At(instant) if instant <= now.as_second() => instant,
                _ => now.as_second() - 3_600,
            })),
            Behaviour::Dead { subcode } => Some(Death::of_subcode(subcode)),
            Behaviour::Rotate if text.generation < self.generation => Some(Death::of_subcode(Some(460))),
            Behaviour::Rotate if text.generation > self.generation => Some(Death::never_issued()),
            _ => match self.end(text, now) {
                End::At(instant) if instant <= now.as_second() => Some(Death::expired(instant)),
                _ => None,
            },
        }
    }

    /// Remembers a refresh that has been granted: from now a whole life, unless it never ends.
    pub(super) fn extend(&mut self, never_ends: bool, now: Timestamp) {
        let until = now.saturating_add(SignedDuration::from_secs(LIFE_S)).map_or(i64::MAX, Timestamp::as_second);
        self.issued_until_s = Some(if never_ends { 0 } else { until });
    }
}
