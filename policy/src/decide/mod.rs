//! What follows from a conclusion: what is written, what is remembered, who is told. Plain data.

mod lapse;

use jiff::{SignedDuration, Timestamp};

use crate::backoff::{self, later};
use crate::connection::{Connection, Incident, Memory, State, generation};
use crate::due::{self, within};
use crate::exchange::Conclusion;
use crate::outcome::{Counted, Outcome};
use crate::planted::{self, Bug};
use crate::redact;
use crate::secret::{Fingerprint, Secret};
use crate::settings::Settings;
use crate::warning;

pub use lapse::lapse;

/// How long after a refresh the end of data access is asked for.
/// <https://developers.facebook.com/docs/facebook-login/auth-vs-data>
pub const INSPECT_AFTER: SignedDuration = SignedDuration::from_hours(12);

/// A connection that came up for another try while the circuit or the brake holds comes up again after this time, or a
/// quarter of what is left of its life.
pub const HELD_AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// Why a token is in no doubt at all, and yet not to be sent: what came for it waits in a journal.
const ANSWER_KEPT: &str = "answer_kept";

/// With which step of the series a last try goes on that did not get through: an hour, or a quarter of what is left.
const LAST_TRY_STEP: u32 = 3;

/// What surrounds a decision.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The present instant, by the database's clock.
    pub now: Timestamp,
    /// What the operator has set.
    pub settings: Settings,
    /// Whether a failure adds to `refresh_attempts`.
    pub counting: Counting,
    /// The start of the next scheduled run: no retry time lies beyond it, so that each run finds, and
    /// counts, every connection that still fails.
    pub next_run_at: Option<Timestamp>,
    /// When something that is looked at daily comes up next.
    pub tomorrow: Timestamp,
    /// The app is held by its circuit or its brake: a failure is not believed.
    pub is_held: bool,
    /// What must not stand in a text: the app's secret, for one. The connection's own tokens are added.
    pub secrets: &'a [Secret],
}

/// Whether a failure adds to `refresh_attempts`: only in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// Not in this pass, which is between two runs.
    Never,
    /// Each failure.
    Each,
    /// Unless one of the same generation was counted at or after this instant, which is the run's time: of several
    /// replicas each makes the run, and what fails in one's part may come up again in another's.
    OnceSince(Timestamp),
}

impl Counting {
    /// Whether this pass is a run.
    pub fn is_of_run(self) -> bool {
        self != Self::Never
    }

    fn takes(self, counted_at: Option<Timestamp>) -> bool {
        match self {
            Self::Never => false,
            Self::Each => true,
            Self::OnceSince(since) => counted_at.is_none_or(|at| at < since),
        }
    }
}

/// What is to be done about one connection. Carried out by the store in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What became of it.
    pub outcome: Outcome,
    /// In which sum it is counted; `None` for a row that was only inspected.
    pub counted: Option<Counted>,
    /// What is written into the app's row.
    pub write: Option<RowWrite>,
    /// What is remembered from now on; `None` forgets.
    pub memory: Option<Memory>,
    /// What goes into the history, oldest first.
    pub events: Vec<Event>,
    /// Who is told what.
    pub notices: Vec<Notice>,
    /// `Some(true)` raises the user's flag; `Some(false)` lowers it unless another connection of that user
    /// still needs it.
    pub flag: Option<bool>,
    /// The customer is warned by this.
    pub warns: bool,
    /// An incident is closed by this.
    pub recovers: bool,
}

/// What is written into the app's row, by compare-and-swap on the token that it held.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowWrite {
    /// The token that was issued.
    pub token: Option<Secret>,
    /// The refresh token that was issued with it.
    pub refresh_token: Option<Secret>,
    /// The new expiry.
    pub expires_at: Option<Timestamp>,
    /// When it was refreshed.
    pub refreshed_at: Option<Timestamp>,
    /// What becomes of `refresh_attempts`.
    pub attempts: Attempts,
    /// What becomes of `last_refresh_error`.
    pub error: ErrorText,
}

/// What becomes of `refresh_attempts`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Attempts {
    /// It stays.
    #[default]
    Keep,
    /// It goes to 0.
    Zero,
    /// It grows by 1; NULL counts as 0.
    AddOne,
}

/// What becomes of `last_refresh_error`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ErrorText {
    /// It stays.
    #[default]
    Keep,
    /// It goes to NULL.
    Clear,
    /// It becomes this text: redacted, without control characters, at most 240 characters.
    Set(String),
}

/// One line of a connection's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The outcome that it rests on.
    pub outcome: Option<Outcome>,
    /// In a few words; holds no secret.
    pub text: String,
}

/// What happened to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A try was concluded.
    Tried,
    /// Its expiry was asked for, and nothing was sent.
    Inspected,
    /// The first failure opened an incident.
    IncidentOpened,
    /// The customer was warned.
    Warned,
    /// The customer was told how many days are left.
    Told,
    /// The incident was closed.
    Recovered,
    /// The app put another token there.
    Replaced,
    /// The token has expired.
    Dark,
    /// The app's row is gone.
    Vanished,
    /// A token whose answer was lost is sent once more, for the last time.
    LastTry,
}

impl EventKind {
    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tried => "tried",
            Self::Inspected => "inspected",
            Self::IncidentOpened => "incident_opened",
            Self::Warned => "warned",
            Self::Told => "told",
            Self::Recovered => "recovered",
            Self::Replaced => "replaced",
            Self::Dark => "dark",
            Self::Vanished => "vanished",
            Self::LastTry => "last_try",
        }
    }
}

/// One message about an incident. The channels make mail and webhooks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The incident that it is about.
    pub incident_id: String,
    /// What it says.
    pub kind: NoticeKind,
    /// Why, as a fixed word: the outcome.
    pub reason: Outcome,
    /// The step of 14, 7 and 3 days ahead.
    pub days: Option<u8>,
    /// When the token expires.
    pub expires_at: Option<Timestamp>,
}

/// What a notice says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// Refreshing it has failed so often, or so late, that the customer should reconnect.
    Failing,
    /// The provider has refused it: the customer must reconnect.
    NeedsReconnect,
    /// It ends in so many days, and only the customer's login renews it.
    NotExtended,
    /// It has expired.
    Dark,
    /// All is well again.
    Recovered,
}

impl NoticeKind {
    /// The name under which it is stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::NeedsReconnect => "needs_reconnect",
            Self::NotExtended => "not_extended",
            Self::Dark => "dark",
            Self::Recovered => "recovered",
        }
    }

    /// Whether the customer gets an e-mail of it; a webhook is sent of each.
    pub const fn is_for_the_customer(self) -> bool {
        matches!(self, Self::Failing | Self::NeedsReconnect | Self::NotExtended)
    }
}

/// What follows from what the calls for one connection came to.
pub fn decide(connection: &Connection, conclusion: &Conclusion, context: &Context<'_>) -> Decision {
    if conclusion.is_kept_back {
        return kept_back(connection, conclusion, context);
    }
    let ended = ended_by_last_try(conclusion);
    let conclusion = ended.as_ref().unwrap_or(conclusion);
    let is_failure = conclusion.outcome.counted() == Counted::Failed;
    // What may be spent is remembered as such, whoever else is in trouble at the same time.
    if context.is_held && is_failure && conclusion.token.is_none() && !conclusion.is_uncertain {
        if conclusion.sends_once && conclusion.was_sent && conclusion.outcome == Outcome::NeedsReconnect {
            // Of a last try there is no other.
            return match conclusion.was_last_try {
                true => failed(connection, conclusion, context),
                false => failed(connection, &doubted(conclusion), context),
            };
        }
        return held(connection, conclusion, context);
    }
    let is_far = connection.expires_at.is_some_and(|at| !within(at, context.now, due::LOOK_AHEAD));
    match conclusion.outcome {
        // It was only asked after, its token is good for long, and nothing was learnt: asked again tomorrow.
        Outcome::Transient | Outcome::Unrecognised | Outcome::RateLimited
            if !conclusion.was_sent
                && conclusion.scope != Some(crate::outcome::Scope::App)
                && due::unsendable(connection).is_none()
                && is_far =>
        {
            asked_in_vain(connection, context)
        }
        Outcome::Refreshed if !conclusion.was_sent => inspected(connection, conclusion, context),
        Outcome::Refreshed => refreshed(connection, conclusion, context),
        Outcome::Transient | Outcome::NeedsReconnect | Outcome::Unrecognised => failed(connection, conclusion, context),
        Outcome::NotExtended => not_extended(connection, conclusion, context),
        Outcome::TooYoung | Outcome::RateLimited | Outcome::Misconfigured => waits(connection, conclusion, context),
        Outcome::Superseded => superseded(connection),
    }
}

/// The app changed the row meanwhile: the result is dropped, and nobody is told anything.
pub fn superseded(connection: &Connection) -> Decision {
    Decision {
        counted: Some(Counted::Superseded),
        memory: connection.memory.clone(),
        events: vec![Event {
            kind: EventKind::Tried,
            outcome: Some(Outcome::Superseded),
            text: "the app changed the row meanwhile".to_owned(),
        }],
        ..nothing(Outcome::Superseded)
    }
}

/// A last try that the provider has answered with an error is the last, whatever the error says: the token may be
/// spent, and a provider that has another word for that would be asked again and again. What did not get through to
/// the token (a limit, an outage) is none of these.
fn ended_by_last_try(conclusion: &Conclusion) -> Option<Conclusion> {
    let is_answered = match conclusion.outcome {
        Outcome::Unrecognised => true,
        Outcome::Misconfigured => conclusion.scope == Some(crate::outcome::Scope::Connection),
        _ => false,
    };
    let is_ended = is_answered && conclusion.was_last_try && conclusion.token.is_none();
    is_ended.then(|| Conclusion { outcome: Outcome::NeedsReconnect, ..conclusion.clone() })
}

/// A refusal that is not believed, by a provider that punishes reuse: it is not sent again and again until it is
/// believed, but once, as what is uncertain is.
fn doubted(conclusion: &Conclusion) -> Conclusion {
    Conclusion {
        outcome: Outcome::Transient,
        reason: "refused_among_many",
        message: None,
        is_uncertain: true,
        ..conclusion.clone()
    }
}

/// The circuit or the brake holds: the failure is not believed, not counted, not remembered.
fn held(connection: &Connection, conclusion: &Conclusion, context: &Context<'_>) -> Decision {
    let mut memory = connection.memory.clone();
    // A time that has come and is left as it is comes up again at the next look: every few seconds, as long as it holds.
    if let Some(at) = memory.as_mut().and_then(|memory| memory.next_try_at.as_mut()).filter(|at| **at <= context.now) {
        *at = backoff::rarely(connection.expires_at, later(context.now, HELD_AGAIN_AFTER), context.now);
    }
    Decision {
        counted: Some(Counted::Deferred),
        memory,
        events: vec![Event {
            kind: EventKind::Tried,
            outcome: Some(Outcome::Transient),
            text: format!("{} is held: too many connections of this app answer alike", conclusion.outcome),
        }],
        ..nothing(Outcome::Transient)
    }
}

/// It was not sent, because it must not be sent twice, or not now: nothing has become of it, and nothing follows.
/// What was remembered before an intent is remembered again.
fn kept_back(connection: &Connection, conclusion: &Conclusion, context: &Context<'_>) -> Decision {
    let text = failure_text(connection, conclusion, context);
    // What is tried again in seconds would fill the history.
    let is_lasting = text != conclusion.reason;
    let event = Event { kind: EventKind::Tried, outcome: Some(Outcome::Transient), text };
    let mut memory = connection.memory.clone();
    // What will not be sent again for as long as it is this generation is looked at daily, and not at every look.
    if let Some(memory) = &mut memory
        && is_lasting
        && memory.next_try_at.is_none_or(|at| at <= context.now)
    {
        memory.next_try_at = Some(context.tomorrow);
    }
    Decision {
        counted: Some(Counted::Deferred),
        memory,
        events: is_lasting.then_some(event).into_iter().collect(),
        ..nothing(Outcome::Transient)
    }
}

/// What is written before a token is sent to a provider that punishes reuse: from here on it may be spent. The
/// decision about the answer takes the place of this one; if none is made, this one stands.
pub fn intent(connection: &Connection, is_last_try: bool, context: &Context<'_>) -> Decision {
    let now = context.now;
    let state = State::Uncertain { sent_at: now, reason: "no_answer_yet".to_owned(), is_last: is_last_try };
    let mut memory = remember(connection, state, context);
    memory.refresh_token = connection.name_of_refresh_token();
    memory.next_try_at = (!is_last_try).then(|| last_try_at(connection, now));
    let events = is_last_try.then(|| Event {
        kind: EventKind::LastTry,
        outcome: None,
        text: "the answer to the first try was lost: it is sent once more, for the last time".to_owned(),
    });
    Decision { memory: Some(memory), events: events.into_iter().collect(), ..nothing(Outcome::Transient) }
}

/// Takes back an intent whose token was never sent: what was remembered before it is remembered again. An incident that
/// was opened meanwhile, because no answer was seen, stays until the next try closes it: its customer may have been warned.
pub fn take_back(before: &Connection, row: &Connection, context: &Context<'_>) -> Decision {
    let mut memory = before.memory.clone();
    let opened = |of: &Option<Memory>| of.as_ref().and_then(|memory| memory.incident.clone());
    let incident = opened(&row.memory);
    if incident.is_some() && incident != opened(&before.memory) {
        let state = State::Failing { outcome: Outcome::Transient, reason: "not_called".to_owned(), retries: 0 };
        let mut failing = remember(row, state, context);
        failing.incident = incident;
        failing.next_try_at = memory.and_then(|memory| memory.next_try_at).or(Some(context.now));
        memory = Some(failing);
    }
    Decision { memory, ..nothing(Outcome::Transient) }
}

/// When a token whose answer was lost is sent for the last time: with a quarter of what is left of the access
/// token's life, and no more than a day, still to go. Until then the access token serves, and an answer that
/// was kept elsewhere may still turn up.
fn last_try_at(connection: &Connection, now: Timestamp) -> Timestamp {
    const DAY: SignedDuration = SignedDuration::from_hours(24);
    let soonest = later(now, backoff::SOONEST);
    let left = connection.expires_at.map(|at| at.duration_since(now));
    left.filter(SignedDuration::is_positive).map_or(soonest, |left| later(now, left - (left / 4).min(DAY)).max(soonest))
}

fn asked_in_vain(connection: &Connection, context: &Context<'_>) -> Decision {
    let mut memory = connection.memory.clone();
    if let Some(memory) = &mut memory {
        memory.next_try_at = Some(context.tomorrow);
    }
    Decision { memory, ..nothing(Outcome::Transient) }
}

/// The date was asked for and nothing was sent. What is told of the end of data access is followed like an
/// expiry: the customer hears of it 14, 7 and 3 days ahead.
fn inspected(connection: &Connection, conclusion: &Conclusion, context: &Context<'_>) -> Decision {
    let now = context.now;
    let expires_at = if conclusion.never_expires { None } else { conclusion.expires_at.or(connection.expires_at) };
    let text = match expires_at {
        Some(at) => format!("expires at {}", second(at)),
        None => "never expires".to_owned(),
    };
    let is_news = conclusion.expires_at.is_some_and(|found| {
        // A row that has a date keeps it: Perene's own is counted from before the request, and never later.
        connection.expires_at.is_none() && Some(found) != connection.expires_at
    });
    let mut decision = Decision {
        write: is_news.then(|| RowWrite { expires_at: conclusion.expires_at, ..RowWrite::default() }),
        events: vec![Event { kind: EventKind::Inspected, outcome: None, text }],
        ..nothing(Outcome::Refreshed)
    };
    let before = connection.memory.as_ref().and_then(|memory| memory.incident.clone());
    if before.as_ref().is_some_and(|incident| incident.cause != Outcome::NotExtended) {
        let write = decision.write.get_or_insert_with(RowWrite::default);
        (write.attempts, write.error) = (Attempts::Zero, ErrorText::Clear);
    }
    let calm = if conclusion.never_expires { State::NeverExpires } else { State::Healthy };
    let mut memory = remember(connection, calm, context);
    memory.incident = None;
    memory.expires_at = expires_at;
    // That it has ended is no recovery: only the customer's login opens it again. Who was never told is not told of what
    // ended long ago, and may be no trouble at all.
    let was_told = before.as_ref().is_some_and(|incident| incident.told_days.is_some());
    memory.data_access_ends_at = conclusion.data_access_ends_at.filter(|end| *end > now || was_told);
    match memory.data_access_ends_at {
        Some(end) if within(end, now, due::LOOK_AHEAD) => {
            memory.state = State::NotExtended;
            memory.next_try_at = Some(context.tomorrow);
            memory.incident = before.or_else(|| Some(Incident::open(connection, Outcome::NotExtended, now)));
            tell_step(&mut decision, &mut memory, now);
            decision.memory = Some(memory);
        }
        Some(end) if expires_at.is_none_or(|at| end < at) => {
            memory.next_try_at = Some(later(end, -due::LOOK_AHEAD));
            close(&mut decision, before.as_ref(), expires_at);
            decision.memory = Some(memory);
        }
        // It ends after the token: the next refresh will have it looked at again.
        _ => {
            memory.data_access_ends_at = None;
            close(&mut decision, before.as_ref(), expires_at);
            decision.memory = worth_remembering(memory);
        }
    }
    decision
}

fn refreshed(connection: &Connection, conclusion: &Conclusion, context: &Context<'_>) -> Decision {
    let generation = generation_after(connection, conclusion);
    let state = if conclusion.never_expires { State::NeverExpires } else { State::Healthy };
    let mut memory = Memory::of(generation, state, context.now);
    memory.expires_at = conclusion.expires_at;
    // The answer says nothing of data access; debug_token does, and is asked later, off the hot path.
    memory.next_try_at = connection.grant.can_be_inspected().then(|| later(context.now, INSPECT_AFTER));
    let text = match conclusion.expires_at {
        Some(at) => format!("expires at {}", second(at)),
        None => "never expires".to_owned(),
    };
    let mut decision = Decision {
        counted: Some(Counted::Refreshed),
        write: Some(RowWrite {
            token: conclusion.token.clone(),
            refresh_token: conclusion.refresh_token.clone().filter(|_| !planted::has(Bug::RefreshTokenDropped)),
            expires_at: conclusion.expires_at.filter(|_| !planted::has(Bug::ExpiryNotStored)),
            refreshed_at: Some(context.now),
            attempts: if planted::has(Bug::AttemptsNotCleared) { Attempts::Keep } else { Attempts::Zero },
            error: ErrorText::Clear,
        }),
        memory: worth_remembering(memory.clone()),
        events: vec![Event { kind: EventKind::Tried, outcome: Some(Outcome::Refreshed), text }],
        ..nothing(Outcome::Refreshed)
    };
    // Where the app has put another token there meanwhile, its customer has logged in: that opens it again.
    let before = connection.memory_of_this_generation();
    if let Some((incident, end)) = before.and_then(|before| ends_all_the_same(before, conclusion, context.now)) {
        let memory = decision.memory.get_or_insert(memory);
        (memory.state, memory.incident, memory.data_access_ends_at) = (State::NotExtended, Some(incident), Some(end));
    } else {
        let incident = connection.memory.as_ref().and_then(|memory| memory.incident.as_ref());
        close(&mut decision, incident, conclusion.expires_at);
    }
    decision
}

/// The incident, and the end of data access of which its customer was told: no refresh moves that.
fn ends_all_the_same(before: &Memory, conclusion: &Conclusion, now: Timestamp) -> Option<(Incident, Timestamp)> {
    let end = conclusion.data_access_ends_at.or(before.data_access_ends_at)?;
    let incident = before.incident.as_ref().filter(|incident| incident.told_days.is_some())?;
    within(end, now, due::LOOK_AHEAD).then(|| (incident.clone(), end))
}

fn failed(connection: &Connection, conclusion: &Conclusion, context: &Context<'_>) -> Decision {
    let Context { now, .. } = *context;
    let is_given_up = conclusion.is_uncertain && conclusion.was_last_try;
    let outcome = if is_given_up { Outcome::NeedsReconnect } else { conclusion.outcome };
    // A token that came without a date is stored all the same, and the memory speaks of it from then on.
    let generation = generation_after(connection, conclusion);
    let retries = match connection.memory.as_ref().map(|memory| &memory.state) {
        Some(State::Failing { retries, .. }) if !planted::has(Bug::RetriesNotRemembered) => retries.saturating_add(1),
        _ => 0,
    };
    let reason = conclusion.reason.to_owned();
    let soon = || {
        let next = backoff::next_try(&connection.id, retries, connection.expires_at, now);
        if planted::has(Bug::RetryBeyondTheNextRun) {
            return later(now, SignedDuration::from_hours(60));
        }
        context.next_run_at.map_or(next, |run| next.min(run))
    };
    let (state, next_try_at) = match outcome {
        Outcome::NeedsReconnect => {
            let never = conclusion.sends_once || planted::has(Bug::RefusedNeverProbed);
            (State::NeedsReconnect { reason }, Some(if never { backoff::NEVER } else { context.tomorrow }))
        }
        // No last try either: whoever made it would have it refused as reused.
        _ if conclusion.is_answer_kept => {
            (State::Uncertain { sent_at: now, reason: ANSWER_KEPT.to_owned(), is_last: true }, Some(context.tomorrow))
        }
        _ if conclusion.is_uncertain => {
            let state = State::Uncertain { sent_at: now, reason, is_last: false };
            (state, Some(last_try_at(connection, now)))
        }
        // The last try did not get through to the provider: it is still to be made, and each time it is sent may be one
        // too many. So not by the series from its first step on.
        _ if conclusion.was_last_try && conclusion.token.is_none() => {
            let next = backoff::next_try(&connection.id, LAST_TRY_STEP, connection.expires_at, now);
            (State::Uncertain { sent_at: now, reason, is_last: false }, Some(next))
        }
        Outcome::Unrecognised => (
            State::Failing { outcome, reason, retries },
            Some(backoff::rarely(connection.expires_at, context.tomorrow, context.now)),
        ),
        _ => (State::Failing { outcome, reason, retries }, Some(soon())),
    };
    let mut memory = remember(connection, state, context);
    memory.generation = generation;
    if conclusion.token.is_some() {
        memory.refresh_token = None;
    } else if conclusion.sends_once && conclusion.was_sent {
        memory.refresh_token = connection.name_of_refresh_token();
    }
    if conclusion.token.is_some() && connection.grant.refuses_young_tokens() {
        // It was made just now, though nothing else is known of it.
        memory.fresh_since = Some(now);
    }
    memory.next_try_at = next_try_at.filter(|_| !planted::has(Bug::RetryWithoutTime));
    let counts = !context.is_held && context.counting.takes(memory.counted_at);
    if counts {
        memory.counted_at = Some(now);
    }

    let text = failure_text(connection, conclusion, context);
    let mut decision = Decision {
        counted: Some(if context.is_held { Counted::Deferred } else { Counted::Failed }),
        write: Some(RowWrite {
            token: conclusion.token.clone(),
            refresh_token: conclusion.refresh_token.clone(),
            attempts: if counts { Attempts::AddOne } else { Attempts::Keep },
            error: ErrorText::Set(text.clone()),
            ..RowWrite::default()
        }),
        events: vec![Event { kind: EventKind::Tried, outcome: Some(outcome), text }],
        ..nothing(outcome)
    };
    let attempts = connection.attempts.max(0).saturating_add(i64::from(counts));
    let incident = match memory.incident.take() {
        Some(incident) => incident,
        None => {
            decision.events.push(Event {
                kind: EventKind::IncidentOpened,
                outcome: Some(outcome),
                text: format!("first failure: {}", conclusion.reason),
            });
            Incident::open(connection, outcome, now)
        }
    };
    let settings = due::settings_for_warning(connection, context.settings, now);
    let is_due = warning::is_due(&incident, outcome, attempts, connection.expires_at, now, &settings);
    memory.incident = Some(incident);
    if is_due && !context.is_held {
        let kind = if outcome == Outcome::NeedsReconnect { NoticeKind::NeedsReconnect } else { NoticeKind::Failing };
        warn(&mut decision, &mut memory, kind, outcome, now);
    }
    decision.memory = Some(memory);
    decision
}

fn not_extended(connection: &Connection, conclusion: &Conclusion, context: &Context<'_>) -> Decision {
    let Context { now, .. } = *context;
    let mut memory = remember(connection, State::NotExtended, context);
    memory.generation = generation_after(connection, conclusion);
    memory.next_try_at = Some(context.tomorrow);
    memory.expires_at = conclusion.expires_at.or(connection.expires_at);
    memory.data_access_ends_at = conclusion.data_access_ends_at.or(memory.data_access_ends_at);
    if memory.incident.is_none() {
        memory.incident = Some(Incident::open(connection, Outcome::NotExtended, now));
    }
    let changes_row = conclusion.token.as_ref().is_some_and(|token| *token != connection.token)
        || conclusion.expires_at != connection.expires_at;
    let mut decision = Decision {
        counted: Some(Counted::Deferred),
        write: changes_row.then(|| RowWrite {
            token: conclusion.token.clone(),
            refresh_token: conclusion.refresh_token.clone(),
            expires_at: conclusion.expires_at,
            ..RowWrite::default()
        }),
        events: vec![Event {
            kind: EventKind::Tried,
            outcome: Some(Outcome::NotExtended),
            text: "the provider answered, and the expiry did not move: only the customer's login renews it".to_owned(),
        }],
        ..nothing(Outcome::NotExtended)
    };
    if !context.is_held {
        tell_step(&mut decision, &mut memory, now);
    }
    decision.memory = Some(memory);
    decision
}

fn waits(connection: &Connection, conclusion: &Conclusion, context: &Context<'_>) -> Decision {
    let Context { now, .. } = *context;
    let outcome = conclusion.outcome;
    let times = match connection.memory.as_ref().map(|memory| &memory.state) {
        Some(State::Waiting { outcome: before, times, .. }) if *before == outcome => times.saturating_add(1),
        _ => 0,
    };
    let text = failure_text(connection, conclusion, context);
    let mut decision = Decision {
        counted: Some(Counted::Deferred),
        memory: connection.memory.clone(),
        events: vec![Event { kind: EventKind::Tried, outcome: Some(outcome), text }],
        ..nothing(outcome)
    };
    // What is said of the app is remembered of the app, not of ten million connections.
    if conclusion.scope == Some(crate::outcome::Scope::App) {
        return decision;
    }
    let wait_until = match outcome {
        Outcome::Misconfigured => backoff::rarely(connection.expires_at, context.tomorrow, now),
        Outcome::RateLimited => {
            let asked = conclusion.retry_after.unwrap_or_else(|| backoff::limit_wait(times));
            let asked = asked.max(backoff::limit_wait_at_least(times));
            later(now, if planted::has(Bug::RetryAfterIgnored) { backoff::SOONEST } else { asked })
        }
        _ => later(now, conclusion.retry_after.unwrap_or(due::MINIMUM_AGE)),
    };
    let state = match connection.memory_of_this_generation().map(|memory| &memory.state) {
        // What is in doubt stays in doubt: the last try is still to be made.
        Some(State::Uncertain { sent_at, reason, .. }) => {
            State::Uncertain { sent_at: *sent_at, reason: reason.clone(), is_last: false }
        }
        // What is refused stays refused, whatever kept the daily look from it.
        Some(refused @ State::NeedsReconnect { .. }) => refused.clone(),
        _ => State::Waiting { outcome, reason: conclusion.reason.to_owned(), times },
    };
    let is_refused = matches!(state, State::NeedsReconnect { .. });
    let mut memory = remember(connection, state, context);
    memory.next_try_at = Some(if is_refused { wait_until.max(context.tomorrow) } else { wait_until });
    decision.memory = Some(memory);
    decision
}

/// What follows from the passing of time and from what the app does, without a call: looked at for every
/// remembered connection. `row` is `None` when the app's row is gone. Returns `None` when nothing follows.
pub fn reconcile(memory: &Memory, row: Option<&Connection>, context: &Context<'_>) -> Option<Decision> {
    let Context { now, settings, .. } = *context;
    let incident = memory.incident.as_ref();
    let Some(row) = row else {
        let mut decision = Decision { memory: None, ..nothing(Outcome::Superseded) };
        close(&mut decision, incident, None);
        decision.recovers = false;
        decision.notices.clear();
        decision.events =
            vec![Event { kind: EventKind::Vanished, outcome: None, text: "the app's row is gone".to_owned() }];
        return Some(decision);
    };
    if row.generation() != memory.generation && memory.state.may_be_spent() && row.holds_refresh_token_of(memory) {
        return Some(moved_beside(memory, row, now));
    }
    if row.generation() != memory.generation || was_extended_by_the_app(memory, row, now, settings.window) {
        return Some(replaced(memory, row, now));
    }

    if memory.incident.is_none() && row.expires_at.is_some_and(|at| at <= now) {
        let row = Connection { memory: Some(memory.clone()), ..row.clone() };
        if let Some(lapsed) = lapse(&row, context) {
            return Some(lapsed);
        }
    }
    let mut memory = memory.clone();
    let mut decision = nothing(Outcome::Superseded);
    admit_uncertainty(&mut decision, &mut memory, row, now);
    let outcome = match &memory.state {
        State::Failing { outcome, .. } | State::Waiting { outcome, .. } => *outcome,
        State::NeedsReconnect { .. } => Outcome::NeedsReconnect,
        State::Uncertain { .. } => Outcome::Transient,
        State::NotExtended | State::Healthy | State::NeverExpires => Outcome::NotExtended,
    };
    if memory.state == State::NotExtended && !context.is_held {
        tell_step(&mut decision, &mut memory, now);
    } else if let Some(incident) = &memory.incident
        && !context.is_held
        && outcome != Outcome::Misconfigured
        && warning::is_due(
            incident,
            outcome,
            row.attempts,
            row.expires_at,
            now,
            &due::settings_for_warning(row, settings, now),
        )
    {
        let kind = if outcome == Outcome::NeedsReconnect { NoticeKind::NeedsReconnect } else { NoticeKind::Failing };
        warn(&mut decision, &mut memory, kind, outcome, now);
    }
    go_dark(&mut decision, &mut memory, row, now);
    let was_fresh = memory.fresh_since.is_some();
    memory.fresh_since = memory.fresh_since.filter(|since| within(now, *since, due::MINIMUM_AGE));
    if decision.events.is_empty() && was_fresh == memory.fresh_since.is_some() {
        return None;
    }
    decision.memory = worth_remembering(memory);
    Some(decision)
}

/// The app has put another access token beside a refresh token that was sent to a provider that takes it once: it is as
/// spent, or as refused, as it was.
fn moved_beside(memory: &Memory, row: &Connection, now: Timestamp) -> Decision {
    let mut moved = memory.clone();
    moved.generation = row.generation();
    moved.expires_at = row.expires_at;
    if matches!(moved.state, State::Uncertain { is_last: false, .. }) {
        moved.next_try_at = Some(last_try_at(row, now));
    }
    let text = "the app put another access token beside the same refresh token".to_owned();
    let events = vec![Event { kind: EventKind::Replaced, outcome: None, text }];
    Decision { memory: Some(moved), events, ..nothing(Outcome::Superseded) }
}

/// The same token with a later date: the app has extended it by itself.
fn was_extended_by_the_app(memory: &Memory, row: &Connection, now: Timestamp, window: SignedDuration) -> bool {
    let (Some(before), Some(after)) = (memory.expires_at, row.expires_at) else { return false };
    memory.incident.is_some()
        && after.duration_since(before) > crate::exchange::NO_MOVE
        && !within(after, now, window.max(due::LOOK_AHEAD))
}

/// The app has put another token there: whatever was wrong is over.
fn replaced(memory: &Memory, row: &Connection, now: Timestamp) -> Decision {
    let mut fresh = Memory::of(row.generation(), State::Healthy, now);
    fresh.fresh_since = row.grant.refuses_young_tokens().then_some(now);
    fresh.expires_at = row.expires_at;
    let mut decision = Decision {
        memory: worth_remembering(fresh),
        events: vec![Event {
            kind: EventKind::Replaced,
            outcome: None,
            text: "the app put another token there".to_owned(),
        }],
        ..nothing(Outcome::Superseded)
    };
    if memory.incident.is_some() && !row.token.expose().is_empty() {
        decision.write = Some(RowWrite { attempts: Attempts::Zero, error: ErrorText::Clear, ..RowWrite::default() });
    }
    close(&mut decision, memory.incident.as_ref(), row.expires_at);
    decision
}

/// Nobody holds the connection any more, and no answer was written: whoever sent its token is gone, or has heard
/// nothing. An intent becomes a fact, and a last try the end.
fn admit_uncertainty(decision: &mut Decision, memory: &mut Memory, row: &Connection, now: Timestamp) {
    let State::Uncertain { is_last, reason, .. } = &memory.state else { return };
    let is_last = *is_last && reason != ANSWER_KEPT;
    if memory.incident.is_none() {
        memory.incident = Some(Incident::open(row, Outcome::Transient, now));
        decision.events.push(Event {
            kind: EventKind::IncidentOpened,
            outcome: Some(Outcome::Transient),
            text: format!(
                "{}; the access token goes on, one last try follows before it ends",
                explain("no_answer_yet")
            ),
        });
    }
    if is_last {
        memory.state = State::NeedsReconnect { reason: "last_try_unanswered".to_owned() };
        memory.since = now;
        memory.next_try_at = Some(backoff::NEVER);
        decision.events.push(Event {
            kind: EventKind::Tried,
            outcome: Some(Outcome::NeedsReconnect),
            text: explain("last_try_unanswered").to_owned(),
        });
    }
}

fn go_dark(decision: &mut Decision, memory: &mut Memory, row: &Connection, now: Timestamp) {
    let is_dark = row.expires_at.is_some_and(|at| at <= now);
    let Some(incident) = memory.incident.as_mut().filter(|incident| is_dark && !incident.dark) else { return };
    incident.dark = true;
    if !row.outlives_its_expiry() {
        memory.next_try_at = None;
    }
    decision.notices.push(Notice {
        incident_id: incident.id.clone(),
        kind: NoticeKind::Dark,
        reason: incident.cause,
        days: None,
        expires_at: row.expires_at,
    });
    decision.events.push(Event { kind: EventKind::Dark, outcome: None, text: "the token has expired".to_owned() });
}

fn warn(decision: &mut Decision, memory: &mut Memory, kind: NoticeKind, reason: Outcome, now: Timestamp) {
    let Some(incident) = memory.incident.as_mut() else { return };
    incident.warned_at = incident.warned_at.or(Some(now)).filter(|_| !planted::has(Bug::WarningNotRemembered));
    incident.told_refused |= kind == NoticeKind::NeedsReconnect;
    decision.warns = true;
    decision.flag = Some(true);
    decision.notices.push(Notice {
        incident_id: incident.id.clone(),
        kind,
        reason,
        days: None,
        expires_at: memory.expires_at,
    });
    decision.events.push(Event {
        kind: EventKind::Warned,
        outcome: Some(reason),
        text: "the customer is asked to reconnect".to_owned(),
    });
}

fn tell_step(decision: &mut Decision, memory: &mut Memory, now: Timestamp) {
    let ends_at = [memory.expires_at, memory.data_access_ends_at].into_iter().flatten().min();
    let (Some(ends_at), Some(incident)) = (ends_at, memory.incident.as_mut()) else { return };
    let Some(days) = warning::step_due(incident.told_days, ends_at, now) else { return };
    incident.told_days = Some(days);
    decision.warns = incident.warned_at.is_none();
    if decision.warns {
        incident.warned_at = Some(now);
        decision.flag = Some(true);
    }
    decision.notices.push(Notice {
        incident_id: incident.id.clone(),
        kind: NoticeKind::NotExtended,
        reason: Outcome::NotExtended,
        days: Some(days),
        expires_at: Some(ends_at),
    });
    decision.events.push(Event {
        kind: EventKind::Told,
        outcome: Some(Outcome::NotExtended),
        text: format!("the customer is told that it ends in {days} days or less"),
    });
}

fn close(decision: &mut Decision, incident: Option<&Incident>, expires_at: Option<Timestamp>) {
    let Some(incident) = incident else { return };
    decision.recovers = true;
    if incident.warned_at.is_some() {
        decision.flag = Some(false);
    }
    if incident.warned_at.is_some() && !planted::has(Bug::RecoveredNotSent) {
        decision.notices.push(Notice {
            incident_id: incident.id.clone(),
            kind: NoticeKind::Recovered,
            reason: incident.cause,
            days: None,
            expires_at,
        });
    }
    decision.events.push(Event {
        kind: EventKind::Recovered,
        outcome: None,
        text: format!("incident of {} closed", second(incident.opened_at)),
    });
}

/// A memory in `state` that keeps what is known of this generation, and the incident whatever the
/// generation: a token that Perene itself has stored meanwhile does not end it.
fn remember(connection: &Connection, state: State, context: &Context<'_>) -> Memory {
    let before = connection.memory.as_ref();
    let since = before.filter(|memory| memory.state.name() == state.name()).map_or(context.now, |memory| memory.since);
    let mut memory = Memory::of(connection.generation(), state, context.now);
    memory.since = since;
    memory.incident = before.and_then(|memory| memory.incident.clone());
    memory.refresh_token = connection.memory_of_this_refresh_token().and_then(|memory| memory.refresh_token.clone());
    let of_this_generation = connection.memory_of_this_generation();
    memory.fresh_since = of_this_generation.and_then(|memory| memory.fresh_since);
    memory.counted_at = of_this_generation.and_then(|memory| memory.counted_at);
    memory.data_access_ends_at = before.and_then(|memory| memory.data_access_ends_at);
    memory.expires_at = connection.expires_at;
    memory
}

/// The generation that the row holds once this conclusion is written.
fn generation_after(connection: &Connection, conclusion: &Conclusion) -> Fingerprint {
    let token = conclusion.token.as_ref().unwrap_or(&connection.token);
    generation(token, conclusion.refresh_token.as_ref().or(connection.refresh_token.as_ref()))
}

/// Of a healthy connection nothing is remembered, unless a fact will be needed.
fn worth_remembering(memory: Memory) -> Option<Memory> {
    let is_bare = memory.state == State::Healthy
        && memory.incident.is_none()
        && memory.fresh_since.is_none()
        && memory.next_try_at.is_none()
        && memory.data_access_ends_at.is_none();
    (!is_bare).then_some(memory)
}

/// What stands in `last_refresh_error`: the provider's own words, or ours where it had none.
fn failure_text(connection: &Connection, conclusion: &Conclusion, context: &Context<'_>) -> String {
    if let Some(message) = conclusion.message.as_ref().filter(|_| planted::has(Bug::SecretInText)) {
        return message.clone();
    }
    let mut secrets: Vec<&str> = vec![connection.token.expose()];
    secrets.extend(connection.refresh_token.as_ref().map(Secret::expose));
    secrets.extend([&conclusion.token, &conclusion.refresh_token].into_iter().flatten().map(Secret::expose));
    secrets.extend(context.secrets.iter().map(Secret::expose));
    match conclusion.message.as_deref().map(str::trim).filter(|message| !message.is_empty()) {
        Some(message) => redact::for_row(message, &secrets),
        None => redact::for_row(explain(conclusion.reason), &secrets),
    }
}

/// Our own words for a reason, where the provider had none.
fn explain(reason: &str) -> &str {
    match reason {
        "token_with_nul" => {
            "not sent: the stored token contains a NUL character; store the token that the provider gave"
        }
        "token_with_blanks" => "not sent: the stored token contains blanks; store the token that the provider gave",
        "token_too_long" => "not sent: the stored token is longer than 16 KiB; store the token that the provider gave",
        "under_24_hours_of_age" => "the token is less than 24 hours old: it is refreshed later",
        "inspected_late" => "not sent yet: its expiry was told at the third call only; it is sent in the next try",
        "no_refresh_token" => "not sent: the row holds no refresh token; the customer's next login brings one",
        "answer_lost" => {
            "not sent: the answer to the last call was lost, and sending the token again may revoke it; one last try follows before it ends"
        }
        "refused_before" => "not sent: the provider has refused this token, and punishes sending it again",
        "no_answer_yet" => "the token was sent, and its answer was lost",
        "refused_among_many" => {
            "the provider has refused it together with many others, which is not believed: one last try follows before it ends"
        }
        "last_try_unanswered" => "the last try was not answered either: only the customer's login helps",
        "no_token" => "the provider answered with success, and without a token",
        "expiry_unknown" => "the provider gave a token without telling when it expires",
        "expiry_unbelievable" => "the provider gave a token with an expiry that cannot be believed",
        other => other,
    }
}

/// An instant for people: whole seconds, UTC.
fn second(at: Timestamp) -> impl std::fmt::Display {
    at.strftime("%Y-%m-%dT%H:%M:%SZ")
}

fn nothing(outcome: Outcome) -> Decision {
    Decision {
        outcome,
        counted: None,
        write: None,
        memory: None,
        events: Vec::new(),
        notices: Vec::new(),
        flag: None,
        warns: false,
        recovers: false,
    }
}

#[cfg(test)]
mod tests;
