//! The connections of a simulation: of every kind of provider, with dates spread over their lives.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use perene_policy::schedule::Schedule;
use perene_policy::{Class, Grant, Secret, Settings};

use super::chance::Chance;
use super::truth::{Account, Generation, Standing};
use crate::config::{META, Source, TableName};
use crate::store::memory::{AppRow, MemoryStore, UserRow};

/// A mapped table, and who renews its tokens.
#[derive(Debug, Clone)]
pub(super) struct FleetSource {
    pub(super) mapped: Source,
    pub(super) class: Class,
    pub(super) usual_life: Option<SignedDuration>,
    /// Of each grant: the app's name, and its place among all apps.
    pub(super) apps: Vec<(Grant, String, usize)>,
}

/// What does not change while a simulation runs.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) sources: Vec<FleetSource>,
    pub(super) settings: Settings,
    pub(super) schedule: Schedule,
    pub(super) zone: TimeZone,
    /// The hour and minute of the runs, on the wall clock of the zone; `None`: as somebody has configured it.
    pub(super) run_at: Option<(i8, i8)>,
    pub(super) concurrency: usize,
    /// How many apps there are.
    pub(super) app_count: usize,
}

/// One connection as the simulation begins.
#[derive(Debug, Clone)]
pub(super) struct Linked {
    pub(super) account: Account,
    pub(super) row: AppRow,
    pub(super) user: Option<UserRow>,
}

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The apps of these sources, numbered.
pub(super) fn with_apps(sources: Vec<(Source, Class, Option<SignedDuration>)>) -> (Vec<FleetSource>, usize) {
    let mut names: Vec<String> = Vec::new();
    let mut number = |name: &str| match names.iter().position(|known| known == name) {
        Some(place) => place,
        None => {
            names.push(name.to_owned());
            names.len() - 1
        }
    };
    let sources = sources
        .into_iter()
        .map(|(mapped, class, usual_life)| {
            let apps = if mapped.provider == META {
                Grant::META.map(|grant| (grant, grant.name().to_owned(), number(grant.name()))).to_vec()
            } else {
                vec![(Grant::Oauth2, mapped.provider.clone(), number(&mapped.provider))]
            };
            FleetSource { mapped, class, usual_life, apps }
        })
        .collect();
    (sources, names.len())
}

/// A table for each class of provider.
pub(super) fn sources() -> Vec<(Source, Class, Option<SignedDuration>)> {
    let oauth2 = |name: &str, class| {
        let table = TableName { schema: None, name: format!("{name}_connections") };
        let mut source = Source { table, provider: name.to_owned(), ..Source::default() };
        source.columns.refresh_token = Some("refresh_token".to_owned());
        (source, class, None)
    };
    vec![
        (Source::default(), Class::Extend, None),
        oauth2("extend", Class::Extend),
        oauth2("grace", Class::Grace),
        oauth2("strict", Class::Strict),
    ]
}

/// So many connections: seven of ten at Meta, one at a provider of each other class; two of them a customer.
pub(super) fn invent(count: usize, only: Option<Class>, chance: &mut Chance, now: Timestamp) -> Vec<Linked> {
    (0..count).map(|number| invent_one(number, only, chance, now)).collect()
}

fn invent_one(number: usize, only: Option<Class>, chance: &mut Chance, now: Timestamp) -> Linked {
    let (source, class, life_days) = match (number % 10, only) {
        (_, Some(Class::Extend)) => (0, Class::Extend, 60),
        (8, None) | (_, Some(Class::Grace)) => (2, Class::Grace, 45),
        (9, None) | (_, Some(Class::Strict)) => (3, Class::Strict, 30),
        (7, None) => (1, Class::Extend, 60),
        (_, None) => (0, Class::Extend, 60),
    };
    let grant = if source == 0 { Grant::META[number % 3] } else { Grant::Oauth2 };
    let life = DAY * life_days;
    // Some have hardly any life left: nobody has refreshed them before Perene came.
    let most = if chance.permille(60) { 70 * 3600 } else { life.as_secs().unsigned_abs() };
    let left = SignedDuration::from_secs(chance.between(36 * 3600, most) as i64);
    let expires_at = now + left;
    let issued_at = expires_at - life;
    let account = Account {
        number,
        row: number.to_string(),
        source,
        grant,
        class,
        standing: Standing::Well,
        standing_since: issued_at,
        rotates: grant == Grant::Oauth2 && class != Class::Extend || chance.permille(500),
        is_silent: grant == Grant::Facebook && chance.permille(200),
        has_data_access: grant == Grant::Facebook && chance.permille(200),
        login_at: issued_at,
        life,
        generations: vec![Generation::of_login(issued_at, expires_at)],
        breaks_until: None,
    };
    let user_id = (number / 2).to_string();
    let user = UserRow {
        id: user_id.clone(),
        email: Some(format!("customer{user_id}@example.com")),
        username: Some(format!("customer{user_id}")),
        flag: false,
    };
    Linked { row: row(&account, &user_id, now), account, user: number.is_multiple_of(2).then_some(user) }
}

/// The row that the app keeps of an account's latest generation.
pub(super) fn row(account: &Account, user_id: &str, now: Timestamp) -> AppRow {
    let latest = account.latest();
    let generation = &account.generations[latest];
    let mut row = AppRow::new(account.id(), user_id, &account.token(latest), Some(generation.expires_at));
    row.refresh_token = account.refresh_token(latest).map(Secret::new);
    row.refreshed_at = Some(generation.issued_at).filter(|at| *at <= now && account.grant == Grant::Oauth2);
    row
}

/// Puts them into the database, as the app did.
pub(super) fn store(fleet: &[Linked], store: &MemoryStore) {
    for linked in fleet {
        if let Some(user) = &linked.user {
            store.insert_user(linked.account.source, user.clone());
        }
        store.insert_connection(linked.account.source, linked.row.clone());
    }
}
