//! What happened, a line each: for whoever asked for all of it, or the story of one connection.

use std::io::Write;

use jiff::Timestamp;

/// So many lines of a connection's story are kept: its end is what matters.
const STORY_MAX: usize = 60;

/// Where lines go.
#[derive(Default)]
pub(super) struct Trace {
    out: Option<Box<dyn Write + Send>>,
    /// Whose story is kept.
    of: Option<usize>,
    pub(super) story: std::collections::VecDeque<String>,
    /// The first error of the file.
    pub(super) error: Option<std::io::Error>,
}

impl Trace {
    pub(super) fn to(out: Option<Box<dyn Write + Send>>) -> Self {
        Self { out, ..Self::default() }
    }

    pub(super) fn story_of(number: usize) -> Self {
        Self { of: Some(number), ..Self::default() }
    }

    /// Tells something about a connection, or about all.
    pub(super) fn tell(&mut self, now: Timestamp, whom: Option<usize>, text: impl FnOnce() -> String) {
        if self.out.is_none() && self.of.is_none() {
            return;
        }
        if self.out.is_none() && whom.is_some() && whom != self.of {
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
        if self.of.is_some() {
            if self.story.len() == STORY_MAX {
                self.story.pop_front();
            }
            self.story.push_back(line);
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
