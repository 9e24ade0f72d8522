//! The progress bar, on a terminal only.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::Report;

/// A bar on standard error, or nothing.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(super) fn new(is_wanted: bool) -> Self {
        let is_shown = is_wanted && std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        Self(is_shown.then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())))
    }

    pub(super) fn is_shown(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn begin(&self, due: u64) {
        let Some(bar) = &self.0 else { return };
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} connections, {per_sec}, {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_length(due);
    }

    pub(super) fn show(&self, report: &Report) {
        let Some(bar) = &self.0 else { return };
        bar.set_length(bar.length().unwrap_or(0).max(report.due));
        bar.set_position(report.due);
        bar.set_message(format!("{} refreshed, {} failed", report.refreshed, report.failed));
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
