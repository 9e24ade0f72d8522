//! The users' flag: the OR over all of a user's connections.

use std::collections::{BTreeMap, BTreeSet};

use perene_policy::planted::{self, Bug};

use super::key::Key;
use super::table::Kept;
use super::{Change, Mapped, State, UserRow};
use crate::store::Commit;

/// One table of users.
#[derive(Debug, Clone, Default)]
pub(super) struct Users {
    pub(super) rows: BTreeMap<String, UserRow>,
    /// By user: the connections because of which the flag is up.
    flagged: BTreeMap<String, BTreeSet<(usize, Key)>>,
    /// Users whose every update fails, with the message.
    pub(super) refusals: BTreeMap<String, String>,
    /// How often Perene has written rows of this table.
    pub(super) writes: u64,
}

/// The flags that one commit changes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    users: usize,
    ids: Vec<String>,
    is_up: bool,
}

/// Which flags a commit changes. A row is written only if its flag changes.
pub(super) fn plan(state: &State, mapped: &Mapped, commit: &Commit, key: &Key) -> Plan {
    let columns = mapped.source.user.as_ref();
    let (Some(users), Some(is_up), Some(_)) =
        (mapped.users, commit.decision.flag, columns.and_then(|user| user.show_token_warning.as_ref()))
    else {
        return Plan::default();
    };
    let table = &state.users[users];
    let own = (mapped.table, key.clone());
    let keeps_it = commit.decision.memory.as_ref().is_some_and(perene_policy::Memory::is_flagged);
    let mut ids: BTreeSet<&String> = commit.connection.user_id.iter().collect();
    if !is_up {
        let before = state.tables[mapped.table].kept(key);
        ids.extend(before.filter(|before| before.memory.is_flagged()).and_then(|before| before.user_id.as_ref()));
    }
    let ids = ids.into_iter().filter(|id| {
        let is_needed = || {
            let others = table.flagged.get(*id);
            keeps_it || others.is_some_and(|others| others.iter().any(|other| *other != own))
        };
        table.rows.get(*id).is_some_and(|user| user.flag != is_up)
            && (is_up || planted::has(Bug::FlagCleared) || !is_needed())
    });
    Plan { users, ids: ids.cloned().collect(), is_up }
}

impl Plan {
    /// Why the database would refuse it.
    pub(super) fn refusal<'a>(&self, state: &'a State) -> Option<&'a String> {
        self.ids.iter().find_map(|id| state.users[self.users].refusals.get(id))
    }

    pub(super) fn carry_out(self, state: &mut State) {
        for id in &self.ids {
            let users = &mut state.users[self.users];
            if let Some(user) = users.rows.get_mut(id) {
                user.flag = self.is_up;
                users.writes += 1;
                state.changed(|| Change::User(id.clone()));
            }
        }
    }
}

impl State {
    /// Remembers or forgets a connection, and keeps up what is looked up by incident and by user.
    pub(super) fn remember(&mut self, mapped: &Mapped, key: &Key, kept: Option<Kept>) {
        let number = mapped.table;
        let raised = |kept: &Kept| Some((mapped.users?, kept.user_id.clone()?)).filter(|_| kept.memory.is_flagged());
        let (flag, incident) = (kept.as_ref().and_then(raised), kept.as_ref().and_then(incident));
        let before = self.tables[number].keep(key, kept);
        if let Some(incident) = before.as_ref().and_then(self::incident) {
            self.incidents.remove(&(incident, number, key.clone()));
        }
        self.incidents.extend(incident.map(|incident| (incident, number, key.clone())));
        if let Some((users, id)) = before.as_ref().and_then(raised)
            && let Some(because) = self.users[users].flagged.get_mut(&id)
        {
            because.remove(&(number, key.clone()));
            if because.is_empty() {
                self.users[users].flagged.remove(&id);
            }
        }
        if let Some((users, id)) = flag {
            self.users[users].flagged.entry(id).or_default().insert((number, key.clone()));
        }
    }
}

fn incident(kept: &Kept) -> Option<String> {
    kept.memory.incident.as_ref().map(|incident| incident.id.clone())
}
