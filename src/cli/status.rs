//! `perene status`: how the connections stand, from the database alone.

use jiff::{SignedDuration, Timestamp};
use perene_policy::app::Permission;
use perene_policy::backoff::NEVER;
use perene_policy::{Connection, Grant, Outcome, Settings, State, due};
use serde_json::{Value, json};

use super::args::{Format, Global, Status};
use super::exit::Exit;
use super::failure::Failure;
use super::{assemble, ids, load, out, table};
use crate::config::{Config, META, Oauth2, Source};
use crate::store::{Claim, HistoryLine, Standing, Store, StoredAlarm, Which};

/// How many of the next to expire are shown.
const SOONEST: usize = 10;

/// How many lines of history are shown.
const HISTORY: usize = 50;

pub(super) async fn status(args: &Status, global: &Global) -> Result<Exit, Failure> {
    let config = load(global)?;
    let clock = assemble::clock();
    let store = assemble::store(&config, &clock, false).await?;
    let now = store.now().await?;
    let text = match &args.id {
        None => {
            let windows = windows(store.as_ref(), &config).await?;
            let mut standing = store.standing(&windows, SOONEST, now).await?;
            count_limited(store.as_ref(), &config.sources, &windows, now, &mut standing).await?;
            let alarms = store.alarms().await?;
            match args.report.format {
                Format::Json => fleet_json(&standing, &alarms, &config.sources).to_string(),
                Format::Text => fleet_text(&standing, &alarms, &config.sources, now),
            }
        }
        Some(text) => {
            let (source, id) = ids::find(store.as_ref(), &config.sources, text).await?;
            let found = store.find(source, &id).await?;
            let connection = found.ok_or_else(|| Failure::wrong_use(format!("connection `{text}` not found")))?;
            let history = store.history(source, &id, HISTORY).await?;
            let window = windows(store.as_ref(), &config).await?[source];
            let settings = Settings { window, ..config.refresh.settings() };
            let state = state_of(&connection, due::settings_of(&connection, settings).window, now);
            match args.report.format {
                Format::Json => one_json(&connection, state, &history).to_string(),
                Format::Text => one_text(&connection, state, &history, now),
            }
        }
    };
    store.close().await;
    out::say(&text);
    Ok(Exit::Done)
}

/// How long before its expiry a token of each source is due: of those that live hours, the last third of their life,
/// as the provider told it last or is known for.
async fn windows(store: &dyn Store, config: &Config) -> Result<Vec<SignedDuration>, Failure> {
    let mut windows = Vec::with_capacity(config.sources.len());
    for source in &config.sources {
        let settings = config.refresh.settings();
        let known = config.providers.oauth2.get(&source.provider);
        let told = match known {
            Some(known) => store.app(&known.name).await?.and_then(|(_, app)| app.life),
            None => None,
        };
        let life = told.or_else(|| known.and_then(Oauth2::usual_life));
        windows.push(life.map_or(settings, |life| settings.for_life(life)).window);
    }
    Ok(windows)
}

/// What would be due, but for a limit on its app, is counted as limited.
pub(super) async fn count_limited(
    store: &dyn Store,
    sources: &[Source],
    windows: &[SignedDuration],
    now: Timestamp,
    standing: &mut Standing,
) -> Result<(), Failure> {
    for (source, mapped) in sources.iter().enumerate() {
        let grants: &[Grant] = if mapped.provider == META { &Grant::META } else { &[Grant::Oauth2] };
        for grant in grants {
            let name = if *grant == Grant::Oauth2 { mapped.provider.as_str() } else { grant.name() };
            let Some((_, app)) = store.app(name).await? else { continue };
            if !matches!(app.permission(now), Permission::Wait { outcome: Outcome::RateLimited, .. }) {
                continue;
            }
            let due = Claim {
                source,
                which: Which::Due { window: windows[source.min(windows.len() - 1)] },
                grants: &[*grant],
                holder: "",
                fence: uuid::Uuid::nil(),
                now,
                until: now,
                after: None,
                limit: 1,
                overdue: SignedDuration::ZERO,
            };
            let waiting = store.count(&due).await?.min(standing.due);
            standing.due -= waiting;
            standing.limited += waiting;
        }
    }
    Ok(())
}

/// The name of a connection in reports: with its table where several are mapped.
fn shown_id(sources: &[Source], source: usize, id: &str) -> String {
    if sources.len() > 1 { format!("{}:{id}", sources[source].table) } else { id.to_owned() }
}

fn fleet_json(standing: &Standing, alarms: &[StoredAlarm], sources: &[Source]) -> Value {
    let soonest: Vec<Value> = standing
        .soonest
        .iter()
        .map(|(source, id, at)| json!({"id": shown_id(sources, *source, id), "expires_at": second(*at)}))
        .collect();
    let alarms: Vec<Value> = alarms
        .iter()
        .map(|alarm| json!({"kind": alarm.kind, "since": second(alarm.since), "text": alarm.text}))
        .collect();
    json!({
        "healthy": standing.healthy,
        "due": standing.due,
        "failing": standing.failing,
        "waiting": standing.waiting,
        "dark": standing.dark,
        "limited": standing.limited,
        "soonest": soonest,
        "alarms": alarms,
    })
}

pub(super) fn fleet_text(standing: &Standing, alarms: &[StoredAlarm], sources: &[Source], now: Timestamp) -> String {
    let mut counts = table::plain();
    for (name, count, meaning) in [
        ("healthy", standing.healthy, "nothing to do"),
        ("due", standing.due, "refreshed by the next run"),
        ("failing", standing.failing, "the last refresh failed; it is tried again by itself"),
        ("waiting", standing.waiting, "too young, waiting for its next try, or for the customer's own login"),
        ("limited", standing.limited, "the provider asked for a pause"),
        ("dark", standing.dark, "expired or refused for good: the customer must reconnect"),
    ] {
        counts.add_row([name.to_owned(), count.to_string(), meaning.to_owned()]);
    }
    let mut text = lines(&counts);
    if !standing.soonest.is_empty() {
        text.push_str("\nnext to expire\n");
        let mut soonest = table::plain();
        for (source, id, at) in &standing.soonest {
            soonest.add_row([shown_id(sources, *source, id), second(*at), left(*at, now)]);
        }
        text.push_str(&lines(&soonest));
    }
    text.push_str(if alarms.is_empty() { "\nno alarms" } else { "\nalarms" });
    for alarm in alarms {
        text.push_str(&format!("\n  {} since {}: {}", alarm.kind, second(alarm.since), alarm.text));
    }
    text
}

/// How one connection stands, as a fixed word.
fn state_of(connection: &Connection, window: SignedDuration, now: Timestamp) -> &'static str {
    let memory = connection.memory_of_this_generation();
    if connection.token.expose().is_empty() {
        return "no_token";
    }
    match memory.map(|memory| &memory.state) {
        _ if connection.expires_at.is_some_and(|at| at <= now) => "dark",
        Some(State::NeedsReconnect { .. }) => "needs_reconnect",
        Some(State::Failing { .. }) => "failing",
        Some(State::NotExtended) => "not_extended",
        Some(State::Waiting { outcome: Outcome::RateLimited, .. }) => "limited",
        Some(State::Waiting { .. }) => "waiting",
        Some(State::NeverExpires) => "never_expires",
        Some(State::Uncertain { .. }) => "uncertain",
        Some(State::Healthy) | None => match connection.expires_at {
            Some(at) if due::within(at, now, window) => "due",
            Some(_) => "healthy",
            None => "due",
        },
    }
}

fn meaning(state: &str) -> &'static str {
    match state {
        "no_token" => "the row holds no token: nothing is refreshed",
        "dark" => "the token has expired: the customer must reconnect",
        "needs_reconnect" => {
            "the provider has refused the token: the customer must reconnect; it is tried once a day, should it revive"
        }
        "failing" => "the last refresh failed; it is tried again by itself",
        "not_extended" => "the token works, but the provider does not extend it: only the customer's own login does",
        "limited" => "the provider asked for a pause",
        "waiting" => "it is not its time yet; nothing is wrong with the customer's account",
        "uncertain" => {
            "the token was sent and its answer was lost: the access token goes on, one last try follows before it ends"
        }
        "never_expires" => "the provider says that this token never expires",
        "due" => "it is refreshed by the next run",
        _ => "nothing to do",
    }
}

fn one_json(connection: &Connection, state: &str, history: &[HistoryLine]) -> Value {
    let incident = connection.memory.as_ref().and_then(|memory| memory.incident.as_ref()).map(
        |incident| json!({"id": incident.id, "opened_at": second(incident.opened_at), "cause": incident.cause.name()}),
    );
    let history: Vec<Value> = history
        .iter()
        .map(|line| json!({"at": second(line.at), "event": line.event, "outcome": line.outcome, "text": line.text}))
        .collect();
    json!({
        "id": connection.id,
        "state": state,
        "expires_at": connection.expires_at.map(second),
        "attempts": connection.attempts,
        "incident": incident,
        "history": history,
    })
}

fn one_text(connection: &Connection, state: &str, history: &[HistoryLine], now: Timestamp) -> String {
    let mut text = format!("connection {}: {state}\n  {}\n", connection.id, meaning(state));
    match connection.expires_at {
        Some(at) => text.push_str(&format!("  expires {} ({})\n", second(at), left(at, now))),
        None => text.push_str("  no expiry is known\n"),
    }
    text.push_str(&format!("  {} failed runs\n", connection.attempts));
    let memory = connection.memory.as_ref();
    match memory.and_then(|memory| memory.next_try_at) {
        Some(at) if at == NEVER => text.push_str("  not sent again before the app has put another token there\n"),
        Some(at) => text.push_str(&format!("  next try {}\n", second(at))),
        None => {}
    }
    if let Some(incident) = memory.and_then(|memory| memory.incident.as_ref()) {
        let warned = match incident.warned_at {
            Some(at) => format!("the customer was warned at {}", second(at)),
            None => "the customer has not been warned".to_owned(),
        };
        text.push_str(&format!(
            "  incident {} since {}, by {}; {warned}\n",
            incident.id,
            second(incident.opened_at),
            incident.cause
        ));
    }
    if history.is_empty() {
        text.push_str("\nno history yet");
        return text;
    }
    text.push_str("\nhistory, newest first\n");
    let mut rows = table::plain();
    for line in history {
        let outcome = line.outcome.clone().unwrap_or_default();
        rows.add_row([second(line.at), line.event.clone(), outcome, line.text.clone()]);
    }
    text.push_str(lines(&rows).trim_end());
    text
}

fn lines(table: &comfy_table::Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// An instant for people and scripts: RFC 3339 in UTC, whole seconds.
fn second(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// How much time is left, in the unit that a person would use.
fn left(at: Timestamp, now: Timestamp) -> String {
    let left = at.duration_since(now);
    let (hours, minutes) = (left.as_hours(), left.as_mins());
    match () {
        () if left.is_negative() => "expired".to_owned(),
        () if hours >= 48 => format!("in {} days", hours / 24),
        () if hours >= 1 => format!("in {hours} h"),
        () => format!("in {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_the_unit_a_person_would_use() {
        let now: Timestamp = "2026-11-23T03:00:00Z".parse().unwrap();
        let told = |minutes: i64| left(now + SignedDuration::from_mins(minutes), now);
        assert_eq!(
            [-1, 5, 90, 47 * 60, 48 * 60, 7 * 1440].map(told),
            ["expired", "in 5 min", "in 1 h", "in 47 h", "in 2 days", "in 7 days"]
        );
    }

    #[test]
    fn instants_are_whole_seconds_in_utc() {
        let at: Timestamp = "2026-11-23T03:00:00.123456-03:00".parse().unwrap();
        assert_eq!(second(at), "2026-11-23T06:00:00Z");
    }
}
