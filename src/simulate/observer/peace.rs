//! Whether all is well again, without anybody's help, some time after the faults have ended.

use jiff::{SignedDuration, Timestamp};
use perene_policy::{Grant, State};

use super::super::truth::Standing;
use super::super::world::World;

const fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

/// So long after the last fault all must be well: a brake may hold for a day, a retry may wait for half of one, what is
/// looked at daily comes up within a day and a half.
pub(in super::super) const BOUND: SignedDuration = hours(96);

impl World {
    /// Looks at everything, at the end.
    pub(in super::super) fn check_peace(&mut self, now: Timestamp) {
        for number in 0..self.accounts.len() {
            self.check_is_well(number, now);
        }
        self.check_outbox(now);
        let alarms = self.store.standing_alarms();
        let refused = !self.refused_rows.is_empty();
        for alarm in alarms.into_iter().filter(|_| !refused) {
            if now.duration_since(alarm.since) > BOUND && alarm.kind != "connections_misconfigured" {
                self.broke("alarm_stays", None, now, format!("{} since {}", alarm.kind, alarm.since));
            }
        }
        let users: Vec<String> = self.observer.flagged.keys().cloned().collect();
        for user in users {
            self.check_flag(&user, now);
        }
        self.check_generations(now);
    }

    fn check_is_well(&mut self, number: usize, now: Timestamp) {
        let seen = &self.observer.seen[number];
        let is_live = seen.is_there && seen.generation.is_some();
        let outlives_its_expiry = self.accounts[number].grant == Grant::Oauth2;
        if is_live && seen.is_dark && seen.warned_at.is_none() && !outlives_its_expiry && !self.is_row_refused(number) {
            let text = "its token has expired, and the customer was never told".to_owned();
            self.broke("dark_unheard_of", Some(number), now, text);
            return;
        }
        let Some(expires_at) = seen.expires_at.filter(|at| is_live && *at > now) else { return };
        let account = &self.accounts[number];
        if account.standing == Standing::Refused {
            // Rightly warned, if Perene has met the refusal.
            let has_met = seen.trouble_since.is_some_and(|since| now.duration_since(since) > hours(26));
            if has_met && seen.warned_at.is_none() {
                self.broke(
                    "not_warned_in_peace",
                    Some(number),
                    now,
                    "refused, and the customer was not told".to_owned(),
                );
            }
            return;
        }
        let well_for = now.duration_since(account.well_since().max(seen.since.unwrap_or(now)));
        let is_due = expires_at.duration_since(now) < self.fleet.settings.window - hours(30);
        let is_uncertain = seen.memory.as_ref().is_some_and(|memory| matches!(memory.state, State::Uncertain { .. }));
        if account.is_well(now) && is_due && well_for > hours(40) && !is_uncertain {
            let text = format!("the faults are over, and it still expires at {expires_at}");
            self.broke("not_well_in_peace", Some(number), now, text);
        }
    }

    fn check_outbox(&mut self, now: Timestamp) {
        let open: Vec<(usize, String)> = self
            .observer
            .told
            .values()
            .filter(|told| !told.is_settled && now.duration_since(told.created_at) > hours(80))
            .map(|told| (told.number, format!("{} `{}` of {}", told.channel, told.kind, told.created_at)))
            .collect();
        for (number, text) in open {
            self.broke("notice_lost", Some(number), now, format!("{text} is still in the outbox"));
        }
    }
}

impl World {
    /// A standby has taken over: generations that the database held must be in a journal now.
    pub(in super::super) fn expect_back(&mut self, number: usize, before: Option<usize>, now: Timestamp) {
        let seen = &self.observer.seen[number];
        let Some((held, before)) = seen.generation.filter(|_| seen.is_there).zip(before) else { return };
        let account = &self.accounts[number];
        // A provider that extends takes the older token as well: nothing is lost with the newer one.
        if held < before && account.class != perene_policy::Class::Extend && !account.generations[before].is_of_login {
            self.observer.unsettled.insert((number, before), (held, now));
        }
    }

    /// Messages that the standby has never got are as if they had not been.
    pub(in super::super) fn recall_messages(&mut self) {
        let ids: Vec<String> = self.observer.told.keys().cloned().collect();
        for id in ids {
            match self.store.message(&id) {
                Some(row) => {
                    if let Some(told) = self.observer.told.get_mut(&id) {
                        told.is_settled = row.settlement.is_some();
                    }
                }
                None => {
                    let Some(told) = self.observer.told.get(&id) else { continue };
                    // Settled messages are removed when they are old; these are new.
                    let number = told.number;
                    if told.is_settled && self.observer.lost_since.is_some_and(|since| told.created_at < since) {
                        continue;
                    }
                    // What the standby never got may be put there once more, also where it knows others of the incident.
                    self.observer.recalled.insert(id.clone());
                    if let Some(told) = self.observer.told.remove(&id)
                        && let Some(steps) = self.observer.by_incident.get_mut(&told.incident)
                    {
                        steps.remove(&(told.channel, told.step));
                    }
                    self.observer.seen[number].mails.clear();
                }
            }
        }
        let mut known: std::collections::BTreeSet<String> = self.store.incidents_told();
        // What is old was removed, and was told all the same.
        known.extend(self.observer.told.values().map(|told| told.incident.clone()));
        self.observer.by_incident.retain(|incident, _| known.contains(incident));
    }
}
