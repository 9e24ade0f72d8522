//! Reading values out of the merged layers: every fault names the key and where its value came from.

use std::cell::RefCell;
use std::io::Read;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::Value;
use perene_policy::Secret;

use super::error::{listed, shown};
use super::layer::{FILE, reason};

/// The largest file that can hold a secret, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The merged layers, and the faults met so far. Getters give `None` for what is unset and for what is wrong;
/// the latter is noted.
pub(super) struct Found<'a> {
    pub(super) figment: Figment,
    pub(super) faults: RefCell<Vec<String>>,
    pub(super) cwd: &'a Path,
}

impl Found<'_> {
    pub(super) fn value(&self, path: &str) -> Option<Value> {
        self.figment.find_value(path).ok()
    }

    pub(super) fn is_set(&self, path: &str) -> bool {
        self.figment.contains(path)
    }

    /// Where the value of a key came from: "variable `X`", "file `x`", "the default".
    pub(super) fn origin(&self, path: &str) -> String {
        // A secret that is to come from a file is a table of one leaf: only leaves have an origin.
        let leaf = format!("{path}.{FILE}");
        let at = if self.is_set(&leaf) { &leaf } else { path };
        self.figment.find_metadata(at).map_or_else(|| "unset".to_owned(), |metadata| metadata.name.to_string())
    }

    /// Notes a fault: "`key` (origin) {message}".
    pub(super) fn wrong(&self, path: &str, message: impl AsRef<str>) {
        let line = format!("`{path}` ({}) {}", self.origin(path), message.as_ref());
        self.faults.borrow_mut().push(line);
    }

    /// Notes a fault about a key that is not set.
    pub(super) fn missing(&self, path: &str, message: impl AsRef<str>) {
        self.faults.borrow_mut().push(format!("`{path}` is missing: {}", message.as_ref()));
    }

    pub(super) fn text(&self, path: &str) -> Option<String> {
        match self.value(path)? {
            Value::String(_, text) if text.trim().is_empty() => {
                self.wrong(path, "is empty; leave it out to have none");
                None
            }
            Value::String(_, text) if text.chars().any(char::is_control) => {
                self.wrong(path, "holds a line break or another control character");
                None
            }
            Value::String(_, text) => Some(text),
            _ => {
                self.wrong(path, "must be a text in quotes");
                None
            }
        }
    }

    /// A text through a function that reads it. What that says on failure follows "`key` (origin) ".
    pub(super) fn read<T>(&self, path: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        read(&self.text(path)?).map_err(|message| self.wrong(path, message)).ok()
    }

    /// The same for a secret. The message must not repeat it.
    pub(super) fn read_secret<T>(&self, path: &str, read: impl FnOnce(&Secret) -> Result<T, String>) -> Option<T> {
        read(&self.secret(path)?).map_err(|message| self.wrong(path, message)).ok()
    }

    pub(super) fn choice<T: Copy>(&self, path: &str, known: &[(&str, T)]) -> Option<T> {
        self.read(path, |text| {
            let names = listed(known.iter().map(|(name, _)| *name));
            let found = known.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
            found.ok_or_else(|| format!("must be one of {names}, not `{}`", shown(text)))
        })
    }

    pub(super) fn integer(&self, path: &str, from: i64, to: i64) -> Option<i64> {
        let got = match self.value(path)? {
            Value::Num(_, number) => match number.to_i128() {
                Some(number) if (i128::from(from)..=i128::from(to)).contains(&number) => {
                    return i64::try_from(number).ok();
                }
                Some(number) => format!("`{number}`"),
                None => "a fraction".to_owned(),
            },
            Value::String(_, text) => format!("the text `{}`", shown(&text)),
            _ => "something else".to_owned(),
        };
        self.wrong(path, format!("must be a whole number from {from} to {to}, not {got}"));
        None
    }

    pub(super) fn boolean(&self, path: &str) -> Option<bool> {
        match self.value(path)? {
            Value::Bool(_, yes) => return Some(yes),
            Value::String(_, text) => {
                self.wrong(path, format!("must be `true` or `false`, not the text `{}`", shown(&text)));
            }
            _ => self.wrong(path, "must be `true` or `false`"),
        }
        None
    }

    pub(super) fn secret(&self, path: &str) -> Option<Secret> {
        let text = match self.value(path)? {
            Value::String(_, text) => Secret::new(text),
            Value::Dict(_, dict) => self.file_text(path, dict.get(FILE)?.as_str()?)?,
            _ => {
                self.wrong(path, "must be a text in quotes");
                return None;
            }
        };
        if text.expose().trim().is_empty() {
            self.wrong(path, "is empty; leave it out to have none");
            return None;
        }
        Some(text)
    }

    /// A relative path counts from the working directory.
    pub(super) fn path(&self, path: &str) -> Option<PathBuf> {
        Some(self.cwd.join(self.text(path)?))
    }

    fn file_text(&self, path: &str, file: &str) -> Option<Secret> {
        let full = self.cwd.join(file);
        let named = super::error::shown_path(&full);
        let mut text = String::new();
        let read =
            std::fs::File::open(&full).and_then(|opened| opened.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text));
        match read {
            Err(error) => {
                self.wrong(path, format!("cannot be read from the file `{named}`: {}", reason(&error)));
                None
            }
            Ok(bytes) if bytes as u64 > SECRET_BYTES_MAX => {
                self.wrong(path, format!("cannot be read from the file `{named}`: it is larger than 64 KiB"));
                None
            }
            Ok(_) => {
                let cut = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
                Some(Secret::new(cut))
            }
        }
    }
}
