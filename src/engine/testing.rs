//! A world for the engine's tests: time that passes only while everybody waits, a provider that answers what
//! it is told to, and an inbox.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use perene_policy::answer::{Answer, NoAnswer, NoAnswerKind};
use perene_policy::schedule::Schedule;
use perene_policy::{Class, Endpoint, Fingerprint, Grant, Memory, Secret, Settings};

use uuid::Uuid;

use super::{Engine, Parts, Report, RunError, RunKind, RunRequest, Stop, StopSource};
use crate::clock::Clock;
use crate::config::Source;
use crate::journal::MemoryJournal;
use crate::notify::{Channel, Delivery, Message, MessageKind};
use crate::provider::{AppIdentity, Provider};
use crate::simulate::time::VirtualClock;
use crate::store::Store;
use crate::store::memory::{AppRow, MemoryStore, Settlement, UserRow};

pub(super) fn instant(text: &str) -> Timestamp {
    text.parse().expect("a date")
}

pub(super) fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

pub(super) fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One call that the provider got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) at: Timestamp,
    pub(super) endpoint: Endpoint,
    pub(super) token: String,
}

/// What it answers, and how long it takes.
pub(super) struct Reply {
    pub(super) takes: Duration,
    what: What,
}

enum What {
    Answer(Result<Answer, NoAnswer>),
    Panic,
}

impl Reply {
    pub(super) fn json(status: u16, body: &str) -> Self {
        let answer = Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec(), truncated: false };
        Self { takes: Duration::ZERO, what: What::Answer(Ok(answer)) }
    }

    /// A token, good for so long.
    pub(super) fn granted(token: &str, life: SignedDuration) -> Self {
        let life = life.as_secs();
        Self::json(200, &format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":{life}}}"#))
    }

    /// The pair of the next generation, for the refresh token `r-…-N`.
    pub(super) fn rotated(refresh_token: &str, life: SignedDuration) -> Self {
        let (rest, number) = refresh_token.trim_start_matches("r-").rsplit_once('-').expect("r-ID-N");
        let next = number.parse::<u32>().expect("a number") + 1;
        let life = life.as_secs();
        Self::json(
            200,
            &format!(r#"{{"access_token":"a-{rest}-{next}","refresh_token":"r-{rest}-{next}","expires_in":{life}}}"#),
        )
    }

    /// Refused for good by an OAuth 2.0 provider.
    pub(super) fn invalid_grant() -> Self {
        Self::json(400, r#"{"error":"invalid_grant"}"#)
    }

    pub(super) fn error(status: u16, code: i64, message: &str) -> Self {
        Self::json(
            status,
            &format!(r#"{{"error":{{"message":"{message}","type":"OAuthException","code":{code},"fbtrace_id":"A"}}}}"#),
        )
    }

    /// The provider is down.
    pub(super) fn down() -> Self {
        Self::json(503, "<html><title>Service Unavailable</title></html>")
    }

    /// Refused for good: the customer has changed the password.
    pub(super) fn dead() -> Self {
        Self::json(
            400,
            r#"{"error":{"message":"Error validating access token: The session has been invalidated because the user changed their password.","type":"OAuthException","code":190,"error_subcode":460}}"#,
        )
    }

    pub(super) fn limited() -> Self {
        Self::error(403, 4, "(#4) Application request limit reached")
    }

    pub(super) fn wrong_secret() -> Self {
        Self::error(400, 1, "Error validating client secret.")
    }

    pub(super) fn valid(expires_at: Timestamp) -> Self {
        let expires_at = expires_at.as_second();
        Self::json(200, &format!(r#"{{"data":{{"is_valid":true,"app_id":"1","expires_at":{expires_at}}}}}"#))
    }

    pub(super) fn lost() -> Self {
        let none = NoAnswer { kind: NoAnswerKind::Lost, text: "timed out".to_owned() };
        Self { takes: Duration::ZERO, what: What::Answer(Err(none)) }
    }

    pub(super) fn panic() -> Self {
        Self { takes: Duration::ZERO, what: What::Panic }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        if let What::Answer(Ok(answer)) = &mut self.what {
            answer.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub(super) fn after(self, takes: Duration) -> Self {
        Self { takes, ..self }
    }
}

type Rule = Box<dyn FnMut(&Asked) -> Reply + Send>;

/// A provider that answers what a test says.
pub(super) struct Script {
    clock: VirtualClock,
    rule: Mutex<Rule>,
    secrets: Mutex<BTreeMap<Grant, String>>,
    app_probe: Mutex<Option<u16>>,
    record: Mutex<Record>,
    class: Mutex<Class>,
}

#[derive(Default)]
struct Record {
    calls: Vec<Asked>,
    in_flight: usize,
    most: usize,
}

impl Script {
    /// Every token is renewed for sixty days.
    fn new(clock: VirtualClock) -> Self {
        let grants = Grant::META.into_iter().chain([Grant::Oauth2]);
        let secrets = grants.map(|grant| (grant, "secret".to_owned())).collect();
        Self {
            clock,
            rule: Mutex::new(Box::new(renew)),
            secrets: Mutex::new(secrets),
            app_probe: Mutex::new(None),
            record: Mutex::default(),
            class: Mutex::new(Class::Extend),
        }
    }

    /// Answers by this rule from now on.
    pub(super) fn answer(&self, rule: impl FnMut(&Asked) -> Reply + Send + 'static) {
        *lock(&self.rule) = Box::new(rule);
    }

    /// Answers these to calls with a token that contains `part`, then well; and well to all others.
    pub(super) fn answer_one(&self, part: &'static str, replies: impl IntoIterator<Item = Reply>) {
        let mut replies: VecDeque<Reply> = replies.into_iter().collect();
        self.answer(move |asked| {
            let next = if asked.token.contains(part) { replies.pop_front() } else { None };
            next.unwrap_or_else(|| renew(asked))
        });
    }

    /// The app's secret is another; `None`: there is no app.
    pub(super) fn set_secret(&self, grant: Grant, secret: Option<&str>) {
        let mut secrets = lock(&self.secrets);
        match secret {
            Some(secret) => drop(secrets.insert(grant, secret.to_owned())),
            None => drop(secrets.remove(&grant)),
        }
    }

    /// Answers probes of the app itself with this status.
    pub(super) fn answer_app(&self, status: u16) {
        *lock(&self.app_probe) = Some(status);
    }

    pub(super) fn calls(&self) -> Vec<Asked> {
        lock(&self.record).calls.clone()
    }

    /// The tokens of all calls, in their order.
    pub(super) fn tokens(&self) -> Vec<String> {
        self.calls().into_iter().map(|asked| asked.token).collect()
    }

    /// Forgets the calls so far, and returns how many there were.
    pub(super) fn drain(&self) -> usize {
        std::mem::take(&mut lock(&self.record).calls).len()
    }

    /// How many calls were in flight at once, at the most.
    pub(super) fn most_at_once(&self) -> usize {
        lock(&self.record).most
    }
}

/// The same token, sixty days more.
pub(super) fn renew(asked: &Asked) -> Reply {
    match asked.endpoint {
        Endpoint::DebugToken => Reply::valid(asked.at + days(60)),
        _ => Reply::granted(&format!("{}+", asked.token), days(60)),
    }
}

#[async_trait]
impl Provider for Script {
    fn app(&self, grant: Grant) -> Option<Arc<AppIdentity>> {
        let secret = lock(&self.secrets).get(&grant)?.clone();
        let credentials = Fingerprint::of(&secret);
        let secrets = vec![Secret::new(secret)];
        Some(Arc::new(AppIdentity { name: grant.name().to_owned(), credentials, secrets }))
    }

    fn class(&self) -> Class {
        *lock(&self.class)
    }

    async fn call(&self, _grant: Grant, endpoint: Endpoint, token: &Secret) -> Result<Answer, NoAnswer> {
        let asked = Asked { at: self.clock.now(), endpoint, token: token.expose().to_owned() };
        {
            let mut record = lock(&self.record);
            record.calls.push(asked.clone());
            record.in_flight += 1;
            record.most = record.most.max(record.in_flight);
        }
        let reply = (lock(&self.rule))(&asked);
        self.clock.sleep(reply.takes).await;
        lock(&self.record).in_flight -= 1;
        match reply.what {
            What::Answer(answer) => answer,
            What::Panic => panic!("an answer that nobody has thought of"),
        }
    }

    async fn probe_app(&self, _grant: Grant) -> Option<Result<Answer, NoAnswer>> {
        let status = (*lock(&self.app_probe))?;
        let body = if status == 200 { r#"{"data":{"is_valid":true,"expires_at":0}}"# } else { "{}" };
        Some(Ok(Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec(), truncated: false }))
    }
}

/// A channel that keeps what it is given.
pub(super) struct Inbox {
    name: &'static str,
    got: Mutex<Vec<(Timestamp, Message)>>,
    deliveries: Mutex<VecDeque<Delivery>>,
}

impl Inbox {
    fn new(name: &'static str) -> Self {
        Self { name, got: Mutex::default(), deliveries: Mutex::default() }
    }

    /// What becomes of the next tries; after them, all are delivered.
    pub(super) fn answer(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        lock(&self.deliveries).extend(deliveries);
    }

    /// What was tried, in its order: kind and connection.
    pub(super) fn kinds(&self) -> Vec<(MessageKind, String)> {
        lock(&self.got).iter().map(|(_, message)| (message.kind, message.connection_id.clone())).collect()
    }

    pub(super) fn tries(&self) -> Vec<(Timestamp, Message)> {
        lock(&self.got).clone()
    }
}

#[async_trait]
impl Channel for Inbox {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn deliver(&self, message: &Message, now: Timestamp) -> Delivery {
        lock(&self.got).push((now, message.clone()));
        lock(&self.deliveries).pop_front().unwrap_or(Delivery::Sent)
    }
}

/// Everything that an engine needs. Runs start at three in the morning, UTC; so does the first test.
pub(super) struct World {
    pub(super) clock: VirtualClock,
    pub(super) store: MemoryStore,
    pub(super) script: Arc<Script>,
    pub(super) mail: Arc<Inbox>,
    pub(super) hook: Arc<Inbox>,
    pub(super) sources: Vec<Source>,
    pub(super) settings: Settings,
    pub(super) concurrency: usize,
    /// The machine's journal: it outlives the engine.
    pub(super) journal: MemoryJournal,
    /// Whether its engines keep answers in it.
    pub(super) has_journal: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self::of(vec![Source::default()])
    }

    pub(super) fn of(sources: Vec<Source>) -> Self {
        let clock = VirtualClock::at(instant("2026-11-23T03:00:00Z"));
        Self {
            store: MemoryStore::new(Arc::new(clock.clone()), sources.clone()),
            script: Arc::new(Script::new(clock.clone())),
            mail: Arc::new(Inbox::new("email")),
            hook: Arc::new(Inbox::new("webhook")),
            sources,
            settings: Settings::default(),
            concurrency: 64,
            journal: MemoryJournal::default(),
            has_journal: true,
            clock,
        }
    }

    /// A world of one rotating provider of this class, whose table has a column for refresh tokens.
    pub(super) fn rotating(class: Class) -> Self {
        let mut source = Source { provider: "rotating".to_owned(), ..Source::default() };
        source.columns.refresh_token = Some("refresh_token".to_owned());
        let world = Self::of(vec![source]);
        *lock(&world.script.class) = class;
        world.script.answer(|asked| Reply::rotated(&asked.token, hours(1)));
        world
    }

    /// The app inserts a connection with both tokens: `a` and `r`, the number behind them, and a zero for the first
    /// generation.
    pub(super) fn insert_pair(&self, id: i64, left: SignedDuration) {
        self.insert(id, &format!("a-{id}-0"), Some(left));
        self.store.change_connection(0, &id.to_string(), |row| {
            row.refresh_token = Some(Secret::new(format!("r-{id}-0")));
        });
    }

    /// Both tokens of a row, which must be of one generation.
    pub(super) fn generation(&self, id: i64) -> u32 {
        let row = self.row(id);
        let of = |token: Option<Secret>| token.expect("a token").expose().rsplit('-').next().map(str::to_owned);
        let (access, refresh) = (of(row.token), of(row.refresh_token));
        assert_eq!(access, refresh, "a pair is of one generation");
        access.and_then(|text| text.parse().ok()).expect("a number")
    }

    /// One more replica.
    pub(super) fn engine(&self) -> Engine {
        self.engine_on(self.store.clone())
    }

    /// One more replica, on a machine with a journal of its own.
    pub(super) fn engine_elsewhere(&self) -> Engine {
        self.engine_with(self.store.clone(), &MemoryJournal::default())
    }

    pub(super) fn engine_on(&self, store: impl Store) -> Engine {
        self.engine_with(store, &self.journal)
    }

    fn engine_with(&self, store: impl Store, journal: &MemoryJournal) -> Engine {
        let schedule = Schedule::parse("0 3 * * *", TimeZone::UTC, self.now()).expect("it is a schedule");
        Engine::new(Parts {
            store: Arc::new(store),
            providers: ["meta", "rotating"]
                .map(|name| (name.to_owned(), Arc::clone(&self.script) as Arc<dyn Provider>))
                .into(),
            clock: Arc::new(self.clock.clone()),
            sources: self.sources.clone(),
            settings: self.settings,
            schedule,
            concurrency: self.concurrency,
            channels: vec![Arc::clone(&self.mail) as Arc<dyn Channel>, Arc::clone(&self.hook) as Arc<dyn Channel>],
            new_id: Arc::new(Uuid::new_v4),
            journal: self.has_journal.then(|| Arc::new(journal.clone()) as Arc<dyn crate::journal::Journal>),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves the clock to the next three in the morning.
    pub(super) fn next_night(&self) {
        let schedule = Schedule::parse("0 3 * * *", TimeZone::UTC, self.now()).expect("it is a schedule");
        let next = schedule.next_after(self.now()).expect("there is a next");
        self.clock.advance(Duration::try_from(next.duration_since(self.now())).expect("ahead"));
    }

    /// The app inserts a connection of a user of the same key, with an address.
    pub(super) fn insert(&self, id: impl ToString, token: &str, left: Option<SignedDuration>) {
        let id = id.to_string();
        let user = UserRow { id: id.clone(), email: Some(format!("{id}@example.com")), ..UserRow::default() };
        self.store.insert_user(0, user);
        self.store.insert_connection(0, AppRow::new(&id, &id, token, left.map(|left| self.now() + left)));
    }

    /// So many connections whose tokens are `token` and the number, each expiring a second after the other.
    pub(super) fn fleet(&self, count: i64, token: &str) {
        for id in 1..=count {
            self.insert(id, &format!("{token}-{id}"), Some(days(3) + SignedDuration::from_secs(id)));
        }
    }

    pub(super) fn row(&self, id: impl ToString) -> AppRow {
        self.store.row(0, &id.to_string()).expect("the row is there")
    }

    pub(super) fn token(&self, id: impl ToString) -> String {
        self.row(id).token.expect("a token").expose().to_owned()
    }

    pub(super) fn attempts(&self, id: impl ToString) -> i64 {
        self.row(id).attempts.unwrap_or(0)
    }

    pub(super) fn flag(&self, id: impl ToString) -> bool {
        self.store.user(0, &id.to_string()).expect("the user is there").flag
    }

    pub(super) fn memory(&self, id: impl ToString) -> Option<Memory> {
        let id = id.to_string();
        self.store.memories().into_iter().find(|row| row.id == id).map(|row| row.memory)
    }

    pub(super) fn alarms(&self) -> Vec<String> {
        self.store.standing_alarms().into_iter().map(|alarm| alarm.kind).collect()
    }

    /// The outbox: channel and kind of what is still to be delivered or was.
    pub(super) fn outbox(&self) -> Vec<(String, String)> {
        let rows = self.store.outbox().into_iter();
        rows.filter(|row| !matches!(row.settlement, Some(Settlement::Dropped(..))))
            .map(|row| (row.message.channel, row.message.kind))
            .collect()
    }

    pub(super) fn try_run(&self, engine: &Engine, request: &RunRequest) -> Result<Report, RunError> {
        self.clock.run(engine.run(request, &Stop::never(), &|_| {}))
    }

    /// Makes the run of the night, which must succeed.
    pub(super) fn night(&self, engine: &Engine) -> Report {
        self.try_run(engine, &RunRequest::all(RunKind::Scheduled)).expect("the run succeeds")
    }

    /// Serves for so long.
    pub(super) fn serve(&self, engine: &Engine, time: Duration) {
        self.clock.run(async {
            let (source, stop) = StopSource::new();
            let end = async {
                self.clock.sleep(time).await;
                source.stop();
            };
            join(engine.serve(stop), end).await.0.expect("serves");
        });
    }

    /// Serves for a minute in each of so many hours.
    pub(super) fn serve_hourly(&self, engine: &Engine, hours: usize) {
        for _ in 0..hours {
            self.serve(engine, seconds(60));
            self.clock.advance(seconds(3_540));
        }
    }

    /// Sends what is in the outbox; returns how many were delivered.
    pub(super) fn send(&self, engine: &Engine) -> u64 {
        self.clock.run(engine.send_outbox(seconds(60), &Stop::never())).expect("sends")
    }
}
