//! Every key there is, with its default and its variables: the one list that the loader, the error messages
//! and the test of `docs/config.md` read.

use super::error::{listed, nearest};

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A text that is never shown, and that may come from a file (`..._file`, `*_FILE`).
    Secret,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// `section.key`. The word `NAME` in it stands for any name of a provider.
    pub path: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// The default, written as in a variable. `None`: unset.
    pub default: Option<&'static str>,
    /// The variable without `PERENE_` that is honoured too.
    pub plain: Option<&'static str>,
}

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, default: None, plain: None }
}

impl Key {
    const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    const fn also(self, plain: &'static str) -> Self {
        Self { plain: Some(plain), ..self }
    }

    /// `PERENE_SECTION__KEY`.
    pub fn variable(&self) -> String {
        format!("PERENE_{}", self.path.to_uppercase().replace('.', "__"))
    }
}

/// All keys but those of `[[connections]]`.
pub const KEYS: &[Key] = &[
    key("database.url", Kind::Secret).or("sqlite:perene.db").also("DATABASE_URL"),
    key("schedule.cron", Kind::Text).or("0 3 * * *"),
    key("schedule.time_zone", Kind::Text),
    key("refresh.window", Kind::Text).or("7d"),
    key("refresh.concurrency", Kind::Integer).or("64"),
    key("refresh.warn_after_failures", Kind::Integer).or("3"),
    key("refresh.warn_before", Kind::Text).or("72h"),
    key("providers.facebook.app_id", Kind::Text).also("FACEBOOK_APP_ID"),
    key("providers.facebook.app_secret", Kind::Secret).also("FACEBOOK_APP_SECRET"),
    key("providers.facebook.base_url", Kind::Text).or("https://graph.facebook.com"),
    key("providers.facebook.api_version", Kind::Text).or("v26.0"),
    key("providers.instagram.app_id", Kind::Text).also("INSTAGRAM_APP_ID"),
    key("providers.instagram.app_secret", Kind::Secret).also("INSTAGRAM_APP_SECRET"),
    key("providers.instagram.base_url", Kind::Text).or("https://graph.instagram.com"),
    key("providers.threads.app_id", Kind::Text).also("THREADS_APP_ID"),
    key("providers.threads.app_secret", Kind::Secret).also("THREADS_APP_SECRET"),
    key("providers.threads.base_url", Kind::Text).or("https://graph.threads.net"),
    key("providers.NAME.kind", Kind::Text),
    key("providers.NAME.token_url", Kind::Text),
    key("providers.NAME.client_id", Kind::Text),
    key("providers.NAME.client_secret", Kind::Secret),
    key("providers.NAME.client_auth", Kind::Text),
    key("providers.NAME.class", Kind::Text),
    key("providers.NAME.scope", Kind::Text),
    key("providers.NAME.extra", Kind::Text),
    key("mail.smtp_url", Kind::Secret).also("SMTP_URL"),
    key("mail.from", Kind::Text),
    key("mail.locale", Kind::Text).or("pt-BR"),
    key("mail.reconnect_url", Kind::Text),
    key("mail.link_secret", Kind::Secret),
    key("mail.ca_file", Kind::Text),
    key("webhook.url", Kind::Secret),
    key("webhook.secret", Kind::Secret),
    key("webhook.allow_private", Kind::Boolean).or("false"),
    key("alarm.slack_url", Kind::Secret),
    key("alarm.email", Kind::Text),
    key("journal.folder", Kind::Text),
    key("journal.key", Kind::Secret),
    key("log.level", Kind::Text).or("info"),
    key("log.format", Kind::Text).or("text"),
];

/// The keys of one `[[connections]]` entry, as paths below it.
pub const CONNECTION_KEYS: &[&str] = &["table", "schema", "provider", "columns", "user"];

/// The keys of `columns`.
pub const COLUMN_KEYS: &[&str] = &[
    "id",
    "user_id",
    "access_token",
    "refresh_token",
    "token_expires_at",
    "token_refreshed_at",
    "refresh_attempts",
    "last_refresh_error",
];

/// The keys of `user`.
pub const USER_KEYS: &[&str] = &["table", "schema", "id", "email", "username", "show_token_warning"];

/// The providers that are always there; any other table below `providers` is an OAuth 2.0 provider.
pub(super) const META_APPS: &[&str] = &["facebook", "instagram", "threads"];

/// The key of that path, the name of a provider put in place of `NAME`.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    let general = general(path);
    KEYS.iter().find(|key| key.path == general)
}

/// Whether a path is a table above some key.
pub(super) fn is_section(path: &str) -> bool {
    let below = format!("{}.", general(path));
    KEYS.iter().any(|key| key.path.starts_with(&below))
}

/// The secret whose `..._file` key this path is.
pub(super) fn of_file(path: &str) -> Option<&str> {
    let bare = path.strip_suffix("_file")?;
    find(bare).filter(|key| key.kind == Kind::Secret).map(|_| bare)
}

fn general(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('.').collect();
    if let ["providers", name, ..] = parts[..]
        && !META_APPS.contains(&name)
    {
        parts[1] = "NAME";
    }
    parts.join(".")
}

/// What an error says after "is not known": the nearest key, and the known ones beside it.
pub(super) fn advice(path: &str) -> String {
    let (section, last) = path.rsplit_once('.').unwrap_or(("", path));
    let (known, place) = if section.is_empty() || !is_section(section) {
        let mut known: Vec<&str> = KEYS.iter().filter_map(|key| key.path.split('.').next()).collect();
        known.push("connections");
        known.dedup();
        (known, "known sections".to_owned())
    } else {
        (children(section), format!("known keys of `{section}`"))
    };
    let meant = if section.is_empty() {
        nearest(last, known.iter().copied()).map(str::to_owned)
    } else if section == "providers" || !is_section(section) {
        nearest(path, KEYS.iter().map(|key| key.path)).map(str::to_owned)
    } else {
        nearest(last, known.iter().copied()).map(|name| format!("{section}.{name}"))
    };
    let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    format!("{meant} ({place}: {})", listed(known))
}

/// The same for a variable.
pub(super) fn variable_advice(name: &str) -> String {
    let all: Vec<String> = KEYS
        .iter()
        .flat_map(|key| {
            let variable = key.variable();
            let file = (key.kind == Kind::Secret).then(|| format!("{variable}_FILE"));
            [Some(variable), file].into_iter().flatten()
        })
        .collect();
    let meant = nearest(name, all.iter().map(String::as_str));
    let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    // A section that exists narrows the list to what may be meant.
    let section = name.split("__").next().unwrap_or(name);
    let near: Vec<&str> =
        known.iter().map(String::as_str).filter(|known| known.split("__").next() == Some(section)).collect();
    let known = if near.is_empty() { known.iter().map(String::as_str).collect() } else { near };
    format!("{meant} (known variables: {})", listed(known))
}

fn children(section: &str) -> Vec<&'static str> {
    let below = format!("{}.", general(section));
    let mut known: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| key.path.strip_prefix(&below))
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    known.dedup();
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cells of the rows of a page whose first cell is a key in backticks.
    fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
        let start = page.find(heading).expect("the heading is there");
        let rest = &page[start + heading.len()..];
        let part = &rest[..rest.find("\n## ").unwrap_or(rest.len())];
        part.lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect())
            .collect()
    }

    #[test]
    fn the_page_lists_every_key_with_its_default_and_its_variable() {
        let page = include_str!("../../docs/config.md");
        let told: Vec<[String; 4]> = rows(page, "## Every key")
            .into_iter()
            .map(|row| [row[0], row[1], row[2], row[3]].map(str::to_owned))
            .collect();
        let known: Vec<[String; 4]> = KEYS
            .iter()
            .map(|key| {
                [
                    key.path.to_owned(),
                    key.default.unwrap_or("-").to_owned(),
                    key.plain.unwrap_or("-").to_owned(),
                    if key.kind == Kind::Secret { "secret" } else { "-" }.to_owned(),
                ]
            })
            .collect();
        assert_eq!(told, known);
    }

    #[test]
    fn the_page_lists_every_key_of_a_source() {
        let page = include_str!("../../docs/config.md");
        let told: Vec<&str> = rows(page, "## Sources").into_iter().map(|row| row[0]).collect();
        let known: Vec<String> = CONNECTION_KEYS
            .iter()
            .filter(|key| !["columns", "user"].contains(key))
            .map(|key| (*key).to_owned())
            .chain(COLUMN_KEYS.iter().map(|key| format!("columns.{key}")))
            .chain(USER_KEYS.iter().map(|key| format!("user.{key}")))
            .collect();
        assert_eq!(told, known);
    }

    #[test]
    fn the_page_lists_every_known_provider() {
        use crate::provider::oauth2::{ClientAuth, definitions::DEFINITIONS};
        let page = include_str!("../../docs/config.md");
        let told: Vec<String> = rows(page, "## OAuth 2.0 providers").into_iter().map(|row| row.join(" ")).collect();
        let known: Vec<String> = DEFINITIONS
            .iter()
            .map(|known| {
                let auth = if known.client_auth == ClientAuth::Basic { "basic" } else { "body" };
                let class = format!("{:?}", known.class).to_lowercase();
                let life = match known.usual_life_s {
                    life if life % 86_400 == 0 => format!("{} d", life / 86_400),
                    life if life % 3_600 == 0 => format!("{} h", life / 3_600),
                    life => format!("{} min", life / 60),
                };
                let documentation = format!("[documentation]({})", known.documentation);
                [known.name, known.token_url, auth, &class, &life, &documentation].join(" ")
            })
            .collect();
        assert_eq!(told, known);
    }

    #[test]
    fn only_secrets_have_a_file_key() {
        assert_eq!(of_file("providers.facebook.app_secret_file"), Some("providers.facebook.app_secret"));
        assert_eq!(of_file("providers.google.client_secret_file"), Some("providers.google.client_secret"));
        assert_eq!(of_file("mail.ca_file"), None);
        assert_eq!(of_file("mail.from_file"), None);
    }

    #[test]
    fn a_provider_of_any_name_has_the_keys_of_oauth2() {
        assert!(find("providers.google.token_url").is_some());
        assert!(find("providers.facebook.token_url").is_none());
        assert!(find("providers.google.app_id").is_none());
    }
}
