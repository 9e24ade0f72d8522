//! A calendar as a picture: a square a day, a column a week; the greener, the more is refreshed; a mark where customers
//! are mailed, a red one where connections go dark, a frame where a planned fault is on.

use std::fmt::Write;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{FaultList, Outcome};

const CELL: usize = 16;
const LEFT: usize = 44;
const TOP: usize = 44;

/// The width that the legend needs.
const LEGEND: usize = 300;

/// Draws it, in SVG. The faults are those whose days were named.
pub fn draw(outcome: &Outcome, faults: &FaultList, zone: &TimeZone) -> String {
    let planned = planned(faults, outcome.begun_at, zone);
    let first = outcome.begun_at.to_zoned(zone.clone()).date();
    // The column of a week begins on a Monday.
    let lead = usize::try_from(first.weekday().to_monday_zero_offset()).unwrap_or(0);
    let most = outcome.days.iter().map(|day| day.refreshed).max().unwrap_or(0).max(1);
    let columns = (lead + outcome.days.len()).div_ceil(7);
    let (width, height) = ((LEFT + columns * CELL + 20).max(LEGEND), TOP + 7 * CELL + 72);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"10\" fill=\"#333\">\n<title>What Perene would do</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (row, name) in ["Mon", "Wed", "Fri"].into_iter().enumerate() {
        let _ = writeln!(svg, "<text x=\"12\" y=\"{}\">{name}</text>", TOP + row * 2 * CELL + 11);
    }
    let mut month = None;
    for (number, day) in outcome.days.iter().enumerate() {
        let date: Date = first.saturating_add(jiff::Span::new().days(i64::try_from(number).unwrap_or(0)));
        let place = lead + number;
        let (x, y) = (LEFT + place / 7 * CELL, TOP + place % 7 * CELL);
        if month.replace(date.month()) != Some(date.month()) {
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\">{}</text>", TOP - 8, date.strftime("%b"));
        }
        let mut title = format!(
            "{date}: {} refreshed, {} calls, {} mailed, {} dark",
            day.refreshed, day.calls, day.mails, day.dark
        );
        let on = planned.iter().filter(|(_, from, to)| (*from..=*to).contains(&date));
        let on: Vec<&str> = on.map(|(name, ..)| *name).collect();
        let frame = if on.is_empty() { "" } else { " stroke=\"#1565c0\" stroke-width=\"2\"" };
        on.iter().for_each(|name| title.push_str(&format!(", {name}")));
        let side = CELL - 3;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" rx=\"2\" fill=\"{}\"{frame}><title>{title}</title></rect>",
            shade(day.refreshed, most)
        );
        let (middle_x, middle_y) = (x + side / 2, y + side / 2);
        if day.dark > 0 {
            let _ = writeln!(svg, "<circle cx=\"{middle_x}\" cy=\"{middle_y}\" r=\"5\" fill=\"#c62828\"/>");
        }
        if day.mails > 0 {
            let _ = writeln!(svg, "<circle cx=\"{middle_x}\" cy=\"{middle_y}\" r=\"3\" fill=\"#f9a825\"/>");
        }
    }
    let base = TOP + 7 * CELL + 24;
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{base}\">the greener, the more is refreshed (at most {most} a day)</text>\n\
         <circle cx=\"{}\" cy=\"{}\" r=\"3\" fill=\"#f9a825\"/><text x=\"{}\" y=\"{}\">customers are mailed</text>\n\
         <circle cx=\"{}\" cy=\"{}\" r=\"5\" fill=\"#c62828\"/><text x=\"{}\" y=\"{}\">connections go dark</text>\n\
         <rect x=\"{}\" y=\"{}\" width=\"10\" height=\"10\" rx=\"2\" fill=\"#fff\" stroke=\"#1565c0\" stroke-width=\"2\"/>\
         <text x=\"{}\" y=\"{}\">a planned fault</text>",
        LEFT + 4,
        base + 14,
        LEFT + 14,
        base + 18,
        LEFT + 134,
        base + 14,
        LEFT + 144,
        base + 18,
        LEFT,
        base + 26,
        LEFT + 14,
        base + 35,
    );
    svg.push_str("</svg>\n");
    svg
}

/// What is on from which date to which.
fn planned(faults: &FaultList, begun_at: Timestamp, zone: &TimeZone) -> Vec<(&'static str, Date, Date)> {
    let date = |at: Timestamp| at.to_zoned(zone.clone()).date();
    let on = faults.planned().into_iter().map(|(name, day, lasts)| {
        let from = begun_at + SignedDuration::from_hours(24 * i64::from(day));
        let to = from + (lasts - SignedDuration::from_secs(1)).max(SignedDuration::ZERO);
        (name, date(from), date(to))
    });
    on.collect()
}

fn shade(count: u64, most: u64) -> &'static str {
    const SHADES: [&str; 5] = ["#eceff1", "#c8e6c9", "#81c784", "#43a047", "#1b5e20"];
    if count == 0 {
        return SHADES[0];
    }
    SHADES[usize::try_from((count * 4).div_ceil(most)).unwrap_or(4).clamp(1, 4)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{FaultList, Request, simulate};

    #[test]
    fn a_square_a_day() {
        let faults = FaultList::none();
        let outcome = simulate(
            &Request { connections: 20, days: 60, seed: 1, faults, only: None, stop_at_first: false },
            None,
            &mut |_| {},
        );
        let planned = FaultList::parse("meta-outage:30h@day3").expect("a list");
        let svg = draw(&outcome, &planned, &TimeZone::UTC);
        assert_eq!(svg.matches(", meta-outage<").count(), 2, "from noon, for 30 hours");
        assert_eq!(svg.matches(" refreshed, ").count(), outcome.days.len());
        assert!(svg.ends_with("</svg>\n") && !svg.contains("ZqT0k"));
    }
}
