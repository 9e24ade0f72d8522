//! Reports go to standard output; whoever reads them may stop reading.

use std::io::Write;

/// Writes a text and a line end. A reader that has gone (`perene status | head -1`) is no error.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
