//! What a driver's error means: which are tried again at once, and in which words the others are told.
//!
//! A server's message may quote a value, and its DETAIL may quote a row. Of errors about data only the
//! names of columns and constraints are told; of errors about names and rights, the message, which holds
//! nothing else.

use sqlx::postgres::PgDatabaseError;

use crate::store::StoreError;

/// What went wrong inside one step: the driver's error, or one that has its words already.
#[derive(Debug)]
pub(super) enum Trouble {
    Sql(sqlx::Error),
    Told(StoreError),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Told(error)
    }
}

impl Trouble {
    fn database(&self) -> Option<&PgDatabaseError> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.try_downcast_ref(),
            _ => None,
        }
    }

    /// The SQLSTATE, where the server gave one.
    pub(super) fn code(&self) -> &str {
        self.database().map_or("", PgDatabaseError::code)
    }

    /// The connection is gone; what was under way may have been carried out or not.
    pub(super) fn is_lost_connection(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed))
            || matches!(self.code(), "57P01" | "57P02" | "57P03")
            || self.code().starts_with("08")
    }

    /// The server does not know a function, or does not let us use it.
    pub(super) fn is_about_the_server(&self) -> bool {
        ["0A", "42", "55"].iter().any(|class| self.code().starts_with(class))
    }

    /// Two transactions stood in each other's way, and this one gave way.
    pub(super) fn is_collision(&self) -> bool {
        matches!(self.code(), "40001" | "40P01")
    }

    /// A row is locked by somebody else for longer than Perene waits.
    pub(super) fn is_lock_timeout(&self) -> bool {
        self.code() == "55P03"
    }

    /// What is known of the app's tables may be out of date.
    pub(super) fn is_stale_shape(&self) -> bool {
        matches!(self.code(), "42703" | "42P01" | "42804" | "42883" | "42846" | "3F000" | "42P22")
            || (self.code() == "22P02" || self.code() == "42704")
    }

    /// The server refuses the data of some row, and not the statement: a value, a constraint, or whatever
    /// a trigger chose to raise. All that the server itself raises about statements is left out.
    pub(super) fn is_about_data(&self) -> bool {
        const OF_STATEMENTS: [&str; 15] =
            ["08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0", "HV", "XX"];
        self.database().is_some_and(|error| !OF_STATEMENTS.iter().any(|class| error.code().starts_with(class)))
    }

    /// One line about data that was refused.
    pub(super) fn data_text(&self) -> String {
        self.database().map_or_else(|| "the database refused the row".to_owned(), data_text)
    }
}

/// One line about data that was refused. What a trigger raises is the app's own words and may quote the
/// row: the caller redacts them.
fn data_text(error: &PgDatabaseError) -> String {
    let what = match error.code() {
        "22001" => "a value is too long for its column",
        "22003" => "a number is out of its column's range",
        "22021" | "22P05" => "a text has a character that the database cannot store",
        "23502" => "a column must not be NULL",
        "23503" => "a foreign key has nothing to refer to",
        "23505" => "a value must be unique, and another row has it",
        "23514" => "a check does not allow the value",
        "44000" => "the view does not show what would be written",
        code if code.starts_with("22") || code.starts_with("23") => "a value was refused",
        _ => error.message(),
    };
    let places = [("table", error.table()), ("column", error.column()), ("constraint", error.constraint())];
    let places = places.map(|(kind, name)| name.map_or_else(String::new, |name| format!(", {kind} `{name}`")));
    one_line(&format!("the database refused the row: {what} (SQLSTATE {}{})", error.code(), places.concat()))
}

/// No message can end a line of a log or open another.
fn one_line(text: &str) -> String {
    text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn io_text(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => one_line(&error.to_string()),
    }
}

/// Where the database is, in words that may be shown.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// `host:port`, or the socket's folder.
    pub(super) server: String,
    pub(super) user: String,
    pub(super) database: String,
}

impl Place {
    /// The driver's error in words: the culprit, and the remedy.
    pub(super) fn tell(&self, trouble: Trouble) -> StoreError {
        let error = match trouble {
            Trouble::Told(told) => return told,
            Trouble::Sql(error) => error,
        };
        let Self { server, user, database } = self;
        match &error {
            sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
                Some(error) => self.tell_server(error),
                None => self.refused("the database refused a statement".to_owned(), false),
            },
            sqlx::Error::Io(error) => StoreError::Unreachable(format!(
                "the database at `{server}` cannot be reached ({}): start it, or correct `database.url`",
                io_text(error)
            )),
            sqlx::Error::Tls(error) => StoreError::Unreachable(format!(
                "no TLS with the database at `{server}`: {}; see `sslmode` and `sslrootcert` in `database.url`",
                one_line(&error.to_string())
            )),
            sqlx::Error::PoolTimedOut => StoreError::Unreachable(format!(
                "no connection to the database at `{server}` became free in time: it is slow, or too many work on it"
            )),
            sqlx::Error::PoolClosed => {
                StoreError::Unreachable(format!("the connections to the database at `{server}` are closed"))
            }
            sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
                StoreError::Unreachable(format!("the connection to the database at `{server}` broke"))
            }
            sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => StoreError::Mapping(format!(
                "`database.url` cannot be used for `{user}` at `{server}`, database `{database}`: check its parameters"
            )),
            // The remaining ones quote values.
            _ => self.refused(format!("an answer of the database at `{server}` could not be read"), false),
        }
    }

    fn tell_server(&self, error: &PgDatabaseError) -> StoreError {
        let Self { server, user, database } = self;
        let message = one_line(error.message());
        match error.code() {
            "28P01" | "28000" => StoreError::NotLetIn(format!(
                "the database at `{server}` does not let `{user}` in: {}; check user and password in `database.url`",
                if error.code() == "28P01" { "wrong password".to_owned() } else { message }
            )),
            "3D000" => StoreError::NotLetIn(format!(
                "there is no database `{database}` at `{server}`: create it, or correct `database.url`"
            )),
            "53300" => StoreError::Unreachable(format!(
                "the database at `{server}` has no connection left for `{user}`: raise `max_connections`, or use a pooler"
            )),
            "53100" => self.refused(format!("the disk of the database at `{server}` is full: make room"), true),
            "25006" => StoreError::Unreachable(format!(
                "the database at `{server}` is read-only (a standby?): `database.url` must name the primary"
            )),
            "40001" | "40P01" => self.refused(format!("transactions at `{server}` collided again and again"), true),
            "55P03" => self.refused(
                format!("a table or row of `{database}` is locked by another transaction: let that one end"),
                true,
            ),
            "57014" => self.refused(
                format!("the database at `{server}` did not finish a statement in time: it is slow, or an index is missing (`perene migrate`)"),
                true,
            ),
            "42501" => StoreError::Missing(format!(
                "the database role `{user}` lacks a right: {message}; `perene migrate --grant-to {user}`, run by the owner, gives it"
            )),
            "42P01" | "42703" | "3F000" => StoreError::Missing(format!(
                "the database `{database}` lacks something: {message}; run `perene migrate`"
            )),
            code if code.starts_with("57P") || code.starts_with("08") => StoreError::Unreachable(format!(
                "the database at `{server}` is not available: {message}; it will be asked again"
            )),
            code if code.starts_with("53") || code.starts_with("58") || code == "25P03" => {
                self.refused(format!("the database at `{server}` is in trouble: {message}"), true)
            }
            code if code.starts_with("42") || code.starts_with("0A") => {
                self.refused(format!("the database `{database}` does not know how: {message} (SQLSTATE {code})"), false)
            }
            _ => self.refused(data_text(error), false),
        }
    }

    fn refused(&self, text: String, may_pass: bool) -> StoreError {
        StoreError::Refused { text, may_pass }
    }
}
