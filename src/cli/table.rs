//! Tables for people.

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use perene_policy::Outcome;

use crate::engine::Report;

/// Lines of trouble that are shown; the rest is in the database (`perene status --id ID`).
const LINES_MAX: usize = 40;

/// A table without lines, as wide as the terminal allows.
pub(super) fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// What a run came to: how many of each outcome, who failed and why, who was warned.
pub(super) fn of_run(report: &Report) -> String {
    if report.dry_run {
        return format!("{} due; nothing was called, nothing was changed", report.due);
    }
    let seconds = std::time::Duration::from_millis(report.elapsed_ms).as_secs_f64();
    let mut text = format!("{} due, done in {seconds:.1} s\n", report.due);
    if report.was_interrupted {
        text.push_str("interrupted: what was begun is finished, the rest is for the next run\n");
    }
    if !report.outcomes.is_empty() {
        let mut counts = plain();
        for (outcome, count) in &report.outcomes {
            counts.add_row([outcome.name().to_owned(), count.to_string(), meaning(*outcome).to_owned()]);
        }
        push(&mut text, &counts);
    }
    if !report.troubles.is_empty() {
        text.push('\n');
        let mut lines = plain();
        lines.set_header(["connection", "outcome", "why", "customer"]);
        for trouble in report.troubles.iter().take(LINES_MAX) {
            let customer = if trouble.was_warned { "warned" } else { "" };
            lines.add_row([trouble.id.as_str(), trouble.outcome.name(), trouble.text.as_str(), customer]);
        }
        lines.set_constraints([
            ColumnConstraint::LowerBoundary(Width::Fixed(12)),
            ColumnConstraint::LowerBoundary(Width::Fixed(16)),
            ColumnConstraint::LowerBoundary(Width::Fixed(40)),
            ColumnConstraint::LowerBoundary(Width::Fixed(9)),
        ]);
        push(&mut text, &lines);
        let untold = (report.failed + report.deferred).saturating_sub(LINES_MAX.min(report.troubles.len()) as u64);
        if untold > 0 {
            text.push_str(&format!("and {untold} more: `perene status --id ID` tells of each\n"));
        }
    }
    text.push('\n');
    text.push_str(&format!("{} warned, {} recovered", report.warned, report.recovered));
    if report.leased_elsewhere > 0 {
        text.push_str(&format!(", {} in the hands of another process", report.leased_elsewhere));
    }
    text
}

/// What an outcome means, in words that a support person understands.
pub(super) fn meaning(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Refreshed => "good for weeks again",
        Outcome::Transient => "failed for a while; tried again by itself",
        Outcome::NeedsReconnect => "refused by the provider: the customer must reconnect",
        Outcome::Unrecognised => "failed in a way that no rule knows: look at it",
        Outcome::NotExtended => "alive, but only the customer's own login renews it",
        Outcome::TooYoung => "less than a day old: refreshed later",
        Outcome::RateLimited => "the provider asks for a pause: refreshed later",
        Outcome::Misconfigured => "the provider refuses our app or our request: the operator must act",
        Outcome::Superseded => "the app changed it meanwhile: its own token stays",
    }
}

fn push(text: &mut String, table: &Table) {
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use perene_policy::Counted;

    use super::*;
    use crate::engine::report::Trouble;

    #[test]
    fn a_report_names_who_failed_and_why_and_who_was_warned() {
        let mut report = Report { warned: 1, elapsed_ms: 1234, ..Report::default() };
        report.book_many(Outcome::Refreshed, Counted::Refreshed, 40);
        report.book(Outcome::NeedsReconnect, Counted::Failed);
        report.note(Trouble {
            table: "instagram_connections".to_owned(),
            id: "17".to_owned(),
            outcome: Outcome::NeedsReconnect,
            text: "the user changed the password".to_owned(),
            was_warned: true,
        });
        let text = of_run(&report);
        assert!(text.starts_with("41 due, done in 1.2 s\n"), "{text}");
        assert!(text.contains("refreshed") && text.contains("40"), "{text}");
        let line = text.lines().find(|line| line.contains("17")).unwrap();
        assert!(line.contains("the user changed the password") && line.ends_with("warned"), "{line}");
        assert!(text.ends_with("1 warned, 0 recovered"), "{text}");
        assert!(!text.contains('\u{1b}'), "no control codes");
    }

    #[test]
    fn a_dry_run_says_that_nothing_was_done() {
        let report = Report { due: 7, dry_run: true, ..Report::default() };
        assert_eq!(of_run(&report), "7 due; nothing was called, nothing was changed");
    }
}
