//! The words of which statements are put together: quoted names, dates, keys, conditions.
//!
//! Columns are always qualified (`t."x"`): SQLite takes a bare `"x"` that is no column for a text, and a
//! missing column would go unnoticed.

use jiff::Timestamp;
use perene_policy::Grant;
use sqlx::{QueryBuilder, Sqlite};

use crate::config::{Source, TableName, UserTable};

/// A source, with its names quoted once.
pub(super) struct Mapped {
    pub(super) source: Source,
    /// The name under which Perene's own tables know it: the order in the configuration may change.
    pub(super) name: String,
    /// The table, quoted.
    pub(super) table: String,
}

impl Mapped {
    pub(super) fn new(source: Source) -> Self {
        Self { name: source.table.to_string(), table: table(&source.table), source }
    }

    /// A column of the connections' row, as `t."…"`.
    pub(super) fn column(&self, name: &str) -> String {
        format!("t.{}", quoted(name))
    }

    pub(super) fn token(&self) -> String {
        self.column(&self.source.columns.access_token)
    }

    pub(super) fn expires(&self) -> String {
        self.column(&self.source.columns.token_expires_at)
    }

    /// The source's users, if they have a flag.
    pub(super) fn flagged_users(&self) -> Option<(&UserTable, &str)> {
        let user = self.source.user.as_ref()?;
        Some((user, user.show_token_warning.as_deref()?))
    }

    /// The grant of a token of this source.
    pub(super) fn grant(&self, token: &str) -> Grant {
        if self.is_meta() { Grant::of_meta_token(token) } else { Grant::Oauth2 }
    }

    pub(super) fn is_meta(&self) -> bool {
        self.source.provider == "meta"
    }
}

pub(super) type Statement = QueryBuilder<Sqlite>;

/// A name as an identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name as an identifier.
pub(super) fn table(table: &TableName) -> String {
    match &table.schema {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(&table.name)),
        None => quoted(&table.name),
    }
}

/// An instant as it stands in Perene's own tables: microseconds since 1970.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// Reads [`micros`] back.
pub(super) fn from_micros(at: i64) -> Timestamp {
    Timestamp::from_microsecond(at).unwrap_or(if at < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// Reads what [`millis_of`] gives.
pub(super) fn from_millis(at: i64) -> Timestamp {
    Timestamp::from_millisecond(at).unwrap_or(if at < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// An expression for the milliseconds since 1970 in a column of the app: whole unix seconds as integer or
/// text, or a date as text; NULL for NULL and for what is neither. It alone says what a date is: the rows
/// are read through it too.
///
/// SQLite's own functions would also take `now` and Julian days, hence the look at the text's form.
pub(super) fn millis_of(column: &str) -> String {
    let seconds =
        |value: &str| format!("CASE WHEN {value} BETWEEN -62167219200 AND {LAST_SECOND} THEN {value} * 1000 END");
    let integer = seconds(&format!("CAST({column} AS INTEGER)"));
    format!(
        "CASE typeof({column}) WHEN 'integer' THEN {integer} WHEN 'real' THEN {integer} WHEN 'text' THEN \
         CASE WHEN {column} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' \
         THEN CAST(round(unixepoch({column}, 'subsec') * 1000) AS INTEGER) \
         WHEN {column} <> '' AND ltrim({column}, '-') NOT GLOB '*[^0-9]*' AND length({column}) <= 12 THEN {integer} \
         END END"
    )
}

/// What is written into a timestamp column. A text, in UTC; unix seconds only where the column of a
/// STRICT table takes nothing else. Cut to the second: no token is believed to live longer than it does.
pub(super) fn push_instant(statement: &mut Statement, at: Timestamp, as_seconds: bool) {
    let seconds = at.as_millisecond().div_euclid(1000);
    if as_seconds {
        statement.push_bind(seconds);
    } else {
        statement.push_bind(text_of(seconds));
    }
}

fn text_of(seconds: i64) -> String {
    let at = Timestamp::from_second(seconds).unwrap_or(Timestamp::MIN);
    jiff::tz::Offset::UTC.to_datetime(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The ranges of a column's raw values within which dates from `from` to `to` lie, so that an index on the
/// column serves: integers, texts that are a number, and dates as text, wider for their offsets.
pub(super) fn push_ranges(statement: &mut Statement, column: &str, from: Timestamp, to: Timestamp) {
    let first = from.as_second().saturating_sub(1);
    // Beyond the last instant that we know there are rows still, "never" written as a date.
    let last = if to == Timestamp::MAX { LAST_SECOND } else { to.as_second().saturating_add(1) };
    statement.push(format!("(({column} >= ")).push_bind(first);
    statement.push(format!(" AND {column} <= ")).push_bind(last);
    statement.push(format!(") OR ({column} >= ")).push_bind(first.to_string());
    statement.push(format!(" AND {column} <= ")).push_bind(last.to_string());
    // A `T` sorts after the blank of the same day, hence the hour below and the whole day above.
    statement.push(format!(") OR ({column} >= ")).push_bind(prefix_of(first.saturating_sub(OFFSET_MAX), "%Y-%m-%d %H"));
    let next_day = last.saturating_add(OFFSET_MAX).saturating_add(24 * 60 * 60);
    statement.push(format!(" AND {column} <= ")).push_bind(prefix_of(next_day, "%Y-%m-%d"));
    statement.push("))");
}

/// No offset that SQLite reads is larger, in seconds. <https://sqlite.org/lang_datefunc.html#time_values>
const OFFSET_MAX: i64 = 15 * 60 * 60;

/// The end of the year 9999, in seconds since 1970.
const LAST_SECOND: i64 = 253_402_300_799;

fn prefix_of(seconds: i64, format: &str) -> String {
    let Ok(at) = Timestamp::from_second(seconds) else {
        return if seconds < 0 { String::new() } else { "9999-99".to_owned() };
    };
    // Years before the first sort before all.
    let text = jiff::tz::Offset::UTC.to_datetime(at).strftime(format).to_string();
    if text.starts_with('-') { String::new() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_identifiers() {
        assert_eq!(quoted(r#"a"; DROP TABLE x; --"#), r#""a""; DROP TABLE x; --""#);
        let literal = TableName { schema: Some("a.b".to_owned()), name: "c.d".to_owned() };
        assert_eq!(table(&literal), r#""a.b"."c.d""#);
    }

    #[test]
    fn what_is_written_is_cut_to_the_second() {
        let at: Timestamp = "2026-11-23T03:00:00.999999Z".parse().unwrap();
        assert_eq!(text_of(at.as_millisecond().div_euclid(1000)), "2026-11-23 03:00:00");
    }

    #[test]
    fn micros_survive_and_what_no_date_can_be_is_clamped() {
        let at: Timestamp = "2026-11-23T03:00:00.123456Z".parse().unwrap();
        assert_eq!(from_micros(micros(at)), at);
        assert_eq!(from_micros(i64::MAX), Timestamp::MAX);
        assert_eq!(from_millis(253_402_300_799_000), Timestamp::MAX);
    }
}
