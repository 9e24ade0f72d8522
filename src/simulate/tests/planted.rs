//! A proof that cannot fail is none: each planted bug must be caught, by a check whose name says what broke.

use perene_policy::Class;
use perene_policy::planted::{Bug, plant};

use super::super::simulate;
use super::request;

/// Each bug, the weather in which it shows, and how many connections for how many days.
const SHOWS: &[(Bug, &str, usize, u32)] = &[
    (Bug::NoCompareAndSwap, "reconnect-in-call:20d", 150, 50),
    (Bug::NoJournal, "kill-before-commit", 60, 60),
    (Bug::NoIntent, "kill-in-call", 60, 60),
    (Bug::ReplayNever, "kill-before-commit", 60, 60),
    (Bug::LeaseTooShort, "slow-answers:20d", 100, 50),
    (Bug::LocalClock, "replica-clock,restart", 100, 60),
    (Bug::WindowTooNarrow, "none", 100, 40),
    (Bug::WindowTooWide, "none", 50, 30),
    (Bug::ZoneIgnored, "none", 50, 20),
    (Bug::RunLeftOut, "none", 50, 20),
    (Bug::RetriesNotRemembered, "poison-row", 50, 60),
    (Bug::RetryBeyondTheNextRun, "poison-row,server-errors", 200, 90),
    (Bug::RetryWithoutTime, "poison-row", 200, 90),
    (Bug::LostOutboxRow, "revoked", 200, 90),
    (Bug::SentNotNoted, "revoked", 200, 90),
    (Bug::RecoveredNotSent, "revoked", 200, 120),
    (Bug::WarningNotRemembered, "revoked", 200, 90),
    (Bug::WarnedTooLate, "poison-row", 200, 200),
    (Bug::FlagCleared, "revoked,not-extended", 100, 300),
    (Bug::NoBrake, "mass-refusal:12h", 1000, 60),
    (Bug::NoCircuit, "meta-outage:1d", 1000, 60),
    (Bug::CircuitNeverCloses, "meta-outage:1d", 1000, 60),
    (Bug::NoSecondLook, "revoked", 200, 90),
    (Bug::AttemptsOnRetries, "poison-row", 200, 90),
    (Bug::AttemptsNotCleared, "poison-row,server-errors", 300, 120),
    (Bug::ExpiryFromAfter, "none", 100, 40),
    (Bug::RetryAfterIgnored, "throttle-connection:20d", 300, 60),
    (Bug::ExpiredSent, "revoked,meta-outage:9d", 200, 120),
    (Bug::YoungSent, "odd-expiry:20d", 300, 60),
    (Bug::NotExtendedIsRefreshed, "not-extended", 300, 150),
    (Bug::RefusedNeverProbed, "revoked", 200, 150),
    (Bug::RowSkipped, "none", 200, 60),
    (Bug::PassStopsAtBadRow, "odd-token", 300, 120),
    (Bug::SecretInText, "echoed-token:20d", 200, 60),
    (Bug::ImplausibleStored, "malformed:20d", 300, 60),
    (Bug::RefreshTokenDropped, "none", 30, 40),
    (Bug::SweepMissing, "revoked,reconnect,poison-row,not-extended", 200, 200),
    (Bug::CommitForgotten, "none", 200, 60),
];

/// So many seeds are tried for each.
const SEEDS: u64 = 6;

/// What concerns providers of one class shows sooner where there is no other.
fn only(bug: Bug) -> Option<Class> {
    match bug {
        Bug::NoJournal | Bug::NoIntent | Bug::ReplayNever | Bug::RefreshTokenDropped => Some(Class::Strict),
        _ => None,
    }
}

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    println!("{:<26} {:<34} {:>5}  what is wrong", "bug", "caught by", "seed");
    for (bug, faults, connections, days) in SHOWS {
        plant(Some(*bug));
        let caught = (1..=SEEDS).find_map(|seed| {
            let mut request = request(*connections, *days, seed, faults);
            request.only = only(*bug);
            request.stop_at_first = true;
            let outcome = simulate(&request, None, &mut |_| {});
            outcome.violations.first().map(|broken| (broken.check, seed))
        });
        plant(None);
        let name = format!("{bug:?}");
        match caught {
            Some((check, seed)) => println!("{name:<26} {check:<34} {seed:>5}  {}", bug.text()),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn every_bug_has_its_weather_and_without_one_all_is_well_in_it() {
    for bug in Bug::ALL {
        assert!(SHOWS.iter().any(|(known, ..)| known == bug), "{bug:?}");
    }
    for (bug, faults, connections, days) in SHOWS {
        let mut request = request(*connections, *days, 1, faults);
        request.only = only(*bug);
        let outcome = simulate(&request, None, &mut |_| {});
        assert!(outcome.is_well(), "{bug:?} in {faults}: {:?} {:?}", outcome.broken, outcome.violations.first());
    }
}
