//! `perene simulate --from-database`: what would become of the owner's own connections. Reads, and does nothing else.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use perene_policy::schedule::Schedule;
use perene_policy::{Class, Connection, Grant};
use serde_json::{Value, json};

use super::args::{Format, Global, Simulate};
use super::exit::Exit;
use super::failure::Failure;
use super::written::Written;
use super::{assemble, load_quietly, out, simulate, table};
use crate::config::{Config, META, Source};
use crate::simulate::{Endurance, FaultList, Outcome, Rehearsal, calendar};
use crate::store::{Claim, Cursor, FindingKind, Store, Which};

/// Rows that are read at a time.
const PAGE: usize = 1000;

/// Mails that are listed; the sums have all.
const LISTED_MAX: usize = 40;

pub(super) async fn rehearse(args: &Simulate, global: &Global, faults: &FaultList) -> Result<Exit, Failure> {
    // What the simulated engine logs, with the present time on it, would look like the real one's.
    let config = load_quietly(global)?;
    let clock = assemble::clock();
    let store = assemble::store(&config, &clock, false).await?;
    // What is no date is never due, and is not among what is rehearsed.
    for finding in store.findings().await?.iter().filter(|finding| finding.kind == FindingKind::Advice) {
        eprintln!("warning: {}", finding.text);
    }
    let read_at = store.now().await?;
    // From the full hour: the same rows, asked again a moment later, give the same report.
    let begin = Timestamp::from_second(read_at.as_second().div_euclid(3600) * 3600).unwrap_or(read_at);
    let zone = config.schedule.time_zone.clone();
    let schedule = Schedule::parse(&config.schedule.cron, zone.clone(), begin)
        .map_err(|error| Failure::wrong_use(format!("`schedule.cron`: {error}")))?;
    let mut rehearsal = Rehearsal {
        sources: config.sources.iter().map(|source| source_of(source, &config)).collect(),
        settings: config.refresh.settings(),
        schedule,
        zone: zone.clone(),
        concurrency: config.refresh.concurrency,
        connections: Vec::new(),
        begin,
    };
    for (source, mapped) in config.sources.iter().enumerate() {
        let rows = read(store.as_ref(), source, mapped, read_at).await?;
        rehearsal.connections.extend(rows.into_iter().map(|row| (source, row)));
    }
    if rehearsal.connections.is_empty() {
        return Err(Failure::could_not_work(
            "there is no connection with a token that has not expired: nothing can be rehearsed (try `perene simulate` \
             without `--from-database`)",
        ));
    }
    let mut written = Written::open(args.trace.as_deref(), args.calendar.as_deref())?;
    let bar = simulate::bar(args.days);
    let begun = clock.monotonic();
    let outcome =
        rehearsal.carry_out(args.days, args.seed, faults, written.trace(), &mut |day| bar.set_position(u64::from(day)));
    bar.finish_and_clear();
    let seconds = clock.monotonic().saturating_sub(begun).as_secs_f64();
    eprintln!("rehearsed {} days of {} connections in {seconds:.1} s", args.days, rehearsal.connections.len());
    let endurance = rehearsal.endurance();
    simulate::trace_is_whole(&outcome)?;
    written.calendar(|| calendar::draw(&outcome, faults, &zone))?;
    let unreachable = unreachable(store.as_ref(), &rehearsal.connections, &outcome).await?;
    store.close().await;
    let names: Vec<String> = rehearsal
        .connections
        .iter()
        .map(|(source, row)| match config.sources.len() {
            1 => row.id.clone(),
            _ => format!("{}:{}", config.sources[*source].table, row.id),
        })
        .collect();
    let undated = rehearsal.connections.iter().filter(|(_, row)| row.expires_at.is_none()).count();
    let has_mail = config.mail.is_some();
    let (outcome, endurance, names, zone) = (&outcome, &endurance, names.as_slice(), &zone);
    let report = Shown { args, faults, outcome, endurance, names, zone, undated, unreachable, has_mail };
    out::say(&match args.report.format {
        Format::Json => report.json().to_string(),
        Format::Text => report.text(),
    });
    Ok(if outcome.is_well() { Exit::Done } else { Exit::CouldNotWork })
}

fn source_of(source: &Source, config: &Config) -> (Source, Class, Option<SignedDuration>) {
    match config.providers.oauth2.get(&source.provider) {
        Some(known) => (source.clone(), known.class, known.usual_life()),
        None => (source.clone(), Class::Extend, None),
    }
}

/// Reads all live connections of a source; leases none.
async fn read(store: &dyn Store, source: usize, mapped: &Source, now: Timestamp) -> Result<Vec<Connection>, Failure> {
    let grants: &[Grant] = if mapped.provider == META { &Grant::META } else { &[Grant::Oauth2] };
    let mut rows: Vec<Connection> = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let claim = Claim {
            source,
            which: Which::Live,
            grants,
            holder: "",
            fence: uuid::Uuid::nil(),
            now,
            until: now,
            after: cursor.as_ref(),
            limit: PAGE,
            overdue: SignedDuration::ZERO,
        };
        let page = store.peek(&claim).await?;
        let is_last = page.len() < PAGE;
        cursor = page.last().map(Cursor::behind);
        rows.extend(page);
        if is_last {
            return Ok(rows);
        }
    }
}

/// Who of those that would be mailed has no address.
async fn unreachable(
    store: &dyn Store,
    connections: &[(usize, Connection)],
    outcome: &Outcome,
) -> Result<BTreeSet<usize>, Failure> {
    let mut unreachable = BTreeSet::new();
    let mailed: BTreeSet<usize> = outcome.mailed.iter().map(|(_, number, _)| *number).collect();
    for number in mailed {
        let Some((source, row)) = connections.get(number) else { continue };
        let recipient = match &row.user_id {
            Some(user) => store.recipient(*source, user).await?,
            None => None,
        };
        let address = recipient.and_then(|recipient| recipient.email);
        if address.is_none_or(|address| address.trim().is_empty()) {
            unreachable.insert(number);
        }
    }
    Ok(unreachable)
}

/// The report of a rehearsal.
struct Shown<'a> {
    args: &'a Simulate,
    faults: &'a FaultList,
    outcome: &'a Outcome,
    endurance: &'a Endurance,
    names: &'a [String],
    zone: &'a TimeZone,
    /// Connections of which nobody knows how long they live.
    undated: usize,
    /// Who would be mailed and has no address.
    unreachable: BTreeSet<usize>,
    /// Whether a mail server is configured.
    has_mail: bool,
}

impl Shown<'_> {
    fn name(&self, number: usize) -> &str {
        self.names.get(number).map_or("?", String::as_str)
    }

    fn date(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
    }

    /// The date of a day that is counted.
    fn day(&self, number: usize) -> String {
        let first = self.outcome.begun_at.to_zoned(self.zone.clone()).date();
        first.saturating_add(jiff::Span::new().days(i64::try_from(number).unwrap_or(0))).to_string()
    }

    fn text(&self) -> String {
        let Self { args, outcome, endurance, .. } = self;
        let sum = |of: fn(&crate::simulate::Day) -> u64| outcome.days.iter().map(of).sum::<u64>();
        let mut text = format!(
            "{} connections, the next {} days, faults: {}. Nothing was called, nothing was written; rows whose token has \
             expired are left out. \
             Times are of zone {}.\n\n",
            self.names.len(),
            args.days,
            self.faults,
            self.zone.iana_name().unwrap_or("UTC")
        );
        if let Some(first) = endurance.first {
            text.push_str(&format!(
                "An outage that began now would be survived for {} at least: then the first token dies.\n",
                in_days(first)
            ));
            let dark: Vec<String> =
                endurance.dark_after_days.iter().map(|(days, count)| format!("{days} d, {count}")).collect();
            text.push_str(&format!("Dark in an outage that lasts: {}.\n", dark.join("; ")));
        }
        if self.undated > 0 {
            text.push_str(&format!(
                "{} without a date are not in these figures: nobody knows how long they live; the first run asks.\n",
                self.undated
            ));
        }
        text.push_str(&format!(
            "\nWith Perene: {} runs, {} calls, {} refreshed, {} mails, {} dark.\n",
            sum(|day| day.runs),
            sum(|day| day.calls),
            sum(|day| day.refreshed),
            sum(|day| day.mails),
            outcome.dark
        ));
        if let Some((at, calls)) = outcome.busiest {
            text.push_str(&format!("Busiest minute: {} with {calls} calls.\n", self.date(at)));
        }
        text.push_str(&self.planned());
        text.push('\n');
        text.push_str(&self.weeks());
        text.push_str(&self.mails());
        text.push_str(&self.dark());
        let struck: Vec<String> = outcome
            .faults
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if !struck.is_empty() {
            text.push_str(&format!("\nFaults that struck: {}\n", struck.join(", ")));
        }
        text.push_str(&format!(
            "\ndark though refreshable: {}\ndark without warning: {}\n",
            outcome.dark_though_refreshable, outcome.dark_without_warning
        ));
        for broken in &outcome.violations {
            let whom =
                broken.connection.map(|number| format!(", connection {}", self.name(number))).unwrap_or_default();
            text.push_str(&format!("broken: {} {}{whom}: {}\n", broken.at, broken.check, broken.text));
        }
        text.trim_end().to_owned()
    }

    fn weeks(&self) -> String {
        let mut weeks = table::plain();
        weeks.set_header(["week from", "runs", "calls", "refreshed", "mails", "dark"]);
        for (number, week) in self.outcome.days.chunks(7).enumerate() {
            let sum = |of: fn(&crate::simulate::Day) -> u64| week.iter().map(of).sum::<u64>().to_string();
            weeks.add_row([
                self.day(7 * number),
                sum(|day| day.runs),
                sum(|day| day.calls),
                sum(|day| day.refreshed),
                sum(|day| day.mails),
                sum(|day| day.dark),
            ]);
        }
        lines(&weeks)
    }

    /// What each planned fault meets, as long as it is looked at.
    fn met(&self) -> Vec<Met> {
        let begun_at = self.outcome.begun_at;
        let end = begun_at + SignedDuration::from_hours(24 * i64::from(self.args.days));
        let planned = self.faults.planned().into_iter().map(|(name, day, lasts)| {
            let from = begun_at + SignedDuration::from_hours(24 * i64::from(day));
            let to = (from + lasts).min(end);
            let is_in = |at: &Timestamp| (from..=to).contains(at);
            let dark = self.outcome.went_dark.iter().filter(|(at, _)| is_in(at)).count();
            let mails = self.outcome.mailed.iter().filter(|(at, ..)| is_in(at)).count();
            Met { name, from, to, mails, dark }
        });
        planned.collect()
    }

    fn planned(&self) -> String {
        let line = |met: Met| {
            let (from, to) = (self.date(met.from), self.date(met.to));
            format!("{} from {from} to {to}: {} mails and {} dark meanwhile.\n", met.name, met.mails, met.dark)
        };
        self.met().into_iter().map(line).collect()
    }

    fn dark(&self) -> String {
        if self.outcome.went_dark.is_empty() {
            return String::new();
        }
        let mut list = table::plain();
        list.set_header(["when", "connection"]);
        for (at, number) in self.outcome.went_dark.iter().take(LISTED_MAX) {
            list.add_row([self.date(*at), self.name(*number).to_owned()]);
        }
        format!("\nWho would go dark:\n{}{}", lines(&list), and_more(self.outcome.went_dark.len()))
    }

    fn mails(&self) -> String {
        if self.outcome.mailed.is_empty() {
            return "\nNobody would be mailed.\n".to_owned();
        }
        let mut list = table::plain();
        list.set_header(["when", "connection", "mail"]);
        for (at, number, kind) in self.outcome.mailed.iter().take(LISTED_MAX) {
            let note = if self.unreachable.contains(number) { " (not sent: no address)" } else { "" };
            list.add_row([self.date(*at), self.name(*number).to_owned(), format!("{kind}{note}")]);
        }
        let title = match self.has_mail {
            true => "Who would be mailed:",
            false => "Who would be mailed if a mail server were configured (`mail.smtp_url`):",
        };
        format!("\n{title}\n{}{}", lines(&list), and_more(self.outcome.mailed.len()))
    }

    fn json(&self) -> Value {
        let Self { args, outcome, endurance, .. } = self;
        let faults: serde_json::Map<String, Value> =
            outcome.faults.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
        json!({
            "connections": self.names.len(),
            "days": args.days,
            "seed": args.seed,
            "from": outcome.begun_at.to_string(),
            "zone": self.zone.iana_name().unwrap_or("UTC"),
            "undated": self.undated,
            "has_mail": self.has_mail,
            "planned": self.met().into_iter().map(|met| json!({
                "fault": met.name, "from": met.from.to_string(), "to": met.to.to_string(), "mails": met.mails, "dark": met.dark
            })).collect::<Vec<Value>>(),
            "well": outcome.is_well(),
            "dark": outcome.dark,
            "dark_though_refreshable": outcome.dark_though_refreshable,
            "dark_without_warning": outcome.dark_without_warning,
            "first_dies_after_hours": endurance.first.map(|first| first.as_hours()),
            "dark_after_days": endurance.dark_after_days.iter().map(|(days, count)| json!({"days": days, "dark": count})).collect::<Vec<Value>>(),
            "busiest_minute": outcome.busiest.map(|(at, calls)| json!({"at": at.to_string(), "calls": calls})),
            "went_dark": outcome.went_dark.iter().map(|(at, number)| json!({
                "at": at.to_string(), "id": self.name(*number)
            })).collect::<Vec<Value>>(),
            "by_day": outcome.days.iter().enumerate().map(|(number, day)| json!({
                "date": self.day(number), "runs": day.runs, "calls": day.calls, "refreshed": day.refreshed, "mails": day.mails, "dark": day.dark
            })).collect::<Vec<Value>>(),
            "mailed": outcome.mailed.iter().map(|(at, number, kind)| json!({
                "at": at.to_string(), "id": self.name(*number), "kind": kind, "has_address": !self.unreachable.contains(number)
            })).collect::<Vec<Value>>(),
            "faults": faults,
            "broken": outcome.violations.iter().map(|broken| json!({
                "check": broken.check, "at": broken.at.to_string(), "id": broken.connection.map(|number| self.name(number)),
                "text": broken.text
            })).collect::<Vec<Value>>(),
        })
    }
}

/// What a planned fault meets.
struct Met {
    name: &'static str,
    from: Timestamp,
    to: Timestamp,
    mails: usize,
    dark: usize,
}

fn and_more(count: usize) -> String {
    match count.saturating_sub(LISTED_MAX) {
        0 => String::new(),
        more => format!("and {more} more: `--format json` has them all\n"),
    }
}

fn in_days(span: SignedDuration) -> String {
    let hours = span.as_hours();
    if hours < 48 { format!("{hours} hours") } else { format!("{} days", hours / 24) }
}

fn lines(table: &comfy_table::Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
