//! The calls so far: a bounded log of them, and their counts. No token is in it.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use perene_policy::Fingerprint;
use serde::Serialize;

use super::Behaviour;
use super::call::Endpoint;

/// How many calls the log keeps: about 10 MB when it is full. Older ones are only counted.
pub const KEPT_CALLS: usize = 100_000;

/// The log and its counts.
#[derive(Default)]
pub(super) struct Record {
    log: VecDeque<Entry>,
    calls: u64,
    by_endpoint: BTreeMap<&'static str, u64>,
    by_status: BTreeMap<u16, u64>,
    by_behaviour: BTreeMap<&'static str, u64>,
}

struct Entry {
    at: Timestamp,
    endpoint: Endpoint,
    token: Option<(Behaviour, Fingerprint)>,
    status: u16,
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    endpoint: &'static str,
    behaviour: Option<String>,
    fingerprint: Option<&'a str>,
    status: u16,
}

/// How many calls there were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// All calls.
    pub calls: u64,
    /// Calls that the log no longer has.
    pub calls_not_in_log: u64,
    /// Tokens that were presented, each counted once over all its generations.
    pub tokens_seen: usize,
    /// Calls by endpoint.
    pub by_endpoint: BTreeMap<&'static str, u64>,
    /// Calls by the HTTP status of their answer.
    pub by_status: BTreeMap<u16, u64>,
    /// Calls by their token's behaviour; those without a token are not in it.
    pub by_behaviour: BTreeMap<&'static str, u64>,
}

impl Record {
    pub(super) fn note(
        &mut self,
        at: Timestamp,
        endpoint: Endpoint,
        token: Option<(Behaviour, Fingerprint)>,
        status: u16,
    ) {
        self.calls += 1;
        *self.by_endpoint.entry(endpoint.name()).or_default() += 1;
        *self.by_status.entry(status).or_default() += 1;
        if let Some((behaviour, _)) = &token {
            *self.by_behaviour.entry(behaviour.word()).or_default() += 1;
        }
        if self.log.len() == KEPT_CALLS {
            self.log.pop_front();
        }
        self.log.push_back(Entry { at, endpoint, token, status });
    }

    pub(super) fn log_lines(&self) -> String {
        let mut lines = String::with_capacity(self.log.len() * 160);
        for entry in &self.log {
            let line = Line {
                at: entry.at.to_string(),
                endpoint: entry.endpoint.name(),
                behaviour: entry.token.as_ref().map(|(behaviour, _)| behaviour.to_string()),
                fingerprint: entry.token.as_ref().map(|(_, fingerprint)| fingerprint.as_str()),
                status: entry.status,
            };
            lines.push_str(&serde_json::to_string(&line).expect("a line has only texts and numbers"));
            lines.push('\n');
        }
        lines
    }

    pub(super) fn stats(&self, tokens_seen: usize) -> Stats {
        Stats {
            calls: self.calls,
            calls_not_in_log: self.calls - self.log.len() as u64,
            tokens_seen,
            by_endpoint: self.by_endpoint.clone(),
            by_status: self.by_status.clone(),
            by_behaviour: self.by_behaviour.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_says_what_it_lost() {
        let mut record = Record::default();
        for _ in 0..KEPT_CALLS + 3 {
            record.note(Timestamp::UNIX_EPOCH, Endpoint::Other, None, 400);
        }
        let stats = record.stats(0);
        assert_eq!((stats.calls, stats.calls_not_in_log), (KEPT_CALLS as u64 + 3, 3));
        assert_eq!(record.log_lines().lines().count(), KEPT_CALLS);
    }

    #[test]
    fn a_line_names_the_token_by_its_fingerprint() {
        let mut record = Record::default();
        let token = (Behaviour::Dead { subcode: Some(460) }, Fingerprint::of("EAA-dead-460-1"));
        record.note(Timestamp::UNIX_EPOCH, Endpoint::Exchange, Some(token), 400);
        assert_eq!(
            record.log_lines(),
            "{\"at\":\"1970-01-01T00:00:00Z\",\"endpoint\":\"exchange\",\"behaviour\":\"dead-460\",\
             \"fingerprint\":\"5d0dc7d0\",\"status\":400}\n"
                .replace("5d0dc7d0", Fingerprint::of("EAA-dead-460-1").as_str())
        );
    }
}
