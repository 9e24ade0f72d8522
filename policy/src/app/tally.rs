//! Who was tried within the last hour, and with what outcome: the ground of the breadth brake.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::outcome::Outcome;
use crate::planted::{self, Bug};

/// At least so many distinct connections must have got the same bad outcome within an hour …
pub const BRAKE_CONNECTIONS: usize = 10;

/// … and at least this share, in percent, of those tried within the hour.
pub const BRAKE_PERCENT: u64 = 20;

const MINUTES: i64 = 60;

/// The bad outcomes on which the brake is put: what would be declared or counted against a customer.
const BAD: [Outcome; 3] = [Outcome::Transient, Outcome::NeedsReconnect, Outcome::Unrecognised];

/// Counts by minute over the last hour. Bounded: 60 minutes, and of each bad outcome as many distinct
/// connections as the brake asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    minutes: Vec<Minute>,
    distinct: BTreeMap<Outcome, Vec<(u32, i64)>>,
    in_a_row: Vec<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Minute {
    at: i64,
    tried: u64,
    bad: BTreeMap<Outcome, u64>,
}

impl Tally {
    /// Adds one connection's outcome.
    pub fn add(&mut self, connection: &str, outcome: Outcome, is_in_a_row: bool, now: Timestamp) {
        if outcome == Outcome::TooYoung {
            return;
        }
        let at = now.as_second().div_euclid(60);
        self.forget_before(at - MINUTES);
        let minute = match self.minutes.last_mut() {
            Some(last) if last.at >= at => last,
            _ => {
                self.minutes.push(Minute { at, ..Minute::default() });
                self.minutes.last_mut().expect("one has just been pushed")
            }
        };
        minute.tried += 1;
        if !BAD.contains(&outcome) {
            self.in_a_row.clear();
            return;
        }
        let name = short(connection);
        *minute.bad.entry(outcome).or_default() += 1;
        let distinct = self.distinct.entry(outcome).or_default();
        match distinct.iter().position(|(seen, _)| *seen == name) {
            Some(known) => distinct[known].1 = at,
            None if distinct.len() < BRAKE_CONNECTIONS => distinct.push((name, at)),
            None => distinct[usize::try_from(minute.tried).unwrap_or(0) % BRAKE_CONNECTIONS] = (name, at),
        }
        if outcome != Outcome::Transient {
            self.in_a_row.clear();
        } else if is_in_a_row && self.in_a_row.len() < super::CIRCUIT_CONNECTIONS && !self.in_a_row.contains(&name) {
            self.in_a_row.push(name);
        }
    }

    /// How many distinct connections in a row, up to the last one, got no usable answer.
    pub fn failed_in_a_row(&self) -> usize {
        self.in_a_row.len()
    }

    /// The bad outcome that so many connections got within the last hour that it is not theirs.
    pub fn many_alike(&self, now: Timestamp) -> Option<Outcome> {
        if planted::has(Bug::NoBrake) {
            return None;
        }
        let oldest = now.as_second().div_euclid(60) - MINUTES;
        let recent = || self.minutes.iter().filter(move |minute| minute.at > oldest);
        let tried: u64 = recent().map(|minute| minute.tried).sum();
        BAD.into_iter().find(|outcome| {
            let bad: u64 = recent().filter_map(|minute| minute.bad.get(outcome)).sum();
            let distinct =
                self.distinct.get(outcome).map_or(0, |seen| seen.iter().filter(|(_, at)| *at > oldest).count());
            distinct >= BRAKE_CONNECTIONS && bad * 100 >= tried * BRAKE_PERCENT
        })
    }

    /// The storm is over: its failures say nothing about what comes.
    pub fn forget_transient(&mut self) {
        self.in_a_row.clear();
        self.distinct.remove(&Outcome::Transient);
        for minute in &mut self.minutes {
            if let Some(bad) = minute.bad.remove(&Outcome::Transient) {
                minute.tried = minute.tried.saturating_sub(bad);
            }
        }
    }

    fn forget_before(&mut self, oldest: i64) {
        self.minutes.retain(|minute| minute.at > oldest);
        for seen in self.distinct.values_mut() {
            seen.retain(|(_, at)| *at > oldest);
        }
    }
}

fn short(connection: &str) -> u32 {
    let digest = Sha256::digest(connection.as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hours, instant};

    #[test]
    fn an_hour_later_all_is_forgotten() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut tally = Tally::default();
        for n in 0..10 {
            tally.add(&n.to_string(), Outcome::Unrecognised, true, now);
        }
        assert_eq!(tally.many_alike(now), Some(Outcome::Unrecognised));
        assert_eq!(tally.many_alike(now + hours(1)), None);
    }

    #[test]
    fn ten_failures_of_one_connection_are_one() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut tally = Tally::default();
        for _ in 0..50 {
            tally.add("7", Outcome::NeedsReconnect, true, now);
        }
        assert_eq!(tally.many_alike(now), None);
    }

    #[test]
    fn it_stays_small_however_many_are_tried() {
        let mut tally = Tally::default();
        for n in 0..20_000 {
            let now = Timestamp::from_second(1_800_000_000 + n / 10).unwrap();
            tally.add(&n.to_string(), Outcome::Transient, true, now);
        }
        assert!(serde_json::to_string(&tally).unwrap().len() < 8_000);
    }
}
