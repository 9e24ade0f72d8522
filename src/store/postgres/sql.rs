//! Names, types and keys in statements: quoted or cast, never pasted.

use uuid::Uuid;

/// A name as an identifier: whatever stands in it, it names one object.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What a column's type can do for Perene. A domain counts as what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// `smallint`, `integer`, `bigint`: with the largest value.
    Int(i64),
    /// `uuid`
    Uuid,
    /// `text`, `varchar`, `char(n)`, `citext`
    Text,
    /// `timestamptz`
    Instant,
    /// `timestamp`, which is read and written as UTC.
    LocalTime,
    /// `boolean`
    Bool,
    /// All else.
    Other,
}

impl Kind {
    /// The kind of the type that the catalog calls `name`.
    pub(super) fn of(name: &str) -> Self {
        match name {
            "int2" => Self::Int(i64::from(i16::MAX)),
            "int4" => Self::Int(i64::from(i32::MAX)),
            "int8" => Self::Int(i64::MAX),
            "uuid" => Self::Uuid,
            "text" | "varchar" | "bpchar" | "citext" | "name" => Self::Text,
            "timestamptz" => Self::Instant,
            "timestamp" => Self::LocalTime,
            "bool" => Self::Bool,
            _ => Self::Other,
        }
    }
}

/// A key column. Keys travel as text and are cast to the column's own type, so that its index serves.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// The quoted name.
    pub(super) column: String,
    pub(super) kind: Kind,
    /// The type's name, as the server writes it.
    pub(super) type_name: String,
}

impl Key {
    /// The key as the database writes it; `None` if no row can have it: a text that is no number is no key
    /// of a numbered table.
    pub(super) fn canonical(&self, id: &str) -> Option<String> {
        match self.kind {
            Kind::Int(_) => id.parse::<i64>().ok().map(|number| number.to_string()),
            Kind::Uuid => Uuid::try_parse(id).ok().map(|uuid| uuid.hyphenated().to_string()),
            _ => (!id.contains('\0')).then(|| id.to_owned()),
        }
    }

    /// `expression`, a text that [`Key::canonical`] has seen, as a value to compare the column with.
    pub(super) fn cast(&self, expression: &str) -> String {
        format!("({expression})::{}", self.cast_type())
    }

    /// As [`Key::cast`], for a text that stands in a table: NULL if it is no key of this type (the app has
    /// changed the type since it was written).
    pub(super) fn cast_stored(&self, expression: &str) -> String {
        let cast = self.cast(expression);
        match self.kind {
            Kind::Int(_) => format!(
                "CASE WHEN {expression} ~ '^-?[0-9]{{1,18}}$' OR ({expression} ~ '^[0-9]{{19}}$' \
                 AND {expression} COLLATE \"C\" <= '9223372036854775807') THEN {cast} END"
            ),
            Kind::Uuid => format!(
                "CASE WHEN {expression} ~ '^[0-9a-f]{{8}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{12}}$' \
                 THEN {cast} END"
            ),
            _ => cast,
        }
    }

    /// The type that [`Key::cast`] casts to. Of integers the widest: an index on `integer` serves a `bigint`
    /// as well, and a number beyond the column's range finds no row instead of failing.
    pub(super) fn cast_type(&self) -> &str {
        match self.kind {
            Kind::Int(_) => "bigint",
            Kind::Uuid => "uuid",
            _ => &self.type_name,
        }
    }

    /// The column of alias `t` as Perene's own tables keep it.
    pub(super) fn text(&self) -> String {
        format!("t.{}::text COLLATE \"C\"", self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: Kind) -> Key {
        Key { column: ident("id"), kind, type_name: "character varying".to_owned() }
    }

    #[test]
    fn a_quote_in_a_name_does_not_end_it() {
        assert_eq!(ident(r#"a"; DROP TABLE x;--"#), r#""a""; DROP TABLE x;--""#);
    }

    #[test]
    fn a_text_that_cannot_be_a_key_finds_no_row() {
        assert_eq!(key(Kind::Int(i64::MAX)).canonical("abc"), None);
        assert_eq!(key(Kind::Int(i64::MAX)).canonical("007"), Some("7".to_owned()));
        assert_eq!(key(Kind::Int(i64::MAX)).canonical("9223372036854775808"), None);
        assert_eq!(key(Kind::Uuid).canonical("7"), None);
        assert_eq!(
            key(Kind::Uuid).canonical("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11").as_deref(),
            Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
        );
        assert_eq!(key(Kind::Text).canonical("a\0b"), None);
        assert_eq!(key(Kind::Text).canonical("a'b"), Some("a'b".to_owned()));
    }
}
