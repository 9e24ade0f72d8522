//! What a run came to.

use std::collections::BTreeMap;

use perene_policy::{Counted, Outcome};
use serde_json::{Value, json};

/// How many lines of trouble a report keeps: for a person to read, not for a million rows.
pub const TROUBLES_MAX: usize = 200;

/// The sums of a run. For real runs `due = refreshed + failed + deferred + superseded`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Connections that were due.
    pub due: u64,
    /// Of these, refreshed.
    pub refreshed: u64,
    /// Failed, and counted against the connection.
    pub failed: u64,
    /// Put off, with nothing counted against anybody.
    pub deferred: u64,
    /// Changed by the app meanwhile.
    pub superseded: u64,
    /// Connections whose customer was warned.
    pub warned: u64,
    /// Connections whose incident was closed.
    pub recovered: u64,
    /// Due, but another process had them.
    pub leased_elsewhere: u64,
    /// From start to end, in milliseconds.
    pub elapsed_ms: u64,
    /// Nothing was called and nothing changed.
    pub dry_run: bool,
    /// The database failed meanwhile.
    pub had_outage: bool,
    /// It was asked to stop before its end.
    pub was_interrupted: bool,
    /// The run on record, where it is to be finished only when what others have in flight is made up for.
    pub unfinished: Option<i64>,
    /// How many of each outcome.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Who failed and why, who was put off, who was warned: the first of them.
    pub troubles: Vec<Trouble>,
}

/// One line of trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The table.
    pub table: String,
    /// The connection's key.
    pub id: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub text: String,
    /// Its customer was warned.
    pub was_warned: bool,
}

impl Report {
    /// Books one connection.
    pub fn book(&mut self, outcome: Outcome, counted: Counted) {
        self.book_many(outcome, counted, 1);
    }

    /// Books several connections that fared alike.
    pub fn book_many(&mut self, outcome: Outcome, counted: Counted, count: u64) {
        if count == 0 {
            return;
        }
        self.due += count;
        *self.outcomes.entry(outcome).or_default() += count;
        match counted {
            Counted::Refreshed => self.refreshed += count,
            Counted::Failed => self.failed += count,
            Counted::Deferred => self.deferred += count,
            Counted::Superseded => self.superseded += count,
        }
    }

    /// Keeps a line of trouble, while there is room.
    pub fn note(&mut self, trouble: Trouble) {
        if self.troubles.len() < TROUBLES_MAX {
            self.troubles.push(trouble);
        }
    }

    /// Whether the run is one to look into: something failed, or the operator must act.
    pub fn has_trouble(&self) -> bool {
        self.failed > 0
            || [Outcome::Misconfigured, Outcome::RateLimited].iter().any(|outcome| self.outcomes.contains_key(outcome))
    }

    /// The contract's JSON (section 6).
    pub fn to_json(&self) -> Value {
        let outcomes: serde_json::Map<String, Value> =
            self.outcomes.iter().map(|(outcome, count)| (outcome.name().to_owned(), json!(count))).collect();
        json!({
            "due": self.due,
            "refreshed": self.refreshed,
            "failed": self.failed,
            "deferred": self.deferred,
            "superseded": self.superseded,
            "warned": self.warned,
            "recovered": self.recovered,
            "leased_elsewhere": self.leased_elsewhere,
            "elapsed_ms": self.elapsed_ms,
            "dry_run": self.dry_run,
            "outcomes": outcomes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_is_the_sum_of_what_became_of_it() {
        let mut report = Report::default();
        report.book(Outcome::Refreshed, Counted::Refreshed);
        report.book(Outcome::Transient, Counted::Failed);
        report.book_many(Outcome::RateLimited, Counted::Deferred, 5);
        report.book_many(Outcome::Misconfigured, Counted::Deferred, 0);
        report.book(Outcome::Superseded, Counted::Superseded);
        assert_eq!(report.due, report.refreshed + report.failed + report.deferred + report.superseded);
        assert_eq!(
            report.to_json()["outcomes"],
            json!({"refreshed": 1, "transient": 1, "rate_limited": 5, "superseded": 1})
        );
    }

    #[test]
    fn a_run_with_limits_or_a_misconfigured_app_is_one_to_look_into() {
        for (outcome, counted, is_trouble) in [
            (Outcome::Refreshed, Counted::Refreshed, false),
            (Outcome::TooYoung, Counted::Deferred, false),
            (Outcome::Transient, Counted::Deferred, false),
            (Outcome::Transient, Counted::Failed, true),
            (Outcome::Misconfigured, Counted::Deferred, true),
            (Outcome::RateLimited, Counted::Deferred, true),
        ] {
            let mut report = Report::default();
            report.book(outcome, counted);
            assert_eq!(report.has_trouble(), is_trouble, "{outcome}");
        }
    }
}
