//! Outbox, inboxes and flags: one incident, one notice a channel and a step, and none of them is lost.

use jiff::{SignedDuration, Timestamp};
use perene_policy::{Memory, State};

use super::super::truth::{SECRET_MARK, TOKEN_MARK};
use super::super::world::World;
use super::STORM_MIN;
use crate::notify::{Message, MessageKind};
use crate::store::memory::Settlement;

/// The channels over which a warning goes.
const CHANNELS: [&str; 2] = ["email", "webhook"];

/// A message that was put into the outbox.
#[derive(Debug)]
pub(in super::super) struct Told {
    pub(super) number: usize,
    pub(super) incident: String,
    pub(super) step: String,
    pub(super) channel: String,
    pub(super) kind: String,
    pub(super) created_at: Timestamp,
    pub(super) delivered: Option<Timestamp>,
    pub(super) is_settled: bool,
}

const fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

impl World {
    pub(super) fn saw_message(&mut self, id: &str, now: Timestamp) {
        let Some(row) = self.store.message(id) else {
            // Whoever sent what the standby has not got notes so all the same.
            if self.observer.recalled.contains(id) {
                return;
            }
            return self.broke("notice_lost", None, now, format!("message {id} is gone"));
        };
        let is_open = row.settlement.is_none();
        let message = &row.message;
        let Some(number) = self.by_row.get(&(message.source, message.connection_id.clone())).copied() else {
            return;
        };
        if is_open {
            self.agenda.add(row.next_at.max(now), number);
            if let Some(until) = row.lease_until {
                self.agenda.add(until, number);
            }
        }
        if let Some(Settlement::Dropped(at, why)) = &row.settlement
            && why.starts_with("given up")
            && at.duration_since(message.created_at) < SignedDuration::from_hours(72)
        {
            self.broke("notice_given_up_early", Some(number), now, why.clone());
        }
        if let Some(told) = self.observer.told.get_mut(id) {
            told.is_settled = !is_open;
            return;
        }
        let step = format!("{} {}", message.kind, days_of(&message.payload).unwrap_or_default());
        let told = Told {
            number,
            incident: message.incident_id.clone(),
            step: step.clone(),
            channel: message.channel.clone(),
            kind: message.kind.clone(),
            created_at: message.created_at,
            delivered: None,
            is_settled: !is_open,
        };
        let (incident, channel, payload) = (message.incident_id.clone(), message.channel.clone(), &message.payload);
        if payload.contains(TOKEN_MARK) || payload.contains(SECRET_MARK) {
            self.broke("secret_leaked", Some(number), now, "into a message".to_owned());
        }
        self.trace.tell(now, Some(number), || format!("outbox: {channel} {step}"));
        self.observer.told.insert(id.to_owned(), told);
        if !self.observer.by_incident.entry(incident).or_default().insert((channel.clone(), step.clone())) {
            self.broke("notice_twice", Some(number), now, format!("{channel} {step}"));
        }
    }

    /// The customer is warned from this commit on: every channel must have its message.
    pub(super) fn check_new_warning(
        &mut self,
        number: usize,
        before: Option<&Memory>,
        memory: &Memory,
        now: Timestamp,
    ) {
        let warned = |memory: &Memory| memory.incident.as_ref().and_then(|incident| incident.warned_at).is_some();
        let Some(incident) = memory.incident.as_ref().filter(|_| warned(memory)) else { return };
        let is_new = !before.is_some_and(|before| {
            warned(before) && before.incident.as_ref().is_some_and(|known| known.id == incident.id)
        });
        if !is_new {
            return;
        }
        let known = self.observer.by_incident.get(&incident.id);
        let missing: Vec<&str> = CHANNELS
            .into_iter()
            .filter(|channel| !known.is_some_and(|known| known.iter().any(|(over, _)| over == channel)))
            .collect();
        if !missing.is_empty() {
            let text = format!("the outbox has none for {}", missing.join(" and "));
            self.broke("warned_without_message", Some(number), now, text);
        }
        self.check_cause(number, memory, now);
        let seen = &self.observer.seen[number];
        let left = seen.expires_at.map(|at| at.duration_since(now + self.database_ahead));
        let is_soon = left.is_some_and(|left| left < self.fleet.settings.warn_before + seconds(120));
        let is_first = matches!(memory.state, State::Failing { .. })
            && seen.attempts < self.fleet.settings.warn_after_failures
            && incident.told_days.is_none();
        if is_first && !is_soon && left.is_some() {
            let text = format!("of a failure, after {} attempts", seen.attempts);
            self.broke("warned_too_early", Some(number), now, text);
        }
        let was_held = self.was_held_within(number, SignedDuration::from_mins(3), now);
        let seen = &mut self.observer.seen[number];
        if seen.warned_at.is_none() {
            (seen.warned_at, seen.was_held) = (Some(now), was_held);
        }
        self.trace.tell(now, Some(number), || "the customer is warned".to_owned());
    }

    /// Whether what the customer is warned of is the customer's.
    fn check_cause(&mut self, number: usize, memory: &Memory, now: Timestamp) {
        let app = self.app_of(number);
        let failing = self.failing_in_storm(app, now);
        // Where the provider says that the app itself is well, many who are refused alike are believed after an hour.
        let held_for = SignedDuration::from_hours(if self.app_seems_well(app) { 1 } else { 20 });
        let is_new = self.observer.storm_since[app].is_some_and(|since| now.duration_since(since) < held_for);
        let is_well = self.accounts[number].is_well(now);
        let is_failure = matches!(memory.state, State::Failing { .. } | State::NeedsReconnect { .. });
        let began_in_storm = memory
            .incident
            .as_ref()
            .is_some_and(|incident| self.observer.storm_since[app].is_some_and(|since| incident.opened_at >= since));
        if is_new && failing >= STORM_MIN && is_well && is_failure && began_in_storm {
            let text = format!("{failing} connections of the app fail alike");
            self.broke("customer_told_of_the_apps_trouble", Some(number), now, text);
        }
    }

    /// A message has arrived.
    pub(in super::super) fn saw_delivered(&mut self, channel: &str, message: &Message, now: Timestamp) {
        if self.observer.recalled.remove(&message.id) {
            return;
        }
        let Some((number, kind)) = self.observer.told.get(&message.id).map(|told| (told.number, message.kind)) else {
            return self.broke("notice_from_nowhere", None, now, format!("{channel} {}", message.id));
        };
        self.agenda.deed(now);
        let step = message.days_left;
        self.trace.tell(now, Some(number), || format!("{channel} has got `{}`", kind.as_str()));
        let before = self.observer.told.get_mut(&message.id).and_then(|told| told.delivered.replace(now));
        let is_calm = now.duration_since(self.observer.disturbed_at) > SignedDuration::from_mins(5);
        if before.is_some_and(|before| before > self.observer.disturbed_at) && is_calm {
            self.broke("notice_delivered_twice", Some(number), now, format!("{channel} `{}`", kind.as_str()));
        }
        let asks = matches!(kind, MessageKind::Failing | MessageKind::NeedsReconnect | MessageKind::NotExtended);
        let seen = &self.observer.seen[number];
        // What the app wrote a moment ago is noticed within half a minute.
        let is_over =
            seen.is_of_app && seen.since.is_some_and(|since| message.at < since && now > since + seconds(120));
        let mails = seen.mails.clone();
        if asks && is_over && is_calm {
            self.broke("told_of_what_is_over", Some(number), now, format!("{channel} `{}`", kind.as_str()));
        }
        if channel != "email" || !asks {
            return;
        }
        let group = if kind == MessageKind::NotExtended { kind.as_str() } else { "failing or refused" };
        let mail = (group.to_owned(), step);
        let is_second = before.is_none() && mails.contains(&mail);
        if is_second {
            self.broke("mailed_twice_of_one_trouble", Some(number), now, format!("`{}`", kind.as_str()));
        }
        self.observer.seen[number].mails.push(mail);
        if !self.observer.seen[number].is_told_already {
            self.observer.day(now).mails += 1;
            self.observer.mailed.push((now, number, kind.as_str().to_owned()));
        }
        self.customer_hears(number, now);
    }

    /// The mail server refuses the address for good.
    pub(in super::super) fn saw_refused_address(&mut self, message: &Message) {
        if let Some(told) = self.observer.told.get_mut(&message.id) {
            told.is_settled = true;
        }
    }

    /// Notes because of which connections a customer's flag should be up.
    pub(super) fn note_flag(&mut self, number: usize, user: Option<String>, memory: Option<&Memory>) {
        let Some(user) = user else { return };
        let is_warned =
            memory.and_then(|memory| memory.incident.as_ref()).is_some_and(|incident| incident.warned_at.is_some());
        let because = self.observer.flagged.entry(user).or_default();
        if is_warned {
            because.insert(number);
        } else {
            because.remove(&number);
        }
    }

    pub(super) fn check_flag(&mut self, user: &str, now: Timestamp) {
        let Some(flag) = self.user_flag(user) else { return };
        let because = self.observer.flagged.get(user).and_then(|because| because.first()).copied();
        match (flag, because) {
            (false, Some(number)) => {
                let text = format!("customer {user} is warned because of it, and the flag is down");
                self.broke("flag_not_or_of_connections", Some(number), now, text);
            }
            (true, None) if !self.observer.raised_by_app.contains(user) => {
                let number = self.users.iter().position(|known| known.as_deref() == Some(user));
                let text = format!("nothing is the matter with customer {user}, and the flag is up");
                self.broke("flag_not_or_of_connections", number, now, text);
            }
            // Perene may lower a flag when one of its own incidents closes; it cannot tell the app's own reason apart.
            (false, None) => drop(self.observer.raised_by_app.remove(user)),
            _ => {}
        }
    }

    pub(super) fn user_flag(&self, user: &str) -> Option<bool> {
        self.store.user(0, user).map(|user| user.flag)
    }
}

fn days_of(payload: &str) -> Option<String> {
    let payload: serde_json::Value = serde_json::from_str(payload).ok()?;
    payload.get("days").map(ToString::to_string)
}
