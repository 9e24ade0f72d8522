//! Reports go to standard output; whoever reads them may stop reading.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// A report could not be written.
static IS_LOST: AtomicBool = AtomicBool::new(false);

/// Writes a text and a line end. A reader that has gone (`perene status | head -1`) is no error. A key or a
/// text from outside can command no terminal and turn no line round.
pub(super) fn say(text: &str) {
    let is_command =
        |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let text: String = text.chars().map(|c| if is_command(c) { '\u{fffd}' } else { c }).collect();
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush())
        && error.kind() != ErrorKind::BrokenPipe
        && !IS_LOST.swap(true, Ordering::Relaxed)
    {
        eprintln!("error: standard output takes nothing: {error}");
    }
}

/// Whether a report was lost: then the command has not done its work.
pub(super) fn is_lost() -> bool {
    IS_LOST.load(Ordering::Relaxed)
}
