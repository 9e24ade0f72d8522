//! What is known of the apps, shared by all replicas through the database.
//!
//! A replica learns from each answer at once and saves after each page. Two replicas that save at the same
//! time do not overwrite each other: the later one reads what the earlier one saved and learns its own
//! sightings once more on top.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use perene_policy::answer::Usage;
use perene_policy::app::{Alarm, App, CIRCUIT_CONNECTIONS, Hold, HoldKind, Permission, Sighting};
use perene_policy::{Outcome, Secret};

use crate::provider::AppIdentity;
use crate::store::{Cursor, Store, StoreError};

/// How often a save is tried anew when other replicas are faster. What is not saved then is saved with the next page.
const SAVES_MAX: usize = 8;

pub(crate) struct Apps {
    store: Arc<dyn Store>,
    known: Mutex<BTreeMap<String, Known>>,
}

struct Known {
    identity: Arc<AppIdentity>,
    version: Option<i64>,
    /// As it is in the database, in that version.
    stored: App,
    app: App,
    /// Learnt since the last save.
    unsaved: Vec<(News, Timestamp)>,
    /// Holds that have ended in this process, with the outcome that they held: what was concluded while one
    /// was on is not believed afterwards either.
    ended: Vec<(Outcome, Timestamp)>,
    /// A brake was put on here, and the app was not asked yet whether it is well.
    has_new_brake: bool,
    /// Connections whose last answer was of no use, since the last one that was. When so many look like an
    /// outage, no new ones are begun until those have made their further tries: either one of them is
    /// answered, or the circuit opens.
    suspects: BTreeSet<String>,
    /// The row with which the app was last probed: the next probe is made with the one behind it.
    last_probed: Option<Cursor>,
    /// The alarms as they were last set; `None` before the first time.
    alarmed: Option<Vec<Alarm>>,
}

/// What is learnt here of an app, and learnt once more on top of what another replica has saved meanwhile.
enum News {
    Seen(Sighting),
    Used(Usage),
    Probed(bool),
    PutOff,
    /// What had been put off so many times has been sent.
    Sent(u64),
    AskedByHand,
}

impl Apps {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, known: Mutex::new(BTreeMap::new()) }
    }

    /// Reads what is known of an app. When its id, secret or host has changed, what was known is forgotten.
    pub(crate) async fn load(&self, identity: &Arc<AppIdentity>) -> Result<(), StoreError> {
        let found = self.store.app(&identity.name).await?;
        let version = found.as_ref().map(|(version, _)| *version);
        let stored = found.map_or_else(|| App::new(identity.credentials.clone()), |(_, app)| app);
        let is_news = |known: &Known| {
            (known.version, &known.stored) != (version, &stored) || known.identity.credentials != identity.credentials
        };
        if let Some(known) = self.lock().get_mut(&identity.name).filter(|known| !is_news(known)) {
            known.identity = Arc::clone(identity);
            return Ok(());
        }
        let mut app = stored.clone();
        if app.credentials != identity.credentials {
            tracing::info!(app = identity.name, "id, secret or host has changed: what was known of it is forgotten");
            app = app.forgotten(identity.credentials.clone());
        }
        let mut all = self.lock();
        let Some(known) = all.get_mut(&identity.name) else {
            let fresh = Known {
                identity: Arc::clone(identity),
                version,
                stored,
                app,
                unsaved: Vec::new(),
                ended: Vec::new(),
                has_new_brake: false,
                suspects: BTreeSet::new(),
                last_probed: None,
                alarmed: None,
            };
            all.insert(identity.name.clone(), fresh);
            return Ok(());
        };
        (known.identity, known.version, known.stored, known.app) = (Arc::clone(identity), version, stored, app);
        let unsaved = std::mem::take(&mut known.unsaved);
        let last = unsaved.last().map(|(_, at)| *at);
        for (news, at) in unsaved {
            known.learn(news, at);
        }
        if let Some(at) = last {
            // What was judged here of these sightings was judged of a state that another replica has replaced: were it
            // left at that, a brake would be off again while both have reason for it.
            known.judge(at);
        }
        Ok(())
    }

    pub(crate) fn permission(&self, name: &str, now: Timestamp) -> Permission {
        self.lock().get(name).map_or(Permission::Go(jiff::SignedDuration::ZERO), |known| known.app.permission(now))
    }

    /// Whether so many answers in a row were of no use that no new connection should be begun just now.
    pub(crate) fn is_suspicious(&self, name: &str) -> bool {
        self.lock().get(name).is_some_and(|known| known.suspects.len() >= CIRCUIT_CONNECTIONS)
    }

    /// Notes one answer, before it is known what the connection's calls come to.
    pub(crate) fn glance(&self, name: &str, connection: &str, is_transient: bool, is_first: bool) {
        if let Some(known) = self.lock().get_mut(name) {
            if !is_transient {
                known.suspects.clear();
            } else if is_first {
                known.suspects.insert(connection.to_owned());
            }
        }
    }

    /// Notes how full the limits are, before it is known what the answer comes to.
    pub(crate) fn read_usage(&self, name: &str, usage: &Usage, now: Timestamp) {
        if *usage != Usage::default() {
            self.hear(name, News::Used(*usage), now);
        }
    }

    pub(crate) fn learn(&self, name: &str, sighting: Sighting, now: Timestamp) {
        self.hear(name, News::Seen(sighting), now);
    }

    /// Whether an app is held because the provider refuses the app itself.
    pub(crate) fn is_any_misconfigured(&self) -> bool {
        let is_refused =
            |known: &Known| known.app.hold.as_ref().is_some_and(|hold| hold.kind == HoldKind::Misconfigured);
        self.lock().values().any(is_refused)
    }

    /// Whether no connection of the app has been answered since this one failed first.
    pub(crate) fn is_suspect(&self, name: &str, connection: &str) -> bool {
        self.lock().get(name).is_some_and(|known| known.suspects.contains(connection))
    }

    pub(crate) fn leave_backlog(&self, name: &str, now: Timestamp) {
        self.hear(name, News::PutOff, now);
    }

    /// What was put off is about to be sent. It stays on record until that is done: this process may die over it. Returns
    /// with what to say then that it is.
    pub(crate) fn begin_backlog(&self, name: &str) -> u64 {
        self.lock().get(name).map_or(0, |known| known.app.times_put_off)
    }

    /// What was put off when it was begun to be sent has been sent. What this replica or another has put off meanwhile
    /// has not.
    pub(crate) fn end_backlog(&self, name: &str, begun: u64, now: Timestamp) {
        self.hear(name, News::Sent(begun), now);
    }

    pub(crate) fn has_backlog(&self, name: &str) -> bool {
        self.lock().get(name).is_some_and(|known| known.app.has_backlog)
    }

    /// How long the tokens live that the app issues, as it was last told.
    pub(crate) fn life(&self, name: &str) -> Option<jiff::SignedDuration> {
        self.lock().get(name).and_then(|known| known.app.life)
    }

    pub(crate) fn last_probed(&self, name: &str) -> Option<Cursor> {
        self.lock().get(name).and_then(|known| known.last_probed.clone())
    }

    pub(crate) fn set_last_probed(&self, name: &str, row: Option<Cursor>) {
        if let Some(known) = self.lock().get_mut(name) {
            known.last_probed = row;
        }
    }

    pub(crate) fn is_braked(&self, name: &str) -> bool {
        self.lock().get(name).is_some_and(|known| known.app.is_braked())
    }

    /// Somebody asks by hand, and wants to know whether a misconfigured app is well again.
    pub(crate) fn ask_at_once(&self, name: &str, now: Timestamp) {
        self.hear(name, News::AskedByHand, now);
    }

    pub(crate) fn probed(&self, name: &str, is_well: bool, now: Timestamp) {
        self.hear(name, News::Probed(is_well), now);
    }

    /// Takes the one probe that is allowed, for all replicas: `false` when another was first.
    pub(crate) async fn take_probe(&self, name: &str, now: Timestamp) -> Result<bool, StoreError> {
        let take = |app: &mut App| {
            app.take_probe(now);
            true
        };
        self.take(name, take).await
    }

    /// Takes the turn at which what a brake holds is sent again, for all replicas: `false` when it is not time, or another
    /// was first.
    pub(crate) async fn take_turn(&self, name: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.take(name, |app| app.take_turn(now)).await
    }

    /// Takes something that only one replica may have. It is known here only when it is saved: a database that takes
    /// nothing must not use it up.
    async fn take(&self, name: &str, take: impl Fn(&mut App) -> bool) -> Result<bool, StoreError> {
        let Some((version, mut app, learnt)) = self.lock().get(name).map(Known::to_save) else { return Ok(false) };
        if !take(&mut app) {
            return Ok(false);
        }
        let is_saved = self.store.save_app(name, version, &app).await?;
        if !is_saved {
            self.reload(name).await?;
        } else if let Some(known) = self.lock().get_mut(name) {
            take(&mut known.app);
            known.saved(version, app, learnt);
        }
        Ok(is_saved)
    }

    /// Looks at a page's outcomes together: puts brakes on and lets them go.
    pub(crate) fn judge(&self, name: &str, now: Timestamp) {
        if let Some(known) = self.lock().get_mut(name) {
            known.judge(now);
        }
    }

    /// Whether a brake was put on here since this was asked last: then the app itself should be probed.
    pub(crate) fn take_new_brake(&self, name: &str) -> bool {
        self.lock().get_mut(name).is_some_and(|known| std::mem::take(&mut known.has_new_brake))
    }

    /// Whether the brake is on because of refusals.
    pub(crate) fn holds_refusals(&self, name: &str) -> bool {
        self.lock().get(name).is_some_and(|known| known.app.disbelieves(Outcome::NeedsReconnect))
    }

    /// Whether `outcome` is not to be believed: held now, or at some time since `since`.
    pub(crate) fn disbelieves(&self, name: &str, outcome: Outcome, since: Timestamp) -> bool {
        self.lock().get(name).is_some_and(|known| {
            known.app.disbelieves(outcome) || known.ended.iter().any(|(held, at)| *held == outcome && *at >= since)
        })
    }

    pub(crate) fn holds_notices(&self, name: &str, now: Timestamp) -> bool {
        self.lock().get(name).is_some_and(|known| known.app.holds_notices(now))
    }

    /// Whether nothing holds or limits the app, and nothing of it was put off.
    pub(crate) fn is_free(&self, name: &str, now: Timestamp) -> bool {
        self.lock().get(name).is_none_or(|known| {
            let app = &known.app;
            app.hold.is_none() && !app.has_backlog && matches!(app.permission(now), Permission::Go(_))
        })
    }

    pub(crate) fn is_out_of_reach(&self, name: &str, now: Timestamp) -> bool {
        self.lock().get(name).is_some_and(|known| known.app.is_out_of_reach(now))
    }

    /// What must not stand in any text: the secrets of all apps, whichever was called.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        self.lock().values().flat_map(|known| known.identity.secrets.iter().cloned()).collect()
    }

    /// Saves what has changed.
    pub(crate) async fn save(&self) -> Result<(), StoreError> {
        let names: Vec<String> = self.lock().keys().cloned().collect();
        for name in names {
            for _ in 0..SAVES_MAX {
                let changed = self.lock().get_mut(&name).and_then(Known::changed);
                let Some((version, app, learnt)) = changed else { break };
                if self.store.save_app(&name, version, &app).await? {
                    if let Some(known) = self.lock().get_mut(&name) {
                        known.saved(version, app, learnt);
                    }
                    break;
                }
                self.reload(&name).await?;
            }
        }
        Ok(())
    }

    /// Looks at every app: lets brakes go whose time has come, saves what has changed, and raises and clears
    /// alarms, also those that end by the passing of time alone.
    pub(crate) async fn look_after(&self, now: Timestamp) -> Result<(), StoreError> {
        let names: Vec<String> = self.lock().keys().cloned().collect();
        for name in &names {
            self.judge(name, now);
        }
        self.save().await?;
        for name in names {
            let news = |known: &Known| {
                Some(known.app.alarms(&name, now)).filter(|alarms| known.alarmed.as_ref() != Some(alarms))
            };
            let Some(alarms) = self.lock().get(&name).and_then(news) else { continue };
            for alarm in self.store.set_alarms(&name, &alarms).await? {
                tracing::error!(alarm = alarm.kind, "{}", alarm.text);
            }
            if let Some(known) = self.lock().get_mut(&name) {
                known.alarmed = Some(alarms);
            }
        }
        Ok(())
    }

    /// Another replica has saved meanwhile: what is known here is learnt once more on top of that.
    async fn reload(&self, name: &str) -> Result<(), StoreError> {
        let identity = self.lock().get(name).map(|known| Arc::clone(&known.identity));
        match identity {
            Some(identity) => self.load(&identity).await,
            None => Ok(()),
        }
    }

    fn hear(&self, name: &str, news: News, now: Timestamp) {
        if let Some(known) = self.lock().get_mut(name) {
            known.learn(news, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn learn(&mut self, news: News, now: Timestamp) {
        let before = self.app.hold.clone();
        match &news {
            News::Seen(sighting) => self.app.learn(sighting, now),
            News::Used(usage) => self.app.read_usage(usage, now),
            News::Probed(is_well) => self.app.probed(*is_well, now),
            News::PutOff => self.app.leave_backlog(),
            News::Sent(times) => self.app.end_backlog(*times),
            News::AskedByHand => self.app.ask_at_once(now),
        }
        self.note_end(before.as_ref(), now);
        self.unsaved.push((news, now));
    }

    fn judge(&mut self, now: Timestamp) {
        let before = self.app.hold.clone();
        self.app.judge(now);
        self.has_new_brake |= before.is_none() && self.app.is_braked();
        self.note_end(before.as_ref(), now);
    }

    /// What there is to save, if there is anything: over which version, and how much of what was learnt is in it.
    fn changed(&mut self) -> Option<(Option<i64>, App, usize)> {
        if self.app == self.stored {
            self.unsaved.clear();
            return None;
        }
        Some(self.to_save())
    }

    fn to_save(&self) -> (Option<i64>, App, usize) {
        (self.version, self.app.clone(), self.unsaved.len())
    }

    fn saved(&mut self, version: Option<i64>, app: App, learnt: usize) {
        self.version = Some(version.map_or(1, |version| version + 1));
        self.stored = app;
        self.unsaved.drain(..learnt.min(self.unsaved.len()));
    }

    fn note_end(&mut self, before: Option<&Hold>, now: Timestamp) {
        if let Some(ended) = before.filter(|_| self.app.hold.is_none()) {
            self.ended.retain(|(_, at)| now.duration_since(*at) < jiff::SignedDuration::from_hours(1));
            self.ended.push((ended.outcome, now));
        }
    }
}
