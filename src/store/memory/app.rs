//! What is known of the apps at the providers, and the alarms that stand.

use perene_policy::app::{Alarm, App};

use super::State;
use crate::store::StoredAlarm;

impl State {
    pub(super) fn save_app(&mut self, name: &str, version: Option<i64>, app: &App) -> bool {
        let known = self.apps.get(name).map(|(version, _)| *version);
        if known != version {
            return false;
        }
        self.apps.insert(name.to_owned(), (version.unwrap_or(0) + 1, app.clone()));
        true
    }

    /// An alarm that stands keeps the time at which it was raised.
    pub(super) fn set_alarms(&mut self, subject: &str, alarms: &[Alarm]) -> Vec<Alarm> {
        self.alarms.retain(|(on, kind), _| on != subject || alarms.iter().any(|alarm| alarm.kind == kind));
        let mut raised = Vec::new();
        for alarm in alarms {
            let place = (subject.to_owned(), alarm.kind.to_owned());
            match self.alarms.get_mut(&place) {
                Some((_, text)) => text.clone_from(&alarm.text),
                None => {
                    self.alarms.insert(place, (alarm.since, alarm.text.clone()));
                    raised.push(alarm.clone());
                }
            }
        }
        raised
    }

    pub(super) fn standing_alarms(&self) -> Vec<StoredAlarm> {
        let stored = |((subject, kind), (since, text)): (&(String, String), &(_, String))| StoredAlarm {
            subject: subject.clone(),
            kind: kind.clone(),
            since: *since,
            text: text.clone(),
        };
        let mut standing: Vec<StoredAlarm> = self.alarms.iter().map(stored).collect();
        standing.sort_by_key(|alarm| alarm.since);
        standing
    }
}
