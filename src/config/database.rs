//! Section `database`: where the app's tables are.

use std::fmt;
use std::path::{Path, PathBuf};

use perene_policy::Secret;
use url::Url;

use super::error::shown;
use super::found::Found;

/// Section `database`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Key `database.url`, variable `DATABASE_URL`. Default `sqlite:perene.db`.
    pub url: DatabaseUrl,
}

/// Which database. `Debug` and [`DatabaseUrl::describe`] show no password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file, its path absolute (a relative one counts from the working directory).
    Sqlite(PathBuf),
    /// A server: the whole URL with libpq's parameters, the password inside.
    Postgres(Secret),
}

impl DatabaseUrl {
    /// Reads `sqlite:PATH`, `sqlite://PATH`, `postgres://...` or `postgresql://...`. The error is a fragment
    /// without any part of the URL but a scheme.
    pub fn parse(text: &str, cwd: &Path) -> Result<Self, String> {
        const KNOWN: &str = "known: `sqlite:PATH`, `sqlite://PATH`, `postgres://...`, `postgresql://...`";
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(format!("is not a database URL ({KNOWN})"));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "sqlite" => sqlite(rest.strip_prefix("//").unwrap_or(rest), cwd),
            "postgres" | "postgresql" => postgres(text),
            // Only what is surely a scheme is repeated, so that a pasted password is not.
            other if rest.starts_with("//") && other.len() <= 24 => {
                Err(format!("has the unsupported scheme `{}` ({KNOWN})", shown(other)))
            }
            _ => Err(format!("is not a database URL ({KNOWN})")),
        }
    }

    /// The database without its password and its parameters, for logs and reports.
    pub fn describe(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", shown(&path.to_string_lossy())),
            Self::Postgres(url) => described(url).unwrap_or_else(|| "postgres".to_owned()),
        }
    }
}

fn sqlite(path: &str, cwd: &Path) -> Result<DatabaseUrl, String> {
    match path {
        "" => Err("names no file: `sqlite:PATH`".to_owned()),
        ":memory:" => Err("must name a file: a database in memory would forget everything".to_owned()),
        _ if path.contains(['?', '#', '\0']) => Err("must be `sqlite:PATH` without parameters".to_owned()),
        _ => Ok(DatabaseUrl::Sqlite(cwd.join(path))),
    }
}

fn postgres(text: &str) -> Result<DatabaseUrl, String> {
    const REMEDY: &str =
        "such characters as `@`, `/`, `:`, `#` and `?` in a password are written `%40`, `%2F`, `%3A`, `%23` and `%3F`";
    let url = Url::parse(text).map_err(|error| format!("is not a valid postgres URL: {error} ({REMEDY})"))?;
    if url.cannot_be_a_base() {
        return Err("must begin with `postgres://` or `postgresql://`".to_owned());
    }
    if url.fragment().is_some() {
        return Err(format!("is not a valid postgres URL: it holds a `#` ({REMEDY})"));
    }
    Ok(DatabaseUrl::Postgres(Secret::new(text)))
}

/// `postgres://user@host:port/database`; host, port and database may stand among the parameters.
fn described(secret: &Secret) -> Option<String> {
    let url = Url::parse(secret.expose()).ok()?;
    let parameter = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let user = Some(url.username().to_owned()).filter(|user| !user.is_empty()).or_else(|| parameter("user"));
    let host = url.host_str().filter(|host| !host.is_empty()).map(str::to_owned).or_else(|| parameter("host"));
    let port = url.port().map(|port| port.to_string()).or_else(|| parameter("port"));
    let name = Some(url.path().trim_start_matches('/').to_owned()).filter(|name| !name.is_empty());
    let text = format!(
        "postgres://{}{}{}/{}",
        user.map(|user| format!("{user}@")).unwrap_or_default(),
        host.unwrap_or_default(),
        port.map(|port| format!(":{port}")).unwrap_or_default(),
        name.or_else(|| parameter("dbname")).unwrap_or_default(),
    );
    Some(shown(&text))
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

pub(super) fn read(found: &Found<'_>) -> Option<Database> {
    let url = found.read_secret("database.url", |text| DatabaseUrl::parse(text.expose().trim(), found.cwd))?;
    Some(Database { url })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DatabaseUrl, String> {
        DatabaseUrl::parse(text, Path::new("/srv/app"))
    }

    #[test]
    fn sqlite_paths_count_from_the_working_directory() {
        for (text, path) in [
            ("sqlite:perene.db", "/srv/app/perene.db"),
            ("sqlite://data/x.db", "/srv/app/data/x.db"),
            ("sqlite:///var/x.db", "/var/x.db"),
            ("sqlite:/var/x y.db", "/var/x y.db"),
        ] {
            assert_eq!(parse(text), Ok(DatabaseUrl::Sqlite(PathBuf::from(path))), "{text}");
        }
    }

    #[test]
    fn a_password_is_in_no_description() {
        for (text, described) in [
            ("postgres://ana:hunter2@db:5433/app?sslmode=require", "postgres://ana@db:5433/app"),
            ("postgresql:///app?host=/run/postgresql&user=ana&password=hunter2", "postgres://ana@/run/postgresql/app"),
            ("postgres://db", "postgres://db/"),
        ] {
            let url = parse(text).unwrap();
            assert_eq!(url.describe(), described);
            assert_eq!(format!("{url:?}"), described);
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_being_repeated() {
        for text in [
            "hunter2",
            "hunter2:x",
            "jdbc:postgresql://u:hunter2@h/db",
            "mysql://u:hunter2@h/db",
            "postgres://u:hunt#hunter2@h/db",
            "postgres://u:p/hunter2@h/db",
            "postgres://u:hunter2@h:port/db",
            "postgres:hunter2",
            "sqlite:",
            "sqlite://",
            "sqlite::memory:",
            "sqlite:x.db?mode=hunter2",
        ] {
            let error = parse(text).expect_err(text);
            assert!(!error.contains("hunter2"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        assert_eq!(
            parse("mysql://u:p@h/db").unwrap_err(),
            "has the unsupported scheme `mysql` (known: `sqlite:PATH`, `sqlite://PATH`, `postgres://...`, `postgresql://...`)"
        );
    }
}
