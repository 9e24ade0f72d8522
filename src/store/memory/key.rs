//! Keys in the order in which a database would give them: numbers by their value, texts by their bytes.

use std::fmt;

/// A connection's key.
///
/// Numbers come before texts. What a database would not print for a number (`01`, `1e5`) is a text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Number(i64),
    Text(Box<str>),
}

impl Key {
    /// Before all others, and itself one of them.
    pub(super) const FIRST: Self = Self::Number(i64::MIN);

    pub(super) fn of(text: &str) -> Self {
        match text.parse::<i64>() {
            // `+1`, `01` and `-0` are read as numbers, too; they are not how a number is written.
            Ok(number) if is_canonical(text) => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }
}

/// The text that the key was made of.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn is_canonical(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits == "0" && !text.starts_with('-') || digits.starts_with(|first: char| ('1'..='9').contains(&first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_by_value_and_come_before_texts() {
        let mut keys = ["10", "b", "9", "-5", "01", "+1", "", "-0", "0"].map(Key::of);
        keys.sort();
        assert_eq!(keys, ["-5", "0", "9", "10", "", "+1", "-0", "01", "b"].map(Key::of));
        assert!(Key::FIRST <= Key::of("-9223372036854775808"));
    }

    #[test]
    fn different_texts_are_different_keys() {
        for (one, other) in [("1", "01"), ("1", "+1"), ("0", "-0"), ("", " ")] {
            assert_ne!(Key::of(one), Key::of(other));
        }
    }
}
