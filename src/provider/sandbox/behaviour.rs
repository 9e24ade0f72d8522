//! The ways in which the sandbox treats a token.

use std::fmt;

/// How a token is treated. The names are a contract with users: they stand in tokens and in `--shares`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Behaviour {
    /// Refreshed.
    Ok,
    /// Refused for good: code 190 with this subcode, or with none.
    Dead {
        /// 400 to 499.
        subcode: Option<u16>,
    },
    /// 200, and the expiry does not move.
    Stuck,
    /// The first refresh is answered by 500, later ones are well.
    Flaky,
    /// 500 and a page of HTML, always.
    Html500,
    /// Code 4: the app has made too many calls.
    Limited,
    /// Refused as too young. The body is invented: no real one is known.
    Young,
    /// Well, but late.
    Slow {
        /// Milliseconds until the answer, at most [`Behaviour::SLOW_MS_MAX`].
        ms: u32,
    },
    /// 200, but no token in it.
    NoToken,
    /// A new string each time, and the old one dies.
    Rotate,
}

impl Behaviour {
    /// The longest that a `slow` token takes: ten minutes.
    pub const SLOW_MS_MAX: u32 = 600_000;
    /// How long a `slow` token takes whose text has no number.
    pub const SLOW_MS: u32 = 2_000;
    /// The words that tokens and shares may name, in the order of the documentation.
    pub const WORDS: [&'static str; 10] =
        ["ok", "dead", "stuck", "flaky", "html500", "limited", "young", "slow", "notoken", "rotate"];

    /// The behaviour of that word; a `dead` one without subcode, a `slow` one with the default time.
    pub fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "ok" => Self::Ok,
            "dead" => Self::Dead { subcode: None },
            "stuck" => Self::Stuck,
            "flaky" => Self::Flaky,
            "html500" => Self::Html500,
            "limited" => Self::Limited,
            "young" => Self::Young,
            "slow" => Self::Slow { ms: Self::SLOW_MS },
            "notoken" => Self::NoToken,
            "rotate" => Self::Rotate,
            _ => return None,
        })
    }

    /// The word without its number.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Dead { .. } => "dead",
            Self::Stuck => "stuck",
            Self::Flaky => "flaky",
            Self::Html500 => "html500",
            Self::Limited => "limited",
            Self::Young => "young",
            Self::Slow { .. } => "slow",
            Self::NoToken => "notoken",
            Self::Rotate => "rotate",
        }
    }
}

/// As it stands in a token: `dead-460`, `slow-2000`.
impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dead { subcode: Some(subcode) } => write!(f, "dead-{subcode}"),
            Self::Slow { ms } => write!(f, "slow-{ms}"),
            other => f.write_str(other.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back_as_it_is_written() {
        for word in Behaviour::WORDS {
            assert_eq!(Behaviour::of_word(word).map(Behaviour::word), Some(word));
        }
        assert_eq!(Behaviour::of_word("OK"), None);
    }
}
