//! How many tokens behave in which way when their text does not say.

use super::{Behaviour, chance};

/// Shares of the tokens, by behaviour. What is left over is `ok`.
///
/// ```
/// use perene::provider::sandbox::Shares;
///
/// assert!(Shares::parse("transient=3, dead=1, limited=0.5").is_ok());
/// assert!(Shares::parse("").is_ok());
/// let error = Shares::parse("lost=1").unwrap_err();
/// assert!(error.to_string().starts_with("unknown share `lost`"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shares(Vec<(Behaviour, u32)>);

/// Why a text is not a list of shares.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SharesError {
    /// A part that is not `name=percent`.
    #[error("`{0}` is not a share: write it as `name=percent`, such as `dead=1`")]
    Shape(String),
    /// A name that is no behaviour.
    #[error("unknown share `{0}` (known shares: transient, {known})", known = Behaviour::WORDS.join(", "))]
    Name(String),
    /// A percentage that is no number of 0 to 100.
    #[error("the share `{name}={percent}` is not a number of percent from 0 to 100")]
    Percent {
        /// The share's name.
        name: String,
        /// What was given for it.
        percent: String,
    },
    /// A name given twice.
    #[error("the share `{0}` is given twice: give it once")]
    Twice(String),
    /// More than everything.
    #[error("the shares add up to {0} percent: they may reach 100 at most")]
    Sum(f64),
}

const WHOLE_PPM: u32 = 1_000_000;

impl Shares {
    /// Reads a list such as `transient=3,dead=1,limited=0.5`: percent of the tokens, by the words of
    /// [`Behaviour::WORDS`]; `transient` is another name of `flaky`. An empty text is no share at all.
    pub fn parse(text: &str) -> Result<Self, SharesError> {
        let mut shares: Vec<(Behaviour, u32)> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, percent) = part.split_once('=').ok_or_else(|| SharesError::Shape(part.to_owned()))?;
            let (name, percent) = (name.trim(), percent.trim());
            let word = if name == "transient" { "flaky" } else { name };
            let behaviour = Behaviour::of_word(word).ok_or_else(|| SharesError::Name(name.to_owned()))?;
            let share = parts_per_million(percent)
                .ok_or_else(|| SharesError::Percent { name: name.to_owned(), percent: percent.to_owned() })?;
            if shares.iter().any(|(known, _)| *known == behaviour) {
                return Err(SharesError::Twice(name.to_owned()));
            }
            shares.push((behaviour, share));
        }
        let sum: u64 = shares.iter().map(|(_, share)| u64::from(*share)).sum();
        if sum > u64::from(WHOLE_PPM) {
            return Err(SharesError::Sum(sum as f64 / 10_000.0));
        }
        Ok(Self(shares))
    }

    /// The behaviour of one lineage: the same for a seed, whatever was called before.
    pub(super) fn draw(&self, seed: u64, lineage: &str) -> Behaviour {
        // Real deaths, by how often public issues report them: password, removal, expiry, logout.
        const SUBCODES: [u16; 4] = [460, 458, 463, 467];
        let word = chance::mix(seed, chance::hash(lineage));
        let mut left = u32::try_from(word % u64::from(WHOLE_PPM)).unwrap_or(0);
        for (behaviour, share) in &self.0 {
            if left < *share {
                return match behaviour {
                    Behaviour::Dead { .. } => Behaviour::Dead { subcode: Some(SUBCODES[(word >> 62) as usize]) },
                    other => *other,
                };
            }
            left -= share;
        }
        Behaviour::Ok
    }
}

fn parts_per_million(percent: &str) -> Option<u32> {
    let number: f64 = percent.parse().ok()?;
    // The range test also refuses NaN; the cast is then exact enough.
    (0.0..=100.0).contains(&number).then(|| (number * 10_000.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_out_as_they_were_asked() {
        let shares = Shares::parse("transient=3,dead=10,limited=0.5").unwrap();
        let mut counts = [0_u32; 4];
        for n in 0..20_000 {
            let place = match shares.draw(7, &format!("EAAB{n}")) {
                Behaviour::Flaky => 0,
                Behaviour::Dead { subcode } => {
                    assert!(subcode.is_some());
                    1
                }
                Behaviour::Limited => 2,
                other => {
                    assert_eq!(other, Behaviour::Ok);
                    3
                }
            };
            counts[place] += 1;
        }
        let percent = counts.map(|count| f64::from(count) / 200.0);
        assert!((2.5..3.5).contains(&percent[0]), "{percent:?}");
        assert!((9.0..11.0).contains(&percent[1]), "{percent:?}");
        assert!((0.3..0.7).contains(&percent[2]), "{percent:?}");
    }

    #[test]
    fn the_seed_decides_who_it_is() {
        let shares = Shares::parse("dead=50").unwrap();
        let who = |seed| (0..64).map(|n| shares.draw(seed, &format!("EAAB{n}"))).collect::<Vec<_>>();
        assert_eq!(who(1), who(1));
        assert_ne!(who(1), who(2));
    }

    #[test]
    fn a_hundred_percent_is_everybody_and_none_is_nobody() {
        let all = Shares::parse("html500=100").unwrap();
        let none = Shares::parse("html500=0").unwrap();
        for n in 0..1_000 {
            assert_eq!(all.draw(1, &n.to_string()), Behaviour::Html500);
            assert_eq!(none.draw(1, &n.to_string()), Behaviour::Ok);
        }
    }

    #[test]
    fn a_wrong_list_is_told_with_its_culprit() {
        for (text, message) in [
            ("dead", "`dead` is not a share: write it as `name=percent`, such as `dead=1`"),
            ("dead=x", "the share `dead=x` is not a number of percent from 0 to 100"),
            ("dead=NaN", "the share `dead=NaN` is not a number of percent from 0 to 100"),
            ("dead=-1", "the share `dead=-1` is not a number of percent from 0 to 100"),
            ("dead=60,stuck=60", "the shares add up to 120 percent: they may reach 100 at most"),
            ("flaky=1,transient=1", "the share `transient` is given twice: give it once"),
        ] {
            assert_eq!(Shares::parse(text).unwrap_err().to_string(), message);
        }
    }
}
