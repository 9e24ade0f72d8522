//! What a token's text says about how the sandbox treats it.
//!
//! A token is read as segments between hyphens, with a generation at its end:
//!
//! ```text
//! EAA-ok-17             refreshed
//! EAA-dead-460-17       refused with that subcode; without a number of 400 to 499, with none
//! IG-slow-2000-17       answered after 2,000 ms
//! EAA-stuck-exp1764000000-17
//! IG-rotate-17~3        the third string that this connection was given
//! ```
//!
//! - The first segment is the family, by Perene's own rule: `IG…`, `TH…`, all else Facebook.
//! - The first later segment that is one of [`Behaviour::WORDS`] is the behaviour. A token that has none says
//!   nothing: [`super::Shares`] decide, and by default it is `ok`.
//! - `exp` and unix seconds: the instant at which this string ends, after which it is refused with subcode 463;
//!   `exp0` is a token that never ends, whose refresh answers without `expires_in`. Of a string that names
//!   no end, [`super::SandboxSettings::untold_life`] tells it. Only the first generation's end can be named.
//! - `~` and a number is the generation: what the sandbox appends when it hands out a new string. The rest,
//!   the lineage, stays as it is, so a token behaves the same after every refresh.

use perene_policy::Grant;

use super::Behaviour;

/// A token's text, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenText<'a> {
    /// Which grant refreshes it.
    pub grant: Grant,
    /// The text without its generation: what stays the same from refresh to refresh.
    pub lineage: &'a str,
    /// 0 for a string that the sandbox has not made.
    pub generation: u32,
    /// How it is treated.
    pub behaviour: Behaviour,
    /// The end that the text names, in unix seconds; 0 is never.
    pub expires_at_s: Option<i64>,
}

/// Reads any text; there is none that is not a token. `untold` gives the behaviour of a lineage that says nothing.
pub fn read(text: &str, untold: impl FnOnce(&str) -> Behaviour) -> TokenText<'_> {
    let (lineage, generation) = split_generation(text);
    let (mut behaviour, mut expires_at_s) = (None, None);
    let mut segments = lineage.split('-').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if behaviour.is_none() {
            behaviour = Behaviour::of_word(segment).map(|word| with_number(word, segments.peek().copied()));
        }
        if expires_at_s.is_none() {
            expires_at_s = segment.strip_prefix("exp").and_then(unix_seconds);
        }
    }
    let behaviour = behaviour.unwrap_or_else(|| untold(lineage));
    TokenText { grant: Grant::of_meta_token(text), lineage, generation, behaviour, expires_at_s }
}

/// The string of that generation.
pub fn write(lineage: &str, generation: u32) -> String {
    if generation == 0 { lineage.to_owned() } else { format!("{lineage}~{generation}") }
}

fn with_number(word: Behaviour, next: Option<&str>) -> Behaviour {
    let number = next.filter(|next| is_digits(next)).and_then(|next| next.parse::<u32>().ok());
    match (word, number) {
        (Behaviour::Dead { .. }, Some(number @ 400..=499)) => Behaviour::Dead { subcode: u16::try_from(number).ok() },
        (Behaviour::Slow { .. }, Some(number)) => Behaviour::Slow { ms: number.min(Behaviour::SLOW_MS_MAX) },
        _ => word,
    }
}

/// Only what [`write`] makes is a generation: `~0` or `~007` is part of the name.
fn split_generation(text: &str) -> (&str, u32) {
    let generation = text.rsplit_once('~').and_then(|(lineage, number)| {
        (is_digits(number) && !number.starts_with('0'))
            .then(|| number.parse::<u32>().ok())
            .flatten()
            .map(|number| (lineage, number))
    });
    generation.unwrap_or((text, 0))
}

/// Up to ten digits: beyond the year 2286 no calendar here needs to follow.
fn unix_seconds(text: &str) -> Option<i64> {
    (is_digits(text) && text.len() <= 10).then(|| text.parse().ok()).flatten()
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> TokenText<'_> {
        super::read(text, |_| UNTOLD)
    }

    fn behaviour(text: &str) -> Behaviour {
        read(text).behaviour
    }

    /// No text in these tests asks for it.
    const UNTOLD: Behaviour = Behaviour::Slow { ms: 1 };

    #[test]
    fn the_word_may_stand_in_any_segment_but_the_first() {
        assert_eq!(behaviour("EAA-ok-17"), Behaviour::Ok);
        assert_eq!(behaviour("EAA-stuck"), Behaviour::Stuck);
        assert_eq!(behaviour("IGAA-shop-41-young-x"), Behaviour::Young);
        assert_eq!(behaviour("EAA-ok-dead-460"), Behaviour::Ok);
        assert_eq!(behaviour("stuck-1"), UNTOLD);
        assert_eq!(behaviour("EAABsbCS1iHg"), UNTOLD);
        assert_eq!(behaviour("EAA-okay-1"), UNTOLD);
        assert_eq!(behaviour(""), UNTOLD);
    }

    #[test]
    fn numbers_belong_to_dead_and_slow() {
        assert_eq!(behaviour("EAA-dead-460-1"), Behaviour::Dead { subcode: Some(460) });
        assert_eq!(behaviour("EAA-dead-17"), Behaviour::Dead { subcode: None });
        assert_eq!(behaviour("EAA-slow-250-1"), Behaviour::Slow { ms: 250 });
        assert_eq!(behaviour("EAA-slow-x"), Behaviour::Slow { ms: 2_000 });
        assert_eq!(behaviour("EAA-slow-4000000000"), Behaviour::Slow { ms: 600_000 });
        assert_eq!(behaviour("EAA-limited-17"), Behaviour::Limited);
    }

    #[test]
    fn an_end_can_be_named() {
        assert_eq!(read("EAA-stuck-exp1764000000-1").expires_at_s, Some(1_764_000_000));
        assert_eq!(read("EAA-exp0").expires_at_s, Some(0));
        assert_eq!(read("EAA-ok-exp-1").expires_at_s, None);
        assert_eq!(read("EAA-ok-exp99999999999999999999").expires_at_s, None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for generation in [0, 1, 42, u32::MAX] {
            let written = write("TH-rotate-9", generation);
            let text = read(&written);
            assert_eq!((text.lineage, text.generation, text.grant), ("TH-rotate-9", generation, Grant::Threads));
        }
    }

    #[test]
    fn only_a_canonical_number_is_a_generation() {
        for text in ["EAA-ok~0", "EAA-ok~007", "EAA-ok~", "EAA-ok~-1", "EAA-ok~4294967296"] {
            assert_eq!((read(text).lineage, read(text).generation), (text, 0));
        }
    }
}
