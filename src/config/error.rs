//! What is wrong with a configuration: one line a fault, each complete, none with a secret in it.

use std::fmt;

/// Every fault that was found. `Display` gives one line each. The process ends with
/// [`Exit::WrongUse`](crate::cli::exit::Exit::WrongUse), exit code 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Vec<String>);

impl ConfigError {
    /// One fault. The line must hold no secret and no line break.
    pub fn one(line: impl Into<String>) -> Self {
        Self(vec![line.into()])
    }

    /// `Err` if there is a fault.
    pub(super) fn check(lines: Vec<String>) -> Result<(), Self> {
        if lines.is_empty() { Ok(()) } else { Err(Self(lines)) }
    }

    /// The faults, one line each, at least one.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// A value as an error may show it: one line, at most 80 characters.
pub(super) fn shown(value: &str) -> String {
    let mut text: String = value.chars().take(80).flat_map(char::escape_debug).collect();
    if value.chars().nth(80).is_some() {
        text.push('…');
    }
    text.replace("\\\"", "\"").replace("\\'", "'")
}

/// A path as an error shows it: one line, and whole, since a part of it names nothing.
pub(super) fn shown_path(path: &std::path::Path) -> String {
    path.to_string_lossy()
        .chars()
        .flat_map(|c| {
            if c.is_control() { c.escape_debug().to_string() } else { c.to_string() }.chars().collect::<Vec<_>>()
        })
        .collect()
}

/// The names, each in backticks, with commas between.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The name nearest to a wrong one, if one is near enough to be meant.
pub(super) fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).clamp(1, 4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_value_stays_on_one_short_line() {
        assert_eq!(shown("it's\na \"b\"\u{1b}"), "it's\\na \"b\"\\u{1b}");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), 81);
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        assert_eq!(nearest("windw", ["window", "concurrency"]), Some("window"));
        assert_eq!(nearest("colour", ["window", "concurrency"]), None);
    }
}
