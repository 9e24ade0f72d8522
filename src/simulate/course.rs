//! The course of a simulation: whoever can go on goes on; when nobody can, time passes to the next instant at which
//! somebody wakes or something happens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::chance::Chance;
use super::faults::{Area, FaultList, Kind, Wanted};
use super::fleet::{self, Fleet};
use super::observer;
use super::replica::Replica;
use super::time::VirtualClock;
use super::trace::Trace;
use super::truth::Standing;
use super::weather::Target;
use super::world::{Event, ReplicaState, Shared, World, lock};
use crate::clock::Clock;
use crate::engine::RunError;
use crate::store::memory::MemoryStore;

/// More steps in a day than these are of something that is done again and again and comes to no end: the worst days of
/// a thousand years come to a quarter.
fn steps_a_day_max(connections: usize) -> u64 {
    300_000 + 100 * connections as u64
}

/// When so many promises were broken nothing more is learnt from a course; and it may never end.
const BROKEN_MAX: u64 = 1_000;

/// How soon whoever supervises the service starts it again.
const STARTED_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(20);

/// Replicas that serve all the time.
const REPLICAS: usize = 2;

pub(super) struct Course {
    pub(super) world: Shared,
    clock: VirtualClock,
    replicas: Vec<Replica>,
    chance: Chance,
    pub(super) end: Timestamp,
    pub(super) peace_at: Timestamp,
    database_clock: Arc<DatabaseClock>,
    /// By how much each replica's machine has the wrong time.
    wrong_by: Vec<SignedDuration>,
}

/// The database's clock: the true one, or ahead of it.
struct DatabaseClock {
    clock: VirtualClock,
    ahead: Mutex<SignedDuration>,
}

#[async_trait::async_trait]
impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        self.clock.now() + *self.ahead.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

/// What a course is made of.
pub(super) struct Plan<'a> {
    pub(super) seed: u64,
    pub(super) days: u32,
    pub(super) begin: Timestamp,
    pub(super) faults: &'a FaultList,
    pub(super) fleet: Arc<Fleet>,
    pub(super) linked: Vec<fleet::Linked>,
    pub(super) trace: Trace,
    pub(super) customers_return: bool,
}

impl Course {
    pub(super) fn new(plan: Plan<'_>) -> Self {
        let Plan { seed, days, begin, faults, fleet, linked, trace, customers_return } = plan;
        let clock = VirtualClock::at(begin);
        let database_clock = Arc::new(DatabaseClock { clock: clock.clone(), ahead: Mutex::default() });
        let sources = fleet.sources.iter().map(|source| source.mapped.clone()).collect();
        let store = MemoryStore::new(Arc::clone(&database_clock) as Arc<dyn Clock>, sources);
        fleet::store(&linked, &store);
        store.watch();
        let mut world = World::new(seed, Arc::clone(&fleet), store, trace, begin);
        world.customers_return = customers_return;
        world.settle(linked, begin);
        let day = SignedDuration::from_hours(24);
        let end = begin + day * i32::try_from(days).unwrap_or(i32::MAX);
        // The last part is peace: a third of a short simulation, ten days of a long one.
        // A rehearsal that names the days of its faults has them as long as they last.
        let is_planned = !customers_return && faults.wanted.iter().all(|wanted| wanted.on_day.is_some());
        let peace_at = if is_planned { end } else { end - (day * i32::try_from(days).unwrap_or(0) / 3).min(day * 10) };
        let chance = Chance::new(seed).part(3);
        let mut course = Self {
            world: Arc::new(Mutex::new(world)),
            clock,
            replicas: Vec::new(),
            chance,
            end,
            peace_at,
            database_clock,
            wrong_by: Vec::new(),
        };
        course.prepare(faults, begin);
        course
    }

    /// These customers know of their trouble before it begins.
    pub(super) fn are_told_already(&mut self, told: &[bool]) {
        let mut world = lock(&self.world);
        for (seen, told) in world.observer.seen.iter_mut().zip(told) {
            seen.is_told_already = *told;
        }
    }

    fn prepare(&mut self, faults: &FaultList, begin: Timestamp) {
        let is_one = !lock(&self.world).customers_return
            && faults.wanted.iter().all(|wanted| wanted.kind.fault().area != Area::Process);
        let count = if faults.wanted.is_empty() || is_one { 1 } else { REPLICAS };
        // The places of those that serve for a while only are there from the start.
        for number in 0..count + 2 {
            self.replicas.push(Replica::new(number));
            self.wrong_by.push(SignedDuration::ZERO);
            let mut world = lock(&self.world);
            world.replicas.push(ReplicaState::default());
            world.journals.push(self.replicas[number].journal.clone());
            if number < count {
                world.at(begin, Event::Start(number));
            }
        }
        let mut world = lock(&self.world);
        let first = world.run_due_after(begin).unwrap_or(self.end);
        world.at(first + SignedDuration::from_mins(20), Event::RunWasDue(first));
        if self.peace_at < self.end {
            world.at(self.peace_at, Event::Peace);
        }
        let apps = world.fleet.app_count;
        let schedule = world.fleet.schedule.clone();
        for wanted in &faults.wanted {
            for at in begins(wanted, begin, self.peace_at, &mut self.chance) {
                let mut at = at;
                // Troubles meet the nightly run more often than chance would have it.
                if matches!(wanted.kind.fault().area, Area::Provider | Area::Database)
                    && wanted.on_day.is_none()
                    && self.chance.permille(600)
                    && let Some(run) = schedule.next_after(at)
                {
                    let into = self.chance.between(0, wanted.lasts.as_secs().unsigned_abs().max(1));
                    at = (run - SignedDuration::from_secs(into as i64)).max(begin);
                }
                let target = match (wanted.kind, wanted.kind.fault().area) {
                    (Kind::Outage, _) if wanted.is_named => Target::All,
                    (_, Area::Provider) if self.chance.permille(700) => {
                        Target::One(self.chance.below(apps as u64) as usize)
                    }
                    (Kind::DatabaseCut, _) => Target::One(self.chance.below(count as u64) as usize),
                    _ => Target::All,
                };
                let ends = at + wanted.lasts;
                if wanted.lasts.is_zero() || is_moment(wanted.kind) {
                    world.at(at, Event::Strike(wanted.kind));
                } else {
                    world.at(at, Event::Begin(wanted.kind, target, ends));
                }
            }
        }
    }

    /// Goes to the end. `progress` hears of each day.
    pub(super) fn run(&mut self, progress: &mut dyn FnMut(u32), stop_at_first: bool) {
        let begin = self.clock.now();
        let (mut day, mut steps) = (0, 0);
        let steps_max = steps_a_day_max(lock(&self.world).accounts.len());
        loop {
            while self.step() {
                steps += 1;
                // There may be no other instant to come.
                if steps > steps_max {
                    let mut world = lock(&self.world);
                    world.broke("never_at_rest", None, self.clock.now(), format!("{steps} steps within a day"));
                    return world.trace.flush();
                }
            }
            if !self.pass_time() {
                break;
            }
            let passed = u32::try_from(self.clock.now().duration_since(begin).as_hours() / 24).unwrap_or(u32::MAX);
            if passed != day {
                (day, steps) = (passed, 0);
                progress(day);
            }
            let broken = lock(&self.world).observer.broken();
            if broken > if stop_at_first { 0 } else { BROKEN_MAX } {
                return lock(&self.world).trace.flush();
            }
        }
        let mut world = lock(&self.world);
        let quiet = self.end.duration_since(self.peace_at);
        if quiet >= observer::BOUND {
            world.check_peace(self.end);
        }
        world.trace.flush();
    }

    /// Lets one replica work until it waits; `false` if none can.
    fn step(&mut self) -> bool {
        let number = {
            let world = lock(&self.world);
            let can_go_on =
                |replica: &&Replica| replica.can_go_on() && world.replicas[replica.number].paused_until.is_none();
            let ready = || self.replicas.iter().filter(can_go_on);
            let place = match ready().count() {
                0 => return false,
                1 => 0,
                count => self.chance.below(count as u64) as usize,
            };
            ready().nth(place).map_or(0, |replica| replica.number)
        };
        let ended = self.replicas[number].go_on();
        let now = self.clock.now();
        let doomed = {
            let mut world = lock(&self.world);
            world.saw_step(now);
            world.replicas[number].doomed.take()
        };
        if let Some(step) = doomed {
            self.kill(number, step, now);
        } else if let Some(result) = ended {
            self.ended(number, result, now);
        }
        true
    }

    fn kill(&mut self, number: usize, step: &str, now: Timestamp) {
        self.replicas[number].kill();
        let mut world = lock(&self.world);
        world.trace.tell(now, None, || format!("r{number} is killed: {step}"));
        world.is_down(number, now);
        world.check_generations(now);
        let again = now + SignedDuration::from_secs(world.chance.between(1, 180) as i64);
        world.at(again, Event::Start(number));
    }

    fn ended(&self, number: usize, result: Result<(), RunError>, now: Timestamp) {
        let mut world = lock(&self.world);
        world.trace.tell(now, None, || match result {
            Ok(()) => format!("r{number} has stopped"),
            Err(error) => format!("r{number} could not start: {error}"),
        });
        world.is_down(number, now);
        if number < REPLICAS && !world.weather.is_on(Kind::HostOff) {
            world.at(now + STARTED_AGAIN_AFTER, Event::Start(number));
        }
    }

    /// Lets time pass to the next instant; `false` at the end.
    fn pass_time(&mut self) -> bool {
        let now = self.clock.now();
        let passed = self.clock.monotonic();
        let sleep = self.clock.next_at();
        let (event, rest) = {
            let world = lock(&self.world);
            let event = world.events.first_key_value().map(|((at, _), _)| *at);
            (event, world.next_look())
        };
        let in_time = |at: Timestamp| {
            passed + Duration::try_from(at.duration_since(now).max(SignedDuration::ZERO)).unwrap_or_default()
        };
        let event = event.map(in_time);
        let next = [sleep, event, rest.map(|(at, _)| at)].into_iter().flatten().min();
        let end = in_time(self.end);
        let Some(next) = next.filter(|next| *next <= end) else {
            self.clock.advance(end.saturating_sub(passed));
            return false;
        };
        if sleep == Some(next) {
            return self.clock.wake_next();
        }
        let wait = next.saturating_sub(passed);
        if !wait.is_zero() {
            self.clock.advance(wait);
        }
        if event == Some(next) {
            self.happen();
        } else if let Some((_, number)) = rest {
            lock(&self.world).wake(number);
        }
        true
    }

    /// The next event happens.
    fn happen(&mut self) {
        let now = self.clock.now();
        let Some((_, event)) = lock(&self.world).events.pop_first() else { return };
        match event {
            Event::Start(number) => self.start(number, now),
            Event::Leave(number) => {
                self.replicas[number].stop();
                lock(&self.world).agenda.deed(now);
            }
            Event::Begin(kind, target, ends) => self.begin(kind, target, ends, now),
            Event::End(kind, target) => self.end(kind, target, now),
            Event::Strike(kind) => self.strike(kind, now),
            Event::Resume(number) => {
                let mut world = lock(&self.world);
                world.replicas[number].paused_until = None;
                world.trace.tell(now, None, || format!("r{number} goes on"));
                world.disturb(now);
            }
            Event::TakeOver(snapshot) => {
                let mut world = lock(&self.world);
                world.store.fail_over(snapshot);
                world.is_failing_over = false;
                world.trace.tell(now, None, || "a standby has taken over".to_owned());
                world.saw_fail_over(now);
            }
            Event::LogIn(number) => lock(&self.world).log_in(number, now),
            Event::Insert(number) => lock(&self.world).insert(number, now),
            Event::Expiry(number, at) => lock(&self.world).check_expiry_date(number, at, now),
            Event::RunWasDue(at) => lock(&self.world).check_run(at, now),
            Event::TakenUp => lock(&self.world).check_taken_up(now),
            Event::Peace => self.make_peace(now),
            Event::Nothing => {}
        }
        lock(&self.world).note_good(now);
    }

    fn start(&mut self, number: usize, now: Timestamp) {
        if self.replicas[number].is_up() || lock(&self.world).weather.is_on(Kind::HostOff) {
            return;
        }
        self.replicas[number].start(&self.world, &self.clock, self.wrong_by[number]);
        let mut world = lock(&self.world);
        world.replicas[number].is_up = true;
        world.trace.tell(now, None, || format!("r{number} starts"));
        world.disturb(now);
    }

    fn begin(&mut self, kind: Kind, target: Target, ends: Timestamp, now: Timestamp) {
        if ends <= now || lock(&self.world).is_peace {
            return;
        }
        {
            let mut world = lock(&self.world);
            world.weather.begin(kind, target);
            world.trace.tell(now, None, || format!("fault begins: {} ({target:?})", kind.fault().name));
            world.disturb(now);
            if !is_armed(kind) {
                world.at(ends, Event::End(kind, target));
            }
        }
        match kind {
            Kind::HostOff => {
                lock(&self.world).weather.fire(kind);
                for number in 0..self.replicas.len() {
                    if self.replicas[number].is_up() {
                        self.replicas[number].kill();
                        lock(&self.world).is_down(number, now);
                    }
                }
            }
            Kind::MoreReplicas => {
                let mut world = lock(&self.world);
                world.weather.fire(kind);
                for number in self.replicas.len() - 2..self.replicas.len() {
                    world.at(now, Event::Start(number));
                    world.at(ends, Event::Leave(number));
                }
            }
            Kind::JournalFull => {
                let mut world = lock(&self.world);
                world.weather.fire(kind);
                world.journals.iter().for_each(|journal| journal.fill(true));
            }
            Kind::RowRefused => {
                let mut world = lock(&self.world);
                world.weather.fire(kind);
                for _ in 0..3 {
                    let number = self.chance.below(world.accounts.len() as u64) as usize;
                    let (source, id) = (world.accounts[number].source, world.row_id(number));
                    world.store.refuse_row(source, &id, Some("value too long for type character varying(20)"));
                    world.refused_rows.insert(number);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, kind: Kind, target: Target, now: Timestamp) {
        let mut world = lock(&self.world);
        world.weather.end(kind, target);
        if kind.fault().area == Area::Provider {
            world.at(now + observer::TAKEN_UP_WITHIN, Event::TakenUp);
        }
        world.trace.tell(now, None, || format!("fault ends: {}", kind.fault().name));
        world.disturb(now);
        match kind {
            Kind::HostOff if !world.weather.is_on(kind) => {
                for number in 0..REPLICAS.min(self.replicas.len() - 2) {
                    world.at(now, Event::Start(number));
                }
            }
            Kind::JournalFull if !world.weather.is_on(kind) => {
                world.journals.iter().for_each(|journal| journal.fill(false));
            }
            Kind::RowRefused if !world.weather.is_on(kind) => {
                for number in std::mem::take(&mut world.refused_rows) {
                    let (source, id) = (world.accounts[number].source, world.row_id(number));
                    world.store.refuse_row(source, &id, None);
                }
            }
            _ => {}
        }
    }

    /// A fault without a duration.
    fn strike(&mut self, kind: Kind, now: Timestamp) {
        if lock(&self.world).is_peace {
            return;
        }
        let mut world = lock(&self.world);
        let count = world.accounts.len() as u64;
        if count == 0 {
            return;
        }
        let number = self.chance.below(count) as usize;
        let serving = REPLICAS.min(self.replicas.len() - 2) as u64;
        let replica = self.chance.below(serving) as usize;
        world.weather.fire(kind);
        let whom = matches!(kind.fault().area, Area::App | Area::Provider).then_some(number);
        world.trace.tell(now, whom, || format!("fault: {}", kind.fault().name));
        world.agenda.deed(now);
        match kind {
            Kind::Restart => {
                world.disturb(now);
                self.replicas[replica].stop();
            }
            Kind::ReplicaClock => {
                // Hours or years; it is seen when the process starts.
                let hours = if self.chance.permille(500) { 48 } else { 20 * 365 * 24 };
                let wrong = self.chance.between(0, hours) as i64 - hours as i64 / 2;
                self.wrong_by[replica] = SignedDuration::from_hours(wrong);
                world.disturb(now);
                self.replicas[replica].stop();
            }
            Kind::Pause => {
                let until = now + SignedDuration::from_secs(self.chance.between(5, 1200) as i64);
                if world.replicas[replica].paused_until.is_none() {
                    world.replicas[replica].paused_until = Some(until);
                    world.replicas[replica].pauses.push((now, until));
                    world.at(until, Event::Resume(replica));
                    world.disturb(now);
                }
            }
            Kind::Failover if !world.is_failing_over => {
                let snapshot = world.store.snapshot();
                world.is_failing_over = true;
                world.observer.lost_since = Some(now + world.database_ahead);
                world.disturb(now);
                let lost = SignedDuration::from_millis(self.chance.between(50, 20_000) as i64);
                world.at(now + lost, Event::TakeOver(snapshot));
                world.at(
                    now + lost,
                    Event::Begin(Kind::DatabaseDown, Target::All, now + lost + SignedDuration::from_secs(8)),
                );
            }
            Kind::DatabaseClock => {
                let mut ahead = self.database_clock.ahead.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *ahead += SignedDuration::from_secs(self.chance.between(1, 60) as i64);
                world.database_ahead = *ahead;
                // Leases lapse earlier by that much.
                world.disturb(now);
            }
            Kind::Revoked => {
                let (since, account) = (now, &mut world.accounts[number]);
                account.refuse(since);
                world.trace.tell(now, Some(number), || "the customer has taken the app's rights away".to_owned());
            }
            Kind::Stuck if world.accounts[number].source == 0 && world.accounts[number].standing == Standing::Well => {
                (world.accounts[number].standing, world.accounts[number].standing_since) = (Standing::Stuck, now);
                world.trace.tell(now, Some(number), || "its expiry moves no more".to_owned());
            }
            Kind::PoisonRow => {
                let until = now + SignedDuration::from_hours(self.chance.between(24, 24 * 9) as i64);
                world.accounts[number].breaks_until = Some(until);
                world.trace.tell(now, Some(number), || "its answers are 500 from now on".to_owned());
            }
            Kind::Reconnect => world.log_in(number, now),
            Kind::Delete => world.delete(number, now),
            Kind::Undated => {
                world.log_in(number, now);
                world.change(number, now, "the app has stored no date", |row| row.expires_at = None);
            }
            Kind::NoTokenInRow => {
                world.change(number, now, "the app has removed the token", |row| row.token = None);
                let back = now + SignedDuration::from_hours(self.chance.between(24, 240) as i64);
                world.at(back, Event::LogIn(number));
            }
            Kind::OddToken => {
                let odd = ["two words", "with\0nul", "\u{1f511} \n"][self.chance.below(3) as usize];
                world.change(number, now, "the app has stored what is no token", |row| {
                    row.token = Some(perene_policy::Secret::new(odd));
                    row.expires_at = Some(now + SignedDuration::from_hours(72));
                });
                let back = now + SignedDuration::from_hours(self.chance.between(24, 240) as i64);
                world.at(back, Event::LogIn(number));
            }
            Kind::AppFlag => {
                if let Some(user) = world.users[number].clone() {
                    world.store.raise_flag(0, &user);
                    world.observer.raised_by_app.insert(user);
                }
            }
            _ => {}
        }
    }

    /// All faults end.
    fn make_peace(&mut self, now: Timestamp) {
        let on: Vec<(Kind, Target)> = lock(&self.world).weather.all();
        for (kind, target) in on {
            self.end(kind, target, now);
        }
        let mut world = lock(&self.world);
        world.is_peace = true;
        world.trace.tell(now, None, || "peace: all faults have ended".to_owned());
    }
}

/// When a fault is to begin.
fn begins(wanted: &Wanted, begin: Timestamp, end: Timestamp, chance: &mut Chance) -> Vec<Timestamp> {
    let day = SignedDuration::from_hours(24);
    if let Some(on_day) = wanted.on_day {
        return vec![begin + day * i32::try_from(on_day).unwrap_or(i32::MAX)];
    }
    let span = end.duration_since(begin).as_secs().max(1).unsigned_abs();
    let a_year = wanted.kind.fault().a_year * span;
    let year = 365 * 24 * 3600;
    let mut count = a_year / year + u64::from(chance.below(year) < a_year % year);
    if wanted.is_named && wanted.kind.fault().a_year > 0 {
        // Whoever names a fault wants to see it.
        count = count.max(1);
    }
    (0..count).map(|_| begin + SignedDuration::from_secs(chance.below(span) as i64)).collect()
}

/// Faults that wait for their moment, however long it takes.
fn is_armed(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::KillBeforeCall
            | Kind::KillInCall
            | Kind::KillAfterAnswer
            | Kind::KillBeforeCommit
            | Kind::KillAfterCommit
            | Kind::KillAtNotice
    )
}

/// Faults that last by themselves, if they do.
fn is_moment(kind: Kind) -> bool {
    matches!(kind, Kind::Pause | Kind::ReplicaClock)
}

impl World {
    /// When a replica that rests is to look next, and which.
    fn next_look(&self) -> Option<(Duration, usize)> {
        let resting = self.replicas.iter().enumerate();
        let resting = resting.filter(|(_, replica)| replica.paused_until.is_none());
        let resting = resting.filter_map(|(number, replica)| Some((number, replica.resting.as_ref()?)));
        let next = resting.filter(|(_, resting)| !resting.is_over).map(|(number, resting)| {
            let due = self.agenda.next_after(resting.since, self.replicas[number].swept_at);
            let wait = Duration::try_from(due.duration_since(resting.since)).unwrap_or_default();
            let tick = resting.tick.as_nanos().max(1);
            let ticks = wait.as_nanos().div_ceil(tick).max(1);
            let nanos = u64::try_from(ticks * tick).unwrap_or(u64::MAX);
            (resting.begun + Duration::from_nanos(nanos), number)
        });
        next.min()
    }

    fn wake(&mut self, number: usize) {
        self.observer.looks += 1;
        if let Some(resting) = &mut self.replicas[number].resting {
            resting.is_over = true;
            resting.waker.wake_by_ref();
        }
    }

    /// A replica is no more.
    fn is_down(&mut self, number: usize, now: Timestamp) {
        let state = &mut self.replicas[number];
        (state.is_up, state.calling, state.resting, state.paused_until) = (false, 0, None, None);
        state.downs.push(now);
        for seen in &mut self.observer.seen {
            seen.in_flight.retain(|replica| *replica != number);
            // What only the dead one was told may be asked again.
            let is_fresh = seen.last_call_at.is_some_and(|at| now.duration_since(at) < SignedDuration::from_mins(1));
            seen.limited_until = seen.limited_until.filter(|(_, told)| !is_fresh || *told != number);
        }
        self.disturb(now);
    }

    /// Something has happened after which leases have to lapse, and messages may come twice.
    fn disturb(&mut self, now: Timestamp) {
        self.observer.disturbed_at = now;
        self.agenda.deed(now);
        for wait in [51, 56, 61, 120, 126, 140] {
            self.agenda.add(now + SignedDuration::from_secs(wait), super::agenda::NOBODYS);
        }
        // What Perene has written in this very step is seen with the next.
        self.note_good(now);
    }

    /// The rows are what the standby has: some went back, through nobody's fault.
    fn saw_fail_over(&mut self, now: Timestamp) {
        let _ = self.store.take_changes();
        self.observer.failed_over_at = Some(now);
        for number in 0..self.accounts.len() {
            let was_of_app = self.observer.seen[number].is_of_app;
            let before = self.observer.seen[number].generation;
            self.look_at_row(number, now);
            self.observer.seen[number].is_of_app = was_of_app;
            (self.observer.seen[number].version_of_run, self.observer.seen[number].counted_for) = (u64::MAX, None);
            // What was called since then may be forgotten, and is called again.
            self.observer.seen[number].calls.clear();
            self.observer.seen[number].limited_until = None;
            self.expect_back(number, before, now);
        }
        self.recall_messages();
        self.disturb(now);
    }
}
