//! What can go wrong: the table of all faults, and the list that a user types.

use std::fmt;

use jiff::SignedDuration;

use crate::config::duration;

/// What is hit by a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Area {
    /// A process of Perene.
    Process,
    /// The database.
    Database,
    /// A provider, or the way to it.
    Provider,
    /// What the app or the customer does.
    App,
    /// Mail and webhook.
    Outbox,
    /// Clocks and calendars.
    Time,
}

/// One kind of fault.
#[derive(Debug)]
pub struct Fault {
    /// The name that users type.
    pub name: &'static str,
    /// What happens.
    pub text: &'static str,
    pub(super) area: Area,
    /// How long it lasts unless told otherwise.
    pub(super) minutes: i64,
    /// How often it comes in a year unless told otherwise.
    pub(super) a_year: u64,
}

macro_rules! faults {
    ($($kind:ident $area:ident $name:literal $minutes:literal $a_year:literal $text:literal;)*) => {
        /// Every kind of fault, in the order of the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Kind { $($kind),* }

        /// The table of all faults.
        pub const FAULTS: &[Fault] = &[
            $(Fault { name: $name, text: $text, area: Area::$area, minutes: $minutes, a_year: $a_year }),*
        ];

        impl Kind {
            pub(super) const ALL: &[Self] = &[$(Self::$kind),*];
        }
    };
}

faults! {
    KillBeforeCall Process "kill-before-call" 5 6 "a replica is killed before it calls the provider";
    KillInCall Process "kill-in-call" 5 6 "a replica is killed while the provider works on its request";
    KillAfterAnswer Process "kill-after-answer" 5 6 "a replica is killed when the answer has come, before it is committed";
    KillBeforeCommit Process "kill-before-commit" 5 6 "a replica is killed before it commits";
    KillAfterCommit Process "kill-after-commit" 5 6 "a replica is killed after its commit, before it hears of it";
    KillAtNotice Process "kill-at-notice" 60 6 "a replica is killed while it sends a notice";
    KillAnywhere Process "kill-anywhere" 120 8 "a replica is killed at any step, again and again";
    Restart Process "restart" 0 24 "a replica is asked to stop, and started anew (a new version, for one)";
    Pause Process "pause" 10 12 "a replica stands still (SIGSTOP) and goes on as if nothing had been";
    HostOff Process "host-off" 2880 1 "all replicas are off: their host is";
    Panic Process "panic" 30 4 "reading an answer panics";
    MoreReplicas Process "more-replicas" 2880 3 "two more replicas serve for a while";
    DatabaseDown Database "database-down" 120 6 "nobody reaches the database";
    DatabaseCut Database "database-cut" 90 6 "one replica does not reach the database";
    StatementLost Database "statement-lost" 60 8 "connections break before statements are sent";
    AnswerOfCommitLost Database "commit-answer-lost" 60 8 "connections break after statements are carried out";
    ReadOnly Database "database-read-only" 90 4 "the database takes no writes";
    DatabaseSlow Database "database-slow" 90 4 "each statement takes seconds";
    Failover Database "failover" 0 6 "a standby takes over that has not got the latest commits";
    Deadlock Database "deadlock" 120 6 "statements fail by deadlock";
    Rights Database "rights-revoked" 60 3 "the database refuses all writes for a missing right";
    RowRefused Database "row-refused" 1440 4 "the database refuses to write some rows";
    ColumnMissing Database "column-missing" 180 2 "a mapped column is missing";
    DatabaseClock Database "database-clock" 0 3 "the database's clock steps forward by a minute";
    Outage Provider "meta-outage" 720 4 "a provider answers nothing but 503";
    TimeOuts Provider "time-outs" 240 4 "requests to a provider are not answered";
    ConnectionRefused Provider "connection-refused" 240 3 "a provider cannot be reached";
    ServerErrors Provider "server-errors" 720 6 "a tenth of a provider's answers are 500";
    LostAnswers Provider "lost-answers" 720 6 "a tenth of a provider's answers are lost on the way";
    SlowAnswers Provider "slow-answers" 360 6 "a provider takes up to 29 seconds for an answer";
    Throttle Provider "throttle" 30 4 "a provider limits the app, and tells for how long";
    ThrottleDate Provider "throttle-date" 30 2 "a provider limits the app, and tells the end as a date";
    ThrottleAbsurd Provider "throttle-absurd" 30 2 "a provider limits the app, and tells nonsense of its end";
    ThrottleRow Provider "throttle-connection" 720 3 "a provider limits single connections";
    NearLimit Provider "near-limit" 240 3 "a provider tells that the app's limit is almost reached";
    Malformed Provider "malformed" 240 3 "a third of a provider's answers are no JSON, cut off or empty";
    Html200 Provider "html-200" 240 3 "a third of a provider's answers are web pages under 200";
    OddExpiry Provider "odd-expiry" 240 3 "a third of a provider's answers tell a life that cannot be believed";
    NoToken Provider "no-token" 240 3 "a third of a provider's answers are a success without a token";
    Redirect Provider "redirect" 240 2 "a provider answers with a redirect";
    HugeBody Provider "huge-body" 240 2 "a third of a provider's answers do not end";
    UnknownError Provider "unknown-error" 720 3 "a tenth of a provider's answers are errors that no rule knows";
    EchoedToken Provider "echoed-token" 720 3 "a tenth of a provider's answers are errors that repeat the token and the app's secret";
    FalseRefusal Provider "false-refusal" 720 3 "a tenth of a provider's refusals are passing ones";
    MassRefusal Provider "mass-refusal" 360 2 "a provider refuses every token, and takes it back later";
    WrongSecret Provider "wrong-secret" 360 2 "the app's secret is not the one that the provider knows";
    AppSuspended Provider "app-suspended" 600 2 "a provider has suspended the app";
    Flapping Provider "flapping" 720 2 "a provider is down every other ten minutes";
    Revoked Provider "revoked" 0 60 "a customer takes the app's rights away";
    Stuck Provider "not-extended" 0 20 "a token is answered with success, and its expiry does not move";
    PoisonRow Provider "poison-row" 0 12 "a provider answers 500 for one connection, for days";
    Reconnect App "reconnect" 0 60 "a customer logs in anew";
    ReconnectInCall App "reconnect-in-call" 1440 8 "customers log in anew while their token is being refreshed";
    DeleteInCall App "delete-in-call" 720 3 "the app deletes rows while their token is being refreshed";
    Delete App "delete" 0 12 "the app deletes a row";
    Undated App "undated" 0 12 "the app stores a token without its date";
    NoTokenInRow App "token-removed" 0 8 "the app removes a token and keeps the row";
    OddToken App "odd-token" 0 8 "the app stores a token that cannot be sent";
    AppFlag App "app-raises-flag" 0 12 "the app raises a customer's flag by itself";
    MailDown Outbox "mail-down" 720 4 "the mail server is down";
    MailRefused Outbox "mail-refused" 720 3 "the mail server refuses addresses for good";
    WebhookDown Outbox "webhook-down" 720 4 "the webhook's receiver is down";
    WebhookSlow Outbox "webhook-slow" 720 3 "the webhook's receiver takes 15 seconds";
    ReplicaClock Time "replica-clock" 0 6 "a replica's clock is wrong by hours or years";
    DaylightSaving Time "daylight-saving" 0 0 "the clocks change";
    Year2038 Time "year-2038" 0 0 "the seconds since 1970 pass 2^31";
    JournalFull Process "journal-full" 120 3 "a replica's disk is full";
}

#[cfg(test)]
impl Fault {
    /// Whether it goes on for a while, and strikes whoever comes meanwhile.
    pub(super) fn lasts(&self) -> bool {
        self.minutes > 0 && self.area == Area::Provider
            || matches!(self.name, "panic" | "reconnect-in-call" | "delete-in-call" | "deadlock" | "statement-lost")
    }
}

impl Kind {
    pub(super) const fn fault(self) -> &'static Fault {
        &FAULTS[self as usize]
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.fault().name == name)
    }
}

/// One entry of a list of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) kind: Kind,
    /// How long it lasts each time.
    pub(super) lasts: SignedDuration,
    /// On which day it begins; `None`: at times that the seed chooses.
    pub(super) on_day: Option<u32>,
    /// It was named: it comes at least once, however short the simulation is.
    pub(super) is_named: bool,
}

/// Which faults there are to be, as users type it: `none`, `all`, or names with how long and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultList {
    pub(super) wanted: Vec<Wanted>,
    text: String,
}

impl FaultList {
    /// No fault at all.
    pub fn none() -> Self {
        Self { wanted: Vec::new(), text: "none".to_owned() }
    }

    /// Every fault of the table, as often as it says.
    pub fn all() -> Self {
        let every = |kind: &Kind| Wanted {
            kind: *kind,
            lasts: SignedDuration::from_mins(kind.fault().minutes),
            on_day: None,
            is_named: false,
        };
        Self { wanted: Kind::ALL.iter().map(every).collect(), text: "all".to_owned() }
    }

    /// Reads a list: `none`, `all`, or `NAME[:DURATION][@dayN],…`.
    ///
    /// # Errors
    /// When a name is unknown (the known ones are listed), or a duration or a day cannot be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "none" => return Ok(Self::none()),
            "all" => return Ok(Self::all()),
            "" => {
                return Err(
                    "the list of faults is empty: `none`, `all` or names (`--faults help` lists them)".to_owned()
                );
            }
            _ => {}
        }
        let wanted = text.split(',').map(|entry| entry_of(entry.trim())).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { wanted, text: text.split_whitespace().collect() })
    }
}

impl FaultList {
    /// The first that would begin when all is over.
    pub fn beyond(&self, days: u32) -> Option<String> {
        let late = self.wanted.iter().find(|wanted| wanted.on_day.is_some_and(|day| day >= days))?;
        Some(format!("`{}@day{}`", late.kind.fault().name, late.on_day.unwrap_or_default()))
    }

    /// Those that were named and have not struck: there was nothing to strike at, such as a mail.
    pub fn silent(&self, outcome: &super::Outcome) -> Vec<&'static str> {
        let struck = |name: &str| outcome.faults.iter().any(|(known, count)| *known == name && *count > 0);
        let named = self.wanted.iter().filter(|wanted| wanted.is_named).map(|wanted| wanted.kind.fault().name);
        named.filter(|name| !struck(name)).collect()
    }

    /// Those whose day was named: what, on which day it begins, and how long it lasts.
    pub fn planned(&self) -> Vec<(&'static str, u32, SignedDuration)> {
        let days = self.wanted.iter().filter_map(|wanted| Some((wanted, wanted.on_day?)));
        days.filter(|(wanted, _)| wanted.kind.fault().minutes > 0)
            .map(|(wanted, day)| (wanted.kind.fault().name, day, wanted.lasts))
            .collect()
    }
}

impl fmt::Display for FaultList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn entry_of(entry: &str) -> Result<Wanted, String> {
    let (rest, on_day) = match entry.split_once('@') {
        Some((rest, day)) => {
            let number = day
                .strip_prefix("day")
                .and_then(|day| day.parse().ok())
                .ok_or_else(|| format!("`{entry}`: behind `@` stands the day on which it begins, such as `@day30`"))?;
            (rest, Some(number))
        }
        None => (entry, None),
    };
    let (name, lasts) = match rest.split_once(':') {
        Some((name, lasts)) => {
            let lasts = duration::parse(lasts).map_err(|error| format!("`{entry}`: {error}"))?;
            (name, Some(lasts))
        }
        None => (rest, None),
    };
    if matches!(name, "none" | "all") {
        return Err(format!("`{name}` stands alone: no other fault beside it"));
    }
    let kind = Kind::named(name).ok_or_else(|| {
        let known: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        format!("fault `{name}` is not known (known: none, all, {})", known.join(", "))
    })?;
    let lasts = lasts.unwrap_or_else(|| SignedDuration::from_mins(kind.fault().minutes));
    Ok(Wanted { kind, lasts, on_day, is_named: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_durations_and_days_are_read() {
        let list = FaultList::parse("meta-outage:12h@day30, pause").expect("a list");
        assert_eq!(list.to_string(), "meta-outage:12h@day30,pause");
        assert_eq!((list.wanted[0].lasts.as_hours(), list.wanted[0].on_day), (12, Some(30)));
        assert_eq!((list.wanted[1].lasts.as_mins(), list.wanted[1].on_day), (10, None));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (list, part) in [
            ("rain", "`rain`"),
            ("pause@5", "@day30"),
            ("pause:soon", "pause:soon"),
            ("", "empty"),
            ("all,pause", "stands alone"),
        ] {
            let error = FaultList::parse(list).expect_err(list);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn there_are_forty_at_least_and_each_has_a_name_of_its_own() {
        let mut names: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        names.sort_unstable();
        names.dedup();
        assert!(names.len() == FAULTS.len() && names.len() >= 40, "{}", names.len());
    }
}
