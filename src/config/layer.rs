//! The layers, lowest first: defaults, file, plain variables, `PERENE_*` variables. Each value keeps the name
//! of where it came from. Nothing here reads the process: variables come in as a map.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::util::nest;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::keys::{self, KEYS, Key, Kind};

/// The variables of the environment. Values that are not UTF-8 carry U+FFFD and are refused when they count.
pub type Environment = BTreeMap<String, String>;

/// The variables of this process.
pub fn environment() -> Environment {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}

/// The key under which the path of a secret's file is kept until it is known whether that secret counts.
pub(super) const FILE: &str = "file";

struct Layer {
    origin: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

fn put(figment: Figment, origin: String, path: &str, value: Value) -> Figment {
    let dict = nest(path, value).into_dict().unwrap_or_default();
    figment.merge(Layer { origin, dict })
}

/// The defaults, as a layer like the others, so that what is documented is what is used.
pub(super) fn defaults(mut figment: Figment) -> Figment {
    for key in KEYS {
        if let Some(default) = key.default {
            figment = put(figment, "the default".to_owned(), key.path, typed(key, default));
        }
    }
    figment
}

/// The file. `asked` is the path and who asked for it; without one, `perene.toml` may be missing.
pub(super) fn file(figment: Figment, asked: Option<(PathBuf, &str)>, cwd: &Path, faults: &mut Vec<String>) -> Figment {
    let (path, asker) = match asked {
        Some((path, asker)) => (cwd.join(path), Some(asker)),
        None => (cwd.join("perene.toml"), None),
    };
    let shown = super::error::shown_path(&path);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && asker.is_none() => return figment,
        Err(error) => {
            let asker = asker.map(|asker| format!(" (named by {asker})")).unwrap_or_default();
            faults.push(format!("cannot read the configuration file `{shown}`{asker}: {}", reason(&error)));
            return figment;
        }
    };
    match Toml::from_str::<Dict>(&text) {
        Ok(dict) => {
            let origin = format!("file `{shown}`");
            let dict = Cleaner { origin: &origin, faults }.table("", dict);
            figment.merge(Layer { origin, dict })
        }
        Err(error) => {
            // Neither its Display, which quotes the line, nor its message is shown: either may repeat a secret.
            let until = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(until).filter(|byte| *byte == b'\n').count() + 1;
            faults.push(format!("file `{shown}` is not TOML: see line {line} (unbalanced quotes, a key without a value, a key or table given twice?)"));
            figment
        }
    }
}

struct Cleaner<'a> {
    origin: &'a str,
    faults: &'a mut Vec<String>,
}

impl Cleaner<'_> {
    /// Drops and reports what is not known, and turns `x_file = PATH` into what [`FILE`] says.
    fn table(&mut self, above: &str, dict: Dict) -> Dict {
        let mut clean = Dict::new();
        for (name, value) in dict {
            let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            let (origin, shown) = (self.origin, super::error::shown(&path));
            if path == "connections" {
                clean.insert(name, value);
            } else if keys::find(&path).is_some() && !name.contains('.') {
                match value {
                    Value::Dict(..) => self.faults.push(format!("`{shown}` ({origin}) must be a value, not a table")),
                    value => drop(clean.insert(name, value)),
                }
            } else if let Some(bare) = keys::of_file(&path).and_then(|bare| bare.rsplit('.').next()) {
                match value {
                    Value::String(..) if clean.contains_key(bare) => self.twice(&format!("{above}.{bare}")),
                    Value::String(tag, file) => {
                        let file = Dict::from([(FILE.to_owned(), Value::String(tag, file))]);
                        clean.insert(bare.to_owned(), Value::from(file));
                    }
                    _ => self.faults.push(format!("`{shown}` ({origin}) must be a path in quotes")),
                }
            } else if keys::is_section(&path) && !name.contains('.') {
                if above == "providers" && !is_provider_name(&name) {
                    self.faults.push(format!("`{shown}` ({origin}) cannot be the name of a provider: small letters, digits and single `_`, beginning with a letter; `meta` and `sandbox` are taken"));
                    continue;
                }
                match value {
                    Value::Dict(_, below) => {
                        let below = self.table(&path, below);
                        clean.insert(name, Value::from(below));
                    }
                    _ => self
                        .faults
                        .push(format!("`{shown}` ({origin}) must be a table{}", keys::advice(&format!("{path}.")))),
                }
            } else {
                self.faults.push(format!("key `{shown}` ({origin}) is not known{}", keys::advice(&path)));
            }
        }
        clean
    }

    fn twice(&mut self, path: &str) {
        self.faults.push(format!("`{path}` and `{path}_file` are both set ({}); keep one", self.origin));
    }
}

/// Names that a variable can spell too.
fn is_provider_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.contains("__")
        && !name.ends_with('_')
        && !["meta", "sandbox"].contains(&name)
}

/// The variables that are honoured without a prefix, such as `DATABASE_URL`.
pub(super) fn plain_variables(mut figment: Figment, env: &Environment, faults: &mut Vec<String>) -> Figment {
    for key in KEYS {
        if let Some(plain) = key.plain {
            figment = variable(figment, env, key.path, key, plain, faults);
        }
    }
    figment
}

/// The variables `PERENE_SECTION__KEY`. Unknown ones are faults, but for `PERENE_CONFIG`, `PERENE_TEST_*`
/// and what an orchestrator sets by itself.
pub(super) fn prefixed_variables(mut figment: Figment, env: &Environment, faults: &mut Vec<String>) -> Figment {
    for name in env.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name) {
        let Some(rest) = name.strip_prefix("PERENE_") else { continue };
        // What a binary with fail points is told with; every other one calls it unknown.
        let names_a_step = cfg!(feature = "failpoints") && rest == "FAIL_AT";
        if rest == "CONFIG" || rest.starts_with("TEST_") || names_a_step || is_service_link(rest) {
            continue;
        }
        let path = rest.to_lowercase().replace("__", ".");
        let spelt = rest.to_uppercase() == rest && !rest.contains('.');
        let bare = keys::of_file(&path).map_or(path.as_str(), |bare| bare);
        let named = bare.strip_prefix("providers.").and_then(|rest| rest.split('.').next());
        let fits = named.is_none_or(|name| keys::META_APPS.contains(&name) || is_provider_name(name));
        match keys::find(bare).filter(|_| spelt && fits) {
            Some(key) => {
                let variable_name = name.strip_suffix("_FILE").filter(|_| bare != path).unwrap_or(name);
                // With both set, the pair is met under the name of the first.
                if bare == path || env.get(variable_name).is_none_or(String::is_empty) {
                    figment = variable(figment, env, bare, key, variable_name, faults);
                }
            }
            None if rest.starts_with("CONNECTIONS") => {
                faults.push(format!("variable `{name}` is not known: `[[connections]]` can be set in the file only"));
            }
            None => {
                let shown = super::error::shown(name);
                faults.push(format!("variable `{shown}` is not known{}", keys::variable_advice(name)));
            }
        }
    }
    figment
}

/// Kubernetes puts such variables into every container beside a service that is called `perene`:
/// `PERENE_SERVICE_HOST`, `PERENE_PORT_80_TCP_ADDR`. Without a `__` they are no keys.
///
/// <https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>
fn is_service_link(rest: &str) -> bool {
    let parts: Vec<&str> = rest.split('_').collect();
    let pair = |a: &str, b: &[&str]| parts.windows(2).any(|two| two[0] == a && b.contains(&two[1]));
    let port = parts.windows(3).any(|three| {
        three[0] == "PORT" && three[1].parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].contains(&three[2])
    });
    !parts.contains(&"") && (pair("SERVICE", &["HOST", "PORT"]) || port || parts.last() == Some(&"PORT"))
}

/// Puts the variable `name`, or `name_FILE`, where one is set.
fn variable(
    figment: Figment,
    env: &Environment,
    path: &str,
    key: &Key,
    name: &str,
    faults: &mut Vec<String>,
) -> Figment {
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty());
    let name_file = format!("{name}_FILE");
    let file = set(&name_file).filter(|_| key.kind == Kind::Secret);
    match (set(name), file) {
        (None, None) => figment,
        (Some(_), Some(_)) => {
            faults.push(format!("variables `{name}` and `{name_file}` are both set; keep one"));
            figment
        }
        (Some(value), _) if value.contains('\u{fffd}') => {
            faults.push(format!("variable `{name}` is not valid UTF-8"));
            figment
        }
        (Some(value), None) => put(figment, format!("variable `{name}`"), path, typed(key, value)),
        (None, Some(file)) => {
            let file = Dict::from([(FILE.to_owned(), Value::from(file.as_str()))]);
            put(figment, format!("variable `{name_file}`"), path, Value::from(file))
        }
    }
}

/// A variable's text as a file would have written it. What does not parse stays a text, and is refused as one.
fn typed(key: &Key, text: &str) -> Value {
    let text = text.trim_matches(|c: char| key.kind != Kind::Secret && key.kind != Kind::Text && c.is_whitespace());
    match key.kind {
        Kind::Integer => text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
        Kind::Boolean => text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from),
        Kind::Text | Kind::Secret => Value::from(text),
    }
}

/// Why a file could not be read, without the number of the system's error.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "it may not be read by this user".to_owned(),
        ErrorKind::InvalidData => "it is not valid UTF-8".to_owned(),
        ErrorKind::IsADirectory => "it is a folder".to_owned(),
        kind => kind.to_string(),
    }
}
