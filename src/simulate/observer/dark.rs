//! Who goes dark, whether it could have been helped, and whether the customer was told in time.

use jiff::{SignedDuration, Timestamp};

use super::super::world::World;

const fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

/// A provider that was well for so long at a stretch would have refreshed the token: there was a run in that time, and
/// whatever waits for tomorrow has come up.
const ENOUGH: SignedDuration = hours(30);

/// From a fact to its warning.
const WARNED_WITHIN: SignedDuration = SignedDuration::from_mins(2);

impl World {
    /// A date that stood in a row has come.
    pub(in super::super) fn check_expiry_date(&mut self, number: usize, at: Timestamp, now: Timestamp) {
        let seen = &mut self.observer.seen[number];
        if !seen.is_there || seen.expires_at != Some(at) || seen.is_dark {
            return;
        }
        seen.is_dark = true;
        self.observer.dark += 1;
        self.observer.day(now).dark += 1;
        self.observer.went_dark.push((now, number));
        self.trace.tell(now, Some(number), || "the connection is dark".to_owned());
        let was_helped = self.check_could_be_helped(number, at, now);
        self.check_was_warned(number, at, was_helped, now);
        // The customer notices by now.
        self.customer_hears(number, now);
    }

    fn check_could_be_helped(&mut self, number: usize, at: Timestamp, now: Timestamp) -> bool {
        let account = &self.accounts[number];
        let seen = &self.observer.seen[number];
        // What was spent without our hearing of it cannot be sent with success.
        let is_spent = self.is_strict(number) && seen.generation != Some(account.latest());
        if !account.is_well(now) || seen.generation.is_none() || is_spent || self.is_row_refused(number) {
            return false;
        }
        let mut from = at - self.fleet.settings.window;
        from = from.max(account.well_since()).max(seen.since.unwrap_or(from));
        let app = self.app_of(number);
        let longest = self.observer.goods[app].longest(from, at);
        let is_enough = if self.is_strict(number) && seen.in_doubt == seen.generation {
            // It is sent once more, in its last day: if it was not, with all that day to do so, something failed.
            let day = at - hours(24);
            let was_sent = seen.last_call_at.max(seen.last_intent_at).is_some_and(|sent| sent > day - hours(1));
            !was_sent && self.observer.goods[app].longest(day, at) >= hours(20)
        } else {
            longest >= ENOUGH
        };
        if !is_enough {
            return false;
        }
        self.observer.dark_though_refreshable += 1;
        let text = format!("its provider would have refreshed it for {} hours at a stretch", longest.as_hours());
        self.broke("dark_though_refreshable", Some(number), now, text);
        true
    }

    fn check_was_warned(&mut self, number: usize, at: Timestamp, could_be_helped: bool, now: Timestamp) {
        let settings = self.fleet.settings;
        let seen = &self.observer.seen[number];
        // The earliest instant at which it could be known that this one needs its customer.
        let fact = seen.trouble_since.unwrap_or(at);
        let latest = (at - settings.warn_before).max(fact) + WARNED_WITHIN;
        let app = self.app_of(number);
        let good = &self.observer.goods[app];
        let was_in_time = seen.warned_at.is_some_and(|warned| warned <= latest);
        // While its app is held no customer is told anything: a day at most.
        let waited_for_a_hold = seen.was_held && seen.warned_at.is_some_and(|warned| warned <= latest + hours(25));
        if was_in_time || waited_for_a_hold {
            return;
        }
        // Nobody could do it sooner: it was done as soon as there was somebody again.
        let at_once = |warned: Timestamp| good.longest(latest.min(warned), warned) < SignedDuration::from_mins(10);
        if seen.warned_at.is_some_and(at_once) {
            return;
        }
        // What kept Perene from its work, or the app from being believed, is forgiven as long as it lasted and a day
        // more: so long does a brake hold.
        let was_free = good.longest(latest.min(at) - hours(25), at.min(latest + hours(1)));
        let had_time = good.longest(latest.min(at), at) >= hours(26);
        if was_free < hours(25) && !had_time {
            return;
        }
        // It was never sent: that its provider is out of reach is foreseen when it has been for a day, and not while the
        // app itself is refused, of which no customer hears.
        if seen.trouble_since.is_none() && !could_be_helped {
            return;
        }
        if !seen.is_there || self.is_row_refused(number) || seen.generation.is_none() {
            return;
        }
        self.observer.dark_without_warning += 1;
        let text = match seen.warned_at {
            Some(warned) => format!("warned at {warned}, and the trouble was known at {fact}"),
            None => format!("never warned, and the trouble was known at {fact}"),
        };
        self.broke("dark_without_warning", Some(number), now, text);
    }
}
