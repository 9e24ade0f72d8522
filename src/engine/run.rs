//! A run: one pass over all connections that are due.

use std::collections::BTreeMap;

use jiff::Timestamp;
use perene_policy::app::Alarm;
use perene_policy::planted::{self, Bug};
use perene_policy::{Counting, Outcome};

use super::driver::Order;
use super::report::{Report, Trouble};
use super::sweep::Swept;
use super::{Engine, Stop};
use crate::store::{Claim, FindingKind, StoreError, Which};

/// Why a run is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// Its time has come.
    Scheduled,
    /// Its time came while nobody was there.
    CaughtUp,
    /// Somebody asked for it.
    ByHand,
}

impl RunKind {
    /// The name under which it is on record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::CaughtUp => "caught_up",
            Self::ByHand => "by_hand",
        }
    }
}

/// What a run is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// Why it is made.
    pub kind: RunKind,
    /// Only these connections: source and key. Empty means all.
    pub ids: Vec<(usize, String)>,
    /// Also those that are not due or that wait; with `ids` also an expired one.
    pub force: bool,
    /// No call and no change.
    pub dry_run: bool,
}

impl RunRequest {
    /// A run over all that is due.
    pub fn all(kind: RunKind) -> Self {
        Self { kind, ids: Vec::new(), force: false, dry_run: false }
    }
}

/// Why a run could not be made, or could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// What is missing is named, one line each; nothing has been called or changed.
    #[error("{}", .0.join("\n"))]
    NotReady(Vec<String>),
    /// The mapping cannot work; one line each. Nothing has been called or changed.
    #[error("{}", .0.join("\n"))]
    WrongUse(Vec<String>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RunError {
    /// Whether the same may succeed later without anybody's help.
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Store(error) if error.may_pass())
    }
}

impl Engine {
    /// Looks, before the first call, whether everything is there that a run needs.
    ///
    /// # Errors
    /// When something is missing, or the store cannot be asked.
    pub async fn check(&self) -> Result<(), RunError> {
        let findings = self.parts.store.findings().await?;
        for finding in findings.iter().filter(|finding| finding.kind == FindingKind::Advice) {
            tracing::warn!("{}", finding.text);
        }
        let texts = |wanted: &dyn Fn(FindingKind) -> bool| -> Vec<String> {
            findings.iter().filter(|finding| wanted(finding.kind)).map(|finding| finding.text.clone()).collect()
        };
        let wrong = texts(&|kind| kind == FindingKind::BadType);
        if !wrong.is_empty() {
            return Err(RunError::WrongUse(wrong));
        }
        let missing = texts(&|kind| kind != FindingKind::Advice && kind != FindingKind::BadType);
        if !missing.is_empty() {
            return Err(RunError::NotReady(missing));
        }
        Ok(())
    }

    /// Makes a run. `progress` is told the sums after each commit.
    ///
    /// # Errors
    /// When something is missing, before the first call; or when the store fails, and then what was committed
    /// stays and what was leased lapses.
    pub async fn run(
        &self,
        request: &RunRequest,
        stop: &Stop,
        progress: &(dyn Fn(&Report) + Sync),
    ) -> Result<Report, RunError> {
        let begun = self.parts.clock.monotonic();
        self.agree_on_the_time().await?;
        self.check().await?;
        let mut report = Report { dry_run: request.dry_run, ..Report::default() };
        if request.dry_run {
            self.rehearse(request, &mut report).await?;
        } else {
            self.carry_out(request, stop, &mut report, progress).await?;
        }
        let elapsed = self.parts.clock.monotonic().saturating_sub(begun);
        report.elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    /// The database's time is everybody's.
    pub(super) async fn agree_on_the_time(&self) -> Result<Timestamp, StoreError> {
        let now = self.parts.store.now().await?;
        if !planted::has(Bug::LocalClock) {
            self.parts.clock.agree_with(now);
        }
        Ok(now)
    }

    async fn carry_out(
        &self,
        request: &RunRequest,
        stop: &Stop,
        report: &mut Report,
        progress: &(dyn Fn(&Report) + Sync),
    ) -> Result<(), RunError> {
        let store = &self.parts.store;
        store.prepare().await?;
        let now = self.parts.clock.now();
        self.load_apps(request.kind == RunKind::ByHand).await?;
        self.settle_up().await?;
        self.sweep_remembered().await?.add_to(report);
        // A run over named connections is no run over all: it must not stand for one that was missed.
        let on_record = match request.ids.is_empty() {
            true => Some(store.begin_run(request.kind.name(), self.holder(), now).await?),
            false => None,
        };
        let counting = self.counting(request.kind, now);
        for (source, which, only_due) in self.selection(request) {
            let insist = request.force && !request.ids.is_empty();
            let order = Order { counting, insist, only_due, ..self.uncounted(source, which.as_which()) };
            if !stop.is_set() {
                self.pass(order, stop, report, progress).await?;
            }
        }
        // What has ended can wait for what still lives.
        self.lapses.look_again();
        let mut lapsed = Swept::default();
        if !stop.is_set() {
            self.sweep_lapsed(&mut lapsed).await?;
        }
        lapsed.add_to(report);
        self.apps.look_after(self.parts.clock.now()).await?;
        if request.ids.is_empty() && !stop.is_set() {
            self.alarm_of_rows(report).await?;
        }
        if let Some(run) = on_record.filter(|_| !stop.is_set()) {
            // Whoever has some of it in flight may be dead: should this process die too before it has made up for that, the
            // run must be found missed.
            if request.kind != RunKind::ByHand && report.leased_elsewhere > 0 {
                report.unfinished = Some(run);
            } else {
                self.finish(run, report).await?;
            }
        }
        report.was_interrupted = stop.is_set();
        Ok(())
    }

    /// Puts on record that a run is done.
    pub(super) async fn finish(&self, run: i64, report: &Report) -> Result<(), StoreError> {
        self.parts.store.finish_run(run, &report.to_json().to_string(), self.parts.clock.now()).await
    }

    /// A run by hand counts whatever fails, each that the schedule has begun the same failure once.
    pub(super) fn counting(&self, kind: RunKind, now: Timestamp) -> Counting {
        let since = self.parts.schedule.latest_until(now).filter(|_| kind != RunKind::ByHand);
        since.map_or(Counting::Each, Counting::OnceSince)
    }

    /// Rows that the provider refuses through our fault, one by one, must not stay unheard of: no hold on an app
    /// speaks for them, and no customer does.
    async fn alarm_of_rows(&self, report: &Report) -> Result<(), StoreError> {
        let refused: Vec<&Trouble> =
            report.troubles.iter().filter(|trouble| trouble.outcome == Outcome::Misconfigured).collect();
        let count = report.outcomes.get(&Outcome::Misconfigured).copied().unwrap_or(0);
        let since = self.parts.clock.now();
        // An app that is held speaks for all its connections, and so does a table.
        let is_held = self.apps.is_any_misconfigured() || self.refusals.is_any_closed();
        let alarm = match refused.first() {
            _ if count == 0 || is_held => None,
            Some(first) => Some(format!(
                "{count} connections are refused through no fault of their customers, the first of them {}:{}: {}",
                first.table, first.id, first.text
            )),
            None => Some(format!(
                "{count} connections were not sent: their app is refused by the provider, or none is configured for their \
                 kind of token"
            )),
        };
        let alarms: Vec<Alarm> =
            alarm.into_iter().map(|text| Alarm { kind: "connections_misconfigured", since, text }).collect();
        for alarm in self.parts.store.set_alarms("connections", &alarms).await? {
            tracing::error!(alarm = alarm.kind, "{}", alarm.text);
        }
        Ok(())
    }

    /// Counts what would be sent, and books it nowhere.
    async fn rehearse(&self, request: &RunRequest, report: &mut Report) -> Result<(), RunError> {
        // How long tokens live that a provider issues is remembered of its app.
        self.load_apps(false).await?;
        let now = self.parts.clock.now();
        for (source, which, only_due) in self.selection(request) {
            let claim = Claim {
                source,
                which: which.as_which(),
                grants: self.grants(source),
                holder: self.holder(),
                fence: uuid::Uuid::nil(),
                now,
                until: now,
                after: None,
                limit: 1000,
                overdue: self.overdue(source),
            };
            report.due += match &which {
                Selected::Named(_) => {
                    let rows = self.parts.store.peek(&claim).await?;
                    rows.iter().filter(|row| !only_due || self.is_due(source, row, now)).count() as u64
                }
                // Those among them that are due have been counted with the due ones; the others are few.
                Selected::All(Which::Retry) => 0,
                Selected::All(_) => self.parts.store.count(&claim).await?,
            };
        }
        Ok(())
    }

    /// The passes of which a run consists: source, rows, and whether rows that are not due are given back.
    fn selection(&self, request: &RunRequest) -> Vec<(usize, Selected, bool)> {
        if !request.ids.is_empty() {
            let mut by_source: BTreeMap<usize, Vec<String>> = BTreeMap::new();
            for (source, id) in &request.ids {
                by_source.entry(*source).or_default().push(id.clone());
            }
            return by_source.into_iter().map(|(source, ids)| (source, Selected::Named(ids), !request.force)).collect();
        }
        let sources = 0..self.parts.sources.len();
        if request.force {
            return sources.map(|source| (source, Selected::All(Which::Live), false)).collect();
        }
        sources.flat_map(|source| self.whole(source).map(|which| (source, Selected::All(which), false))).collect()
    }

    /// Reads what is known of every app. Somebody who asks by hand wants to know whether a misconfigured app
    /// is well again: it is probed at once.
    pub(super) async fn load_apps(&self, by_hand: bool) -> Result<(), StoreError> {
        for source in 0..self.parts.sources.len() {
            for grant in self.grants(source) {
                if let Some(identity) = self.provider(source).app(*grant) {
                    self.apps.load(&identity).await?;
                    if by_hand {
                        self.apps.ask_at_once(&identity.name, self.parts.clock.now());
                    }
                }
            }
        }
        Ok(())
    }
}

/// [`Which`], with the keys of its own.
enum Selected {
    All(Which<'static>),
    Named(Vec<String>),
}

impl Selected {
    fn as_which(&self) -> Which<'_> {
        match self {
            Self::All(which) => *which,
            Self::Named(ids) => Which::Named { ids },
        }
    }
}
