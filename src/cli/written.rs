//! The files that a simulation writes. They are opened before it begins, which may take minutes, and nothing is written
//! over that is not such a file itself: the database of a rehearsal stands in the same folder.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::failure::Failure;

/// How a calendar begins.
const CALENDAR: &[u8] = b"<svg ";

/// Trace and calendar, where they were asked for.
#[derive(Debug)]
pub(super) struct Written {
    trace: Option<File>,
    calendar: Option<(File, PathBuf)>,
}

impl Written {
    /// Opens what was asked for.
    ///
    /// # Errors
    /// When a file cannot be written, or holds something else.
    pub(super) fn open(trace: Option<&Path>, calendar: Option<&Path>) -> Result<Self, Failure> {
        if trace.is_some() && trace == calendar {
            return Err(Failure::wrong_use("`--trace` and `--calendar` name the same file"));
        }
        let trace = trace.map(|path| open(path, "trace", is_trace)).transpose()?;
        let calendar = match calendar {
            Some(path) => Some((open(path, "calendar", |head| head.starts_with(CALENDAR))?, path.to_owned())),
            None => None,
        };
        Ok(Self { trace, calendar })
    }

    /// Where the trace goes.
    pub(super) fn trace(&mut self) -> Option<Box<dyn Write + Send>> {
        self.trace.take().map(|file| Box::new(BufWriter::new(file)) as Box<dyn Write + Send>)
    }

    /// Writes the calendar that `draw` makes, if one was asked for.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn calendar(self, draw: impl FnOnce() -> String) -> Result<(), Failure> {
        let Some((mut file, path)) = self.calendar else { return Ok(()) };
        file.write_all(draw().as_bytes()).map_err(|error| unwritable("calendar", &path, &error))
    }
}

fn open(path: &Path, what: &str, is_such: impl Fn(&[u8]) -> bool) -> Result<File, Failure> {
    let failed = |error: std::io::Error| unwritable(what, path, &error);
    // A pipe or a terminal holds nothing, and reading from one would wait.
    if path.metadata().is_ok_and(|known| known.is_file()) {
        let mut head = Vec::new();
        File::open(path).and_then(|file| file.take(64).read_to_end(&mut head)).map_err(failed)?;
        if !head.is_empty() && !is_such(&head) {
            return Err(Failure::wrong_use(format!(
                "`{}` is there already and is no {what} of perene's: it is left as it is; name another file",
                path.display()
            )));
        }
    }
    OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(failed)
}

fn unwritable(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::could_not_work(format!("the {what} cannot be written to `{}`: {error}", path.display()))
}

/// Whether it begins with an instant in milliseconds, as each line of a trace does.
fn is_trace(head: &[u8]) -> bool {
    let shape = b"0000-00-00T00:00:00.000Z ";
    let fits = |(byte, wanted): (&u8, &u8)| if *wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted };
    head.len() >= shape.len() && head.iter().zip(shape).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_trace_and_no_calendar_is_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("app.db");
        std::fs::write(&database, b"SQLite format 3\0").expect("writes");
        for (trace, calendar) in [(Some(&*database), None), (None, Some(&*database))] {
            let refused = format!("{:?}", Written::open(trace, calendar).expect_err("it is a database"));
            assert!(refused.contains("app.db") && refused.contains("left as it is"), "{refused}");
        }
        assert_eq!(std::fs::read(&database).expect("reads"), b"SQLite format 3\0");
        assert!(Written::open(Some(&database), Some(&database)).is_err());
    }

    #[test]
    fn an_earlier_trace_and_an_earlier_calendar_are_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let (trace, calendar) = (folder.path().join("trace"), folder.path().join("calendar.svg"));
        for _ in 0..2 {
            let mut written = Written::open(Some(&trace), Some(&calendar)).expect("both can be written");
            let mut lines = written.trace().expect("it was asked for");
            writeln!(lines, "2026-11-23T12:00:00.000Z r0 starts").expect("writes");
            drop(lines);
            written.calendar(|| "<svg xmlns=\"\"></svg>".to_owned()).expect("writes");
        }
        assert_eq!(std::fs::read_to_string(&trace).expect("reads").lines().count(), 1);
    }
}
