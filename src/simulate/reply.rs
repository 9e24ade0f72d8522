//! What a provider answers: by what it knows of the account, and by what is the matter with it just now.

use jiff::{SignedDuration, Timestamp};
use perene_policy::answer::{Answer, NoAnswer, NoAnswerKind};
use perene_policy::{Class, Endpoint, Grant};

use super::faults::Kind;
use super::truth::{self, SECRET_MARK, Standing};
use super::world::World;

/// How long the old refresh token of a provider of class grace still works.
const GRACE: SignedDuration = SignedDuration::from_mins(10);

/// What a broken client of a provider's own makes of a token that is not there.
const UNDEFINED: &str = r#"{"access_token":"undefined","token_type":"bearer","expires_in":5184000}"#;

/// One request, as the provider gets it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) replica: usize,
    /// The app's place among all apps.
    pub(super) app: usize,
    pub(super) grant: Grant,
    pub(super) endpoint: Endpoint,
    pub(super) token: String,
    pub(super) account: usize,
    pub(super) generation: usize,
}

/// What the observer is told of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A generation: this one.
    Issued(usize),
    /// Refused for good.
    Refused,
    /// Not before this instant.
    Limited(Timestamp),
    /// Nothing of use.
    Trouble,
    /// Told what was asked for.
    Told,
}

/// An answer on its way.
pub(super) struct Reply {
    pub(super) result: Result<Answer, NoAnswer>,
    pub(super) meaning: Meaning,
    /// The provider may have spent the token.
    pub(super) may_have_spent: bool,
}

impl Reply {
    fn new(status: u16, body: impl Into<String>, meaning: Meaning) -> Self {
        let answer = Answer { status, headers: Vec::new(), body: body.into().into_bytes(), truncated: false };
        Self { result: Ok(answer), meaning, may_have_spent: matches!(meaning, Meaning::Issued(_)) }
    }

    fn error(status: u16, code: i64, subcode: i64, message: &str, meaning: Meaning) -> Self {
        let subcode = if subcode == 0 { String::new() } else { format!(r#","error_subcode":{subcode}"#) };
        let message = message.replace('\n', "\\n");
        let body = format!(r#"{{"error":{{"message":"{message}","type":"OAuthException","code":{code}{subcode}}}}}"#);
        Self::new(status, body, meaning)
    }

    fn none(kind: NoAnswerKind, text: &str, may_have_spent: bool) -> Self {
        let result = Err(NoAnswer { kind, text: text.to_owned() });
        Self { result, meaning: Meaning::Trouble, may_have_spent }
    }

    fn lost(mut self, text: &str) -> Self {
        self.result = Err(NoAnswer { kind: NoAnswerKind::Lost, text: text.to_owned() });
        self.meaning = Meaning::Trouble;
        self.may_have_spent = true;
        self
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        if let Ok(answer) = &mut self.result {
            answer.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The same deed, and another body.
    fn told_as(mut self, status: u16, body: &str, is_truncated: bool) -> Self {
        if let Ok(answer) = &mut self.result {
            *answer = Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec(), truncated: is_truncated };
        }
        self.meaning = Meaning::Trouble;
        self
    }
}

impl World {
    /// Carries a request out as the provider does, now.
    pub(super) fn reply(&mut self, asked: &Asked, now: Timestamp) -> Reply {
        self.trouble_of_app(asked, now).unwrap_or_else(|| self.trouble_of_answer(asked, now))
    }

    /// Answers a question about the app itself.
    pub(super) fn reply_about_app(&mut self, app: usize) -> Answer {
        let (status, body) = match self.app_seems_well(app) {
            true => (200, r#"{"data":{"is_valid":true,"expires_at":0}}"#),
            false => (503, "{}"),
        };
        Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec(), truncated: false }
    }

    /// Whether the provider has nothing to say against the app itself.
    pub(super) fn app_seems_well(&self, app: usize) -> bool {
        let troubles = [Kind::Outage, Kind::WrongSecret, Kind::AppSuspended, Kind::Redirect];
        !troubles.into_iter().any(|kind| self.weather.hits(kind, app))
    }

    /// What is the matter with all requests to the app's provider.
    fn trouble_of_app(&mut self, asked: &Asked, now: Timestamp) -> Option<Reply> {
        let app = asked.app;
        let is_meta = asked.grant != Grant::Oauth2;
        let is_strict = self.accounts[asked.account].class == Class::Strict;
        let down = || Reply::new(503, "<html><title>Service Unavailable</title></html>", Meaning::Trouble);
        if self.weather.strikes(Kind::ConnectionRefused, app) {
            return Some(Reply::none(NoAnswerKind::NotSent, "connection refused", false));
        }
        if self.weather.strikes(Kind::TimeOuts, app) {
            if self.chance.permille(500) {
                return Some(self.honest(asked, now).lost("no answer within 30 seconds"));
            }
            return Some(Reply::none(NoAnswerKind::Lost, "no answer within 30 seconds", true));
        }
        if self.weather.strikes(Kind::Outage, app) {
            return Some(down());
        }
        if self.weather.hits(Kind::Flapping, app) && now.as_second().div_euclid(600) % 2 == 0 {
            self.weather.fire(Kind::Flapping);
            return Some(down());
        }
        let needs_secret = !matches!(asked.grant, Grant::Instagram | Grant::Threads);
        if needs_secret && self.weather.strikes(Kind::WrongSecret, app) {
            return Some(if is_meta {
                Reply::error(400, 1, 0, "Error validating client secret.", Meaning::Trouble)
            } else {
                Reply::new(401, r#"{"error":"invalid_client"}"#, Meaning::Trouble)
            });
        }
        if self.weather.strikes(Kind::AppSuspended, app) {
            return Some(if is_meta {
                Reply::error(400, 200, 0, "API access blocked.", Meaning::Trouble)
            } else {
                Reply::new(401, r#"{"error":"unauthorized_client"}"#, Meaning::Trouble)
            });
        }
        for kind in [Kind::Throttle, Kind::ThrottleDate, Kind::ThrottleAbsurd] {
            if self.weather.strikes(kind, app) {
                return Some(self.throttle(kind, asked, now));
            }
        }
        // A strict provider that has refused a token never takes it again: that is not a passing fault.
        if !is_strict && self.weather.strikes(Kind::MassRefusal, app) {
            return Some(refusal(asked));
        }
        if self.weather.strikes(Kind::Redirect, app) {
            let reply = Reply::new(302, "", Meaning::Trouble).with("location", "https://elsewhere.example/");
            return Some(reply);
        }
        None
    }

    fn throttle(&mut self, kind: Kind, asked: &Asked, now: Timestamp) -> Reply {
        let (value, told) = match kind {
            Kind::Throttle => {
                let seconds = self.chance.between(5, 7200) as i64;
                (seconds.to_string(), SignedDuration::from_secs(seconds))
            }
            Kind::ThrottleDate => {
                let seconds = self.chance.between(60, 3600) as i64;
                let at = now + SignedDuration::from_secs(seconds);
                (at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(), SignedDuration::from_secs(seconds))
            }
            _ => match self.chance.below(3) {
                0 => ("-5".to_owned(), SignedDuration::from_secs(1)),
                1 => ("999999999999".to_owned(), SignedDuration::from_hours(24)),
                // Nothing is told: an hour, doubling to six.
                _ => ("soon".to_owned(), SignedDuration::from_hours(1)),
            },
        };
        let reply = if asked.grant == Grant::Oauth2 {
            Reply::new(429, "{}", Meaning::Limited(now + told))
        } else {
            Reply::error(429, 4, 0, "(#4) Application request limit reached", Meaning::Limited(now + told))
        };
        reply.with("Retry-After", &value)
    }

    /// What is the matter with this one answer.
    fn trouble_of_answer(&mut self, asked: &Asked, now: Timestamp) -> Reply {
        let app = asked.app;
        let is_meta = asked.grant != Grant::Oauth2;
        if self.accounts[asked.account].breaks_until.is_some_and(|until| now < until)
            || self.strikes_one(Kind::ServerErrors, app, 100)
        {
            return Reply::new(500, r#"{"error":{"message":"An unknown error occurred","code":1}}"#, Meaning::Trouble);
        }
        if self.strikes_one(Kind::LostAnswers, app, 100) {
            return self.honest(asked, now).lost("connection reset");
        }
        if self.strikes_one(Kind::ThrottleRow, app, 100) && is_meta {
            let until = now + SignedDuration::from_hours(1);
            return Reply::error(400, 17, 0, "(#17) User request limit reached", Meaning::Limited(until));
        }
        if self.strikes_one(Kind::UnknownError, app, 100) {
            return Reply::error(400, 987_654, 0, "Something that nobody has seen", Meaning::Trouble);
        }
        if self.strikes_one(Kind::EchoedToken, app, 100) {
            let text = format!("cannot use {} with secret {SECRET_MARK}{app}\nand again\\u001b[31m", asked.token);
            return Reply::error(400, 987_655, 0, &text, Meaning::Trouble);
        }
        if self.accounts[asked.account].class != Class::Strict && self.strikes_one(Kind::FalseRefusal, app, 100) {
            return refusal(asked);
        }
        let is_debug = asked.endpoint == Endpoint::DebugToken;
        if self.strikes_one(Kind::NoToken, app, 333) && !is_debug {
            return Reply::new(200, r#"{"token_type":"bearer","expires_in":5184000}"#, Meaning::Trouble);
        }
        if self.strikes_one(Kind::Malformed, app, 333) {
            let bodies = [
                UNDEFINED,
                UNDEFINED,
                "",
                "{\"access_token\":\"EAA",
                "[]",
                "null",
                "\u{feff}not json",
                "{\"access_token\":null}",
            ];
            let body = bodies[self.chance.below(bodies.len() as u64) as usize];
            return self.honest(asked, now).told_as(200, body, false);
        }
        if self.strikes_one(Kind::Html200, app, 333) {
            return self.honest(asked, now).told_as(200, "<html><body>Sign in</body></html>", false);
        }
        if self.strikes_one(Kind::HugeBody, app, 333) {
            return self.honest(asked, now).told_as(200, "{\"access_token\":\"", true);
        }
        let odd = self.strikes_one(Kind::OddExpiry, app, 333) && !is_debug;
        let reply = self.honest(asked, now);
        if let (true, Meaning::Issued(generation)) = (odd, reply.meaning) {
            let lives = ["0", "-1", "1000000000000000000", "\"\"", "\"soon\"", "null", "31536001"];
            let life = lives[self.chance.below(lives.len() as u64) as usize];
            return granted(&self.accounts[asked.account], generation, life);
        }
        if is_meta && self.weather.strikes(Kind::NearLimit, app) {
            let percent = self.chance.between(70, 98);
            return reply
                .with("X-App-Usage", &format!(r#"{{"call_count":{percent},"total_time":1,"total_cputime":1}}"#));
        }
        reply
    }

    /// A fault that strikes so many of a thousand answers while it lasts.
    pub(super) fn strikes_one(&mut self, kind: Kind, slot: usize, permille: u64) -> bool {
        if !self.weather.hits(kind, slot) || !self.chance.permille(permille) {
            return false;
        }
        self.weather.fire(kind);
        true
    }

    /// What the provider answers when nothing is the matter with it.
    fn honest(&mut self, asked: &Asked, now: Timestamp) -> Reply {
        let account = &self.accounts[asked.account];
        let Some(generation) = account.generations.get(asked.generation) else {
            return Reply::error(400, 190, 0, "Invalid OAuth access token.", Meaning::Refused);
        };
        if asked.endpoint == Endpoint::DebugToken {
            return inspected(account, generation.expires_at, now);
        }
        match asked.grant {
            Grant::Oauth2 => self.rotated(asked, now),
            _ if account.standing == Standing::Refused => refusal(asked),
            _ if generation.expires_at <= now => {
                Reply::error(400, 190, 463, "Error validating access token: Session has expired.", Meaning::Refused)
            }
            _ if account.grant.refuses_young_tokens()
                && now.duration_since(generation.issued_at) < SignedDuration::from_hours(24) =>
            {
                let text = "The access token must be at least 24 hours old to be refreshed.";
                Reply::error(400, 100, 0, text, Meaning::Trouble)
            }
            _ if account.standing == Standing::Stuck => {
                let left = generation.expires_at.duration_since(now).as_secs().to_string();
                granted(account, asked.generation, &left)
            }
            _ => self.renewed(asked, now),
        }
    }

    fn rotated(&mut self, asked: &Asked, now: Timestamp) -> Reply {
        let account = &mut self.accounts[asked.account];
        let login = account.generations.iter().rposition(|generation| generation.is_of_login).unwrap_or(0);
        let latest = account.latest();
        if account.standing == Standing::Refused || asked.generation < login {
            return refusal(asked);
        }
        match account.class {
            Class::Strict if asked.generation != latest => {
                // The token was used before: whoever has it may be a thief (RFC 9700, 4.14).
                account.refuse(now);
                return refusal(asked);
            }
            Class::Grace if asked.generation != latest => {
                let is_recent = now.duration_since(account.generations[latest].issued_at) < GRACE;
                if asked.generation + 1 != latest || !is_recent {
                    // The newer one was lost on its way, and not asked for again in time.
                    account.refuse(now);
                    return refusal(asked);
                }
                let left = account.generations[latest].expires_at.duration_since(now).as_secs().to_string();
                return granted(account, latest, &left);
            }
            _ => {}
        }
        self.renewed(asked, now)
    }

    fn renewed(&mut self, asked: &Asked, now: Timestamp) -> Reply {
        let account = &mut self.accounts[asked.account];
        let generation = if account.rotates {
            account.issue(now, false)
        } else {
            let life = account.life;
            let generation = &mut account.generations[asked.generation];
            (generation.expires_at, generation.issued_at) = (now + life, now);
            asked.generation
        };
        let life = account.life.as_secs().to_string();
        let life = if account.is_silent { "null" } else { &life };
        granted(account, generation, life)
    }
}

fn granted(account: &truth::Account, generation: usize, life: &str) -> Reply {
    let token = account.token(generation);
    let refresh =
        account.refresh_token(generation).map(|token| format!(r#","refresh_token":"{token}""#)).unwrap_or_default();
    let body = format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":{life}{refresh}}}"#);
    Reply::new(200, body, Meaning::Issued(generation))
}

fn inspected(account: &truth::Account, expires_at: Timestamp, now: Timestamp) -> Reply {
    if account.standing == Standing::Refused || expires_at <= now {
        let body = r#"{"data":{"app_id":"1","is_valid":false,"error":{"code":190,"message":"The session has been invalidated because the user changed their password.","subcode":460}}}"#;
        return Reply::new(200, body, Meaning::Refused);
    }
    let ends = account.login_at + SignedDuration::from_hours(90 * 24);
    let ends = if account.has_data_access { ends.as_second() } else { 0 };
    let expires_at = expires_at.as_second();
    let body = format!(
        r#"{{"data":{{"app_id":"1","type":"USER","is_valid":true,"expires_at":{expires_at},"data_access_expires_at":{ends}}}}}"#
    );
    Reply::new(200, body, Meaning::Told)
}

fn refusal(asked: &Asked) -> Reply {
    match (asked.grant, asked.endpoint) {
        (Grant::Oauth2, _) => Reply::new(400, r#"{"error":"invalid_grant"}"#, Meaning::Refused),
        (_, Endpoint::DebugToken) => Reply::new(
            200,
            r#"{"data":{"app_id":"1","is_valid":false,"error":{"code":190,"message":"The session has been invalidated because the user changed their password.","subcode":460}}}"#,
            Meaning::Refused,
        ),
        _ => Reply::error(
            400,
            190,
            460,
            "Error validating access token: The session has been invalidated because the user changed their password.",
            Meaning::Refused,
        ),
    }
}
