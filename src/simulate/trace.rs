//! What happened, a line each: for whoever asked for all of it, or the story of one connection.

use std::collections::VecDeque;
use std::io::Write;

use jiff::Timestamp;

/// So many lines of a connection's own story are kept, and so many of what went on around it: their ends are what matters.
const STORY_MAX: (usize, usize) = (45, 15);

/// The end of one connection's story, up to an instant.
#[derive(Debug)]
struct Story {
    of: usize,
    until: Timestamp,
    told: usize,
    own: VecDeque<(usize, String)>,
    around: VecDeque<(usize, String)>,
}

impl Story {
    fn keep(&mut self, is_own: bool, line: String) {
        let (lines, max) = if is_own { (&mut self.own, STORY_MAX.0) } else { (&mut self.around, STORY_MAX.1) };
        if lines.len() == max {
            lines.pop_front();
        }
        self.told += 1;
        lines.push_back((self.told, line));
    }
}

/// Where lines go.
#[derive(Default)]
pub(super) struct Trace {
    out: Option<Box<dyn Write + Send>>,
    /// Whose story is kept.
    story: Option<Story>,
    /// The first error of the file.
    pub(super) error: Option<std::io::Error>,
}

impl Trace {
    pub(super) fn to(out: Option<Box<dyn Write + Send>>) -> Self {
        Self { out, ..Self::default() }
    }

    pub(super) fn story_of(number: usize, until: Timestamp) -> Self {
        let (own, around) = Default::default();
        Self { story: Some(Story { of: number, until, told: 0, own, around }), ..Self::default() }
    }

    /// The story, in its order.
    pub(super) fn story(&self) -> Vec<String> {
        let mut lines: Vec<&(usize, String)> =
            self.story.iter().flat_map(|story| story.own.iter().chain(&story.around)).collect();
        lines.sort();
        lines.into_iter().map(|(_, line)| line.clone()).collect()
    }

    /// Tells something about a connection, or about all.
    pub(super) fn tell(&mut self, now: Timestamp, whom: Option<usize>, text: impl FnOnce() -> String) {
        let belongs =
            self.story.as_ref().is_some_and(|story| now <= story.until && (whom.is_none() || whom == Some(story.of)));
        if self.out.is_none() && !belongs {
            return;
        }
        let at = now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
        let line = match whom {
            Some(number) => format!("{at} connection {number}: {}", text()),
            None => format!("{at} {}", text()),
        };
        if let Some(out) = &mut self.out
            && let Err(error) = writeln!(out, "{line}")
        {
            (self.error, self.out) = (Some(error), None);
        }
        if let Some(story) = self.story.as_mut().filter(|_| belongs) {
            story.keep(whom.is_some(), line);
        }
    }

    pub(super) fn flush(&mut self) {
        if let Some(out) = &mut self.out
            && let Err(error) = out.flush()
        {
            self.error = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_ends_where_it_hurt_and_is_not_drowned_by_what_went_on_around_it() {
        let at = |hour: i64| Timestamp::from_second(1_800_000_000 + 3600 * hour).expect("a date");
        let mut trace = Trace::story_of(7, at(500));
        for hour in 0..1000 {
            trace.tell(at(hour), None, || "a run begins".to_owned());
            trace.tell(at(hour), Some(8), || "another".to_owned());
        }
        assert!(trace.story().len() == STORY_MAX.1 && !trace.story().iter().any(|line| line.contains("another")));
        let mut trace = Trace::story_of(7, at(500));
        trace.tell(at(1), Some(7), || "sent".to_owned());
        for hour in 2..=500 {
            trace.tell(at(hour), None, || "a run begins".to_owned());
        }
        trace.tell(at(500), Some(7), || "BROKEN".to_owned());
        trace.tell(at(501), Some(7), || "later".to_owned());
        let story = trace.story();
        assert!(story.first().is_some_and(|line| line.ends_with("sent")), "{story:?}");
        assert!(story.last().is_some_and(|line| line.ends_with("BROKEN")), "{story:?}");
    }
}
