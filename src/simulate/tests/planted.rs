//! A proof that cannot fail is none: each planted bug must be caught, by a check whose name says what broke.

use perene_policy::Class;
use perene_policy::planted::{Bug, plant};

use super::super::simulate;
use super::request;

/// So many that each replica meets one in a run.
const ODD_TOKENS: &str = "odd-token@day3,odd-token@day3,odd-token@day3,odd-token@day3,odd-token@day3,odd-token@day3,\
                          odd-token@day9,odd-token@day9,odd-token@day9,odd-token@day9,odd-token@day9,odd-token@day9";

macro_rules! poison {
    () => {
        "poison-row@day0,poison-row@day0,poison-row@day0,poison-row@day0,poison-row@day0"
    };
}

/// Each bug, the weather in which it shows, and how many connections for how many days.
const SHOWS: &[(Bug, &str, usize, u32)] = &[
    (Bug::NoCompareAndSwap, "reconnect-in-call:30d@day0", 150, 50),
    (Bug::NoJournal, "kill-before-commit", 60, 60),
    (Bug::NoIntent, "kill-in-call", 60, 60),
    (Bug::ReplayNever, "kill-before-commit", 60, 60),
    (Bug::LeaseTooShort, "slow-answers:20d", 100, 50),
    (Bug::LocalClock, "replica-clock,replica-clock,replica-clock", 60, 40),
    (Bug::WindowTooNarrow, "none", 100, 40),
    (Bug::WindowTooWide, "none", 50, 30),
    (Bug::ZoneIgnored, "none", 50, 20),
    (Bug::RunLeftOut, "none", 50, 20),
    (Bug::RetriesNotRemembered, "poison-row,poison-row", 50, 60),
    (Bug::RetryBeyondTheNextRun, POISON, 100, 20),
    (Bug::RetryWithoutTime, POISON, 100, 20),
    (Bug::LostOutboxRow, "revoked,revoked", 60, 90),
    (Bug::SentNotNoted, "revoked,revoked", 60, 90),
    (Bug::RecoveredNotSent, "revoked,revoked", 60, 90),
    (Bug::WarningNotRemembered, "revoked,revoked", 60, 90),
    (Bug::WarnedTooLate, POISON, 100, 20),
    (Bug::FlagCleared, "revoked,not-extended", 60, 200),
    (Bug::NoBrake, "mass-refusal:12h@day0", 500, 10),
    (Bug::NoCircuit, "meta-outage:10h@day0", 600, 4),
    (Bug::CircuitNeverCloses, "meta-outage:6h@day0", 200, 20),
    (Bug::NoSecondLook, "revoked,revoked", 60, 90),
    (Bug::AttemptsOnRetries, POISON, 100, 20),
    (Bug::AttemptsNotCleared, "server-errors:20d@day0", 200, 40),
    (Bug::ExpiryFromAfter, "none", 100, 40),
    (Bug::RetryAfterIgnored, "throttle-connection:10d@day0", 200, 20),
    (Bug::ExpiredSent, "revoked,revoked,revoked", 100, 90),
    (Bug::YoungSent, "odd-expiry:10d@day0", 200, 30),
    (Bug::NotExtendedIsRefreshed, "not-extended,not-extended,not-extended", 60, 120),
    (Bug::RefusedNeverProbed, "revoked,revoked,revoked", 60, 120),
    (Bug::RowSkipped, "none", 60, 40),
    (Bug::PassStopsAtBadRow, ODD_TOKENS, 300, 30),
    (Bug::SecretInText, "echoed-token:10d@day0", 100, 20),
    (Bug::ImplausibleStored, "malformed:10d@day0", 100, 20),
    (Bug::RefreshTokenDropped, "none", 30, 40),
    (Bug::SweepMissing, "revoked,revoked,reconnect,reconnect,not-extended", 60, 150),
    (Bug::LapseUnseen, "host-off:12d@day0", 200, 30),
    (Bug::CommitForgotten, "none", 100, 40),
    (Bug::ExpiryNotStored, "none", 100, 20),
    (Bug::LeaseKept, ODD_TOKENS, 100, 40),
    (Bug::SpentNotPutAgain, FAILOVERS, 200, 40),
];

/// Answers that leave open whether a token is spent, and standbys that do not know that it was sent.
const FAILOVERS: &str = "no-token:30d@day0,no-token:30d@day0,no-token:30d@day0,no-token:30d@day0,failover,failover,failover,failover,failover,failover,failover,failover";

/// Twenty connections whose answers are all 500 from the first day on.
const POISON: &str = concat!(poison!(), ",", poison!(), ",", poison!(), ",", poison!());

/// So many seeds are tried for each.
const SEEDS: u64 = 6;

/// What concerns providers of one class shows sooner where there is no other.
fn only(bug: Bug) -> Option<Class> {
    match bug {
        Bug::NoJournal | Bug::NoIntent | Bug::ReplayNever | Bug::RefreshTokenDropped | Bug::SpentNotPutAgain => {
            Some(Class::Strict)
        }
        Bug::NoBrake
        | Bug::NoCircuit
        | Bug::RetryAfterIgnored
        | Bug::YoungSent
        | Bug::NotExtendedIsRefreshed
        | Bug::LapseUnseen => Some(Class::Extend),
        _ => None,
    }
}

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    println!("{:<26} {:<34} {:>5}  what is wrong", "bug", "caught by", "seed");
    let wanted = std::env::var("PERENE_PLANTED").unwrap_or_default();
    for (bug, faults, connections, days) in SHOWS {
        if !wanted.is_empty() && !wanted.split(',').any(|name| name == format!("{bug:?}")) {
            continue;
        }
        plant(Some(*bug));
        let caught = (1..=SEEDS).find_map(|seed| {
            let mut request = request(*connections, *days, seed, faults);
            request.only = only(*bug);
            request.stop_at_first = true;
            let outcome = simulate(&request, None, &mut |_| {});
            if outcome.is_well() && !wanted.is_empty() {
                let calls: u64 = outcome.days.iter().map(|day| day.calls).sum();
                println!(
                    "{bug:?}, seed {seed}: not caught; {} looks, {calls} calls, {:?}",
                    outcome.looks, outcome.faults
                );
            }
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
