//! The record of runs.

use jiff::Timestamp;

use super::{RunRow, State};

impl State {
    pub(super) fn begin_run(&mut self, kind: &str, holder: &str, now: Timestamp) -> i64 {
        let number = self.signed_number();
        let run = RunRow {
            kind: kind.to_owned(),
            holder: holder.to_owned(),
            started_at: now,
            finished_at: None,
            report: None,
        };
        self.runs.insert(number, run);
        number
    }

    pub(super) fn finish_run(&mut self, number: i64, report: &str, now: Timestamp) {
        if let Some(run) = self.runs.get_mut(&number) {
            run.finished_at = Some(now);
            run.report = Some(report.to_owned());
            self.finished.insert((run.started_at, number));
        }
    }

    pub(super) fn last_run(&self) -> Option<Timestamp> {
        self.finished.last().map(|(started_at, _)| *started_at)
    }
}
