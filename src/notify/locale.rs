//! The languages that customers are written to in.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A language, with its way to write a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Locale {
    /// Brazilian Portuguese.
    #[default]
    PtBr,
    /// English.
    En,
    /// Spanish.
    Es,
}

impl Locale {
    /// Every language there is.
    pub const ALL: [Self; 3] = [Self::PtBr, Self::En, Self::Es];

    /// The language tag ([BCP 47](https://www.rfc-editor.org/info/bcp47)).
    pub const fn tag(self) -> &'static str {
        match self {
            Self::PtBr => "pt-BR",
            Self::En => "en",
            Self::Es => "es",
        }
    }

    /// The day of an instant in UTC, as readers of that language write it. English spells the month out:
    /// 04/05 is read differently on both sides of the Atlantic.
    pub(super) fn date(self, instant: Timestamp) -> String {
        let format = match self {
            Self::PtBr | Self::Es => "%d/%m/%Y",
            Self::En => "%-d %B %Y",
        };
        instant.to_zoned(TimeZone::UTC).strftime(format).to_string()
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tag())
    }
}

impl FromStr for Locale {
    type Err = UnknownLocale;

    fn from_str(text: &str) -> Result<Self, UnknownLocale> {
        Self::ALL
            .into_iter()
            .find(|locale| locale.tag().eq_ignore_ascii_case(text.trim()))
            .ok_or_else(|| UnknownLocale(text.chars().filter(|c| !c.is_control()).take(40).collect()))
    }
}

/// Nobody has written the mails in that language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown locale `{0}` (known locales: pt-BR, en, es)")]
pub struct UnknownLocale(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_in_any_case() {
        for (text, locale) in [("pt-BR", Locale::PtBr), ("PT-br", Locale::PtBr), ("en", Locale::En), ("ES", Locale::Es)]
        {
            assert_eq!(text.parse(), Ok(locale));
        }
        assert_eq!(Locale::default(), Locale::PtBr);
    }

    #[test]
    fn an_unknown_tag_is_told_the_known_ones() {
        let error = "fr\u{1b}[31m".parse::<Locale>().unwrap_err().to_string();
        assert_eq!(error, "unknown locale `fr[31m` (known locales: pt-BR, en, es)");
        for locale in Locale::ALL {
            assert!(error.contains(locale.tag()));
        }
    }

    #[test]
    fn a_date_is_written_as_its_readers_do() {
        let instant: Timestamp = "2026-05-04T23:59:59Z".parse().unwrap();
        assert_eq!(Locale::PtBr.date(instant), "04/05/2026");
        assert_eq!(Locale::Es.date(instant), "04/05/2026");
        assert_eq!(Locale::En.date(instant), "4 May 2026");
    }
}
