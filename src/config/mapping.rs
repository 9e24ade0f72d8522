//! Reading `[[connections]]`: every fault names the entry by its number, and the key.

use std::fmt;

use figment::value::{Dict, Value};

use super::error::{listed, nearest, shown};
use super::found::Found;
use super::keys::{COLUMN_KEYS, CONNECTION_KEYS, USER_KEYS};
use super::source::{Columns, META, Source, TableName, UserTable};

/// The sources; the default mapping where there is no `[[connections]]`.
pub(super) fn read(found: &Found<'_>, providers: &[String]) -> Vec<Source> {
    let Some(value) = found.value("connections") else { return vec![Source::default()] };
    let entries = match value {
        Value::Array(_, entries) if !entries.is_empty() => entries,
        _ => {
            found.faults.borrow_mut().push(
                "`connections` must be written as `[[connections]]`, once for each table (leave it out for the default mapping)".to_owned(),
            );
            return Vec::new();
        }
    };
    let mut faults = found.faults.borrow_mut();
    let mut sources: Vec<Source> = Vec::new();
    for (number, value) in (1..).zip(entries) {
        let origin = found.figment.get_metadata(value.tag()).map_or("the file", |metadata| &metadata.name);
        let place = format!("{origin}, {number}. `[[connections]]`");
        let Value::Dict(_, dict) = value else {
            faults.push(format!("`connections` ({place}) must be a table"));
            continue;
        };
        let mut table = Table { dict, above: "", place: &place, faults: &mut faults };
        let Some(source) = table.source(providers) else { continue };
        if sources.iter().any(|other| other.table == source.table) {
            faults.push(format!("`table` ({place}) is mapped twice: `{}`", shown(&source.table.to_string())));
        }
        sources.push(source);
    }
    sources
}

/// One table of an entry while it is read: keys are taken out of it, and what stays is not known.
struct Table<'a> {
    dict: Dict,
    above: &'a str,
    place: &'a str,
    faults: &'a mut Vec<String>,
}

impl Table<'_> {
    fn wrong(&mut self, key: &str, message: impl fmt::Display) {
        self.faults.push(format!("`{}{key}` ({}) {message}", self.above, self.place));
    }

    fn source(&mut self, providers: &[String]) -> Option<Source> {
        self.only(CONNECTION_KEYS);
        let default = Source::default();
        let table = self.table_name(None);
        let provider = self.name("provider", META);
        if let Some(provider) =
            provider.as_deref().filter(|name| *name != META && !providers.iter().any(|known| known == name))
        {
            let known = listed([META].into_iter().chain(providers.iter().map(String::as_str)));
            self.wrong(
                "provider",
                format_args!(
                    "names no provider: `{}` (known: {known}; others are declared in `[providers.NAME]`)",
                    shown(provider)
                ),
            );
        }
        let user = match self.dict.remove("user") {
            Some(Value::String(_, text)) if text.is_empty() => Some(None),
            Some(Value::Dict(_, dict)) => self.below("user.", dict).user(default.user).map(Some),
            None => Some(default.user),
            Some(_) => {
                self.wrong("user", "must be a table such as `{ table = \"users\" }`, or `\"\"` where there is none");
                None
            }
        };
        let columns = match self.dict.remove("columns") {
            Some(Value::Dict(_, dict)) => Some(dict),
            None => Some(Dict::new()),
            Some(_) => {
                self.wrong("columns", "must be a table such as `{ id = \"id\" }`");
                None
            }
        };
        let is_meta = provider.as_deref() == Some(META);
        let with_user = !matches!(user, Some(None));
        let columns = columns.and_then(|dict| self.below("columns.", dict).columns(is_meta, with_user));
        Some(Source { table: table?, provider: provider?, columns: columns?, user: user? })
    }

    fn below<'b>(&'b mut self, above: &'b str, dict: Dict) -> Table<'b> {
        Table { dict, above, place: self.place, faults: self.faults }
    }

    fn columns(&mut self, is_meta: bool, with_user: bool) -> Option<Columns> {
        self.only(COLUMN_KEYS);
        let id = self.name("id", "id");
        let user_id =
            if with_user { self.name("user_id", "user_id").map(Some) } else { self.name_or_none("user_id", "") };
        let access_token = self.name("access_token", "access_token");
        let refresh_token = self.name_or_none("refresh_token", if is_meta { "" } else { "refresh_token" });
        let token_expires_at = self.name("token_expires_at", "token_expires_at");
        let token_refreshed_at = self.name_or_none("token_refreshed_at", "token_refreshed_at");
        let refresh_attempts = self.name_or_none("refresh_attempts", "refresh_attempts");
        let last_refresh_error = self.name_or_none("last_refresh_error", "last_refresh_error");
        let columns = Columns {
            id: id?,
            user_id: user_id?,
            access_token: access_token?,
            refresh_token: refresh_token?,
            token_expires_at: token_expires_at?,
            token_refreshed_at: token_refreshed_at?,
            refresh_attempts: refresh_attempts?,
            last_refresh_error: last_refresh_error?,
        };
        self.written_once(&columns);
        Some(columns)
    }

    /// A column that is written must not stand for anything else too. (`id` and `user_id` may be one.)
    fn written_once(&mut self, columns: &Columns) {
        let mut taken = vec![Some(columns.id.as_str()), columns.user_id.as_deref()];
        for (key, name) in [
            ("access_token", Some(&columns.access_token)),
            ("refresh_token", columns.refresh_token.as_ref()),
            ("token_expires_at", Some(&columns.token_expires_at)),
            ("token_refreshed_at", columns.token_refreshed_at.as_ref()),
            ("refresh_attempts", columns.refresh_attempts.as_ref()),
            ("last_refresh_error", columns.last_refresh_error.as_ref()),
        ] {
            let Some(name) = name else { continue };
            if taken.contains(&Some(name.as_str())) {
                self.wrong(key, format_args!("names a column that is mapped already: `{}`", shown(name)));
            }
            taken.push(Some(name));
        }
    }

    fn user(&mut self, default: Option<UserTable>) -> Option<UserTable> {
        self.only(USER_KEYS);
        let table = self.table_name(default.map(|user| user.table));
        let id = self.name("id", "id");
        let email = self.name("email", "email");
        let username = self.name_or_none("username", "username");
        let show_token_warning = self.name_or_none("show_token_warning", "show_token_warning");
        Some(UserTable {
            table: table?,
            id: id?,
            email: email?,
            username: username?,
            show_token_warning: show_token_warning?,
        })
    }

    /// `table`, split at its first dot unless `schema` is there.
    fn table_name(&mut self, default: Option<TableName>) -> Option<TableName> {
        let schema = if self.dict.contains_key("schema") { Some(self.name("schema", "")?) } else { None };
        if !self.dict.contains_key("table") {
            if schema.is_none() && default.is_some() {
                return default;
            }
            self.wrong("table", "is missing: the name of the table");
            return None;
        }
        let table = self.name("table", "")?;
        let (schema, name) = match (schema, table.split_once('.')) {
            (None, Some((schema, name))) => (Some(schema.to_owned()), name.to_owned()),
            (schema, _) => (schema, table),
        };
        if name.is_empty() || schema.as_deref() == Some("") {
            self.wrong("table", "must be `table` or `schema.table`: the name before or after its dot is empty (a name that holds a dot needs `schema = \"..\"` beside it)");
            return None;
        }
        Some(TableName { schema, name })
    }

    /// A name that must be there.
    fn name(&mut self, key: &str, default: &str) -> Option<String> {
        match self.name_or_none(key, default)? {
            Some(name) => Some(name),
            None => {
                self.wrong(key, "is empty, and cannot do without a name");
                None
            }
        }
    }

    /// A name, or `""` for none.
    fn name_or_none(&mut self, key: &str, default: &str) -> Option<Option<String>> {
        let text = match self.dict.remove(key) {
            None => default.to_owned(),
            Some(Value::String(_, text)) if text.contains('\0') => {
                self.wrong(key, "holds a NUL, which no name can");
                return None;
            }
            Some(Value::String(_, text)) => text,
            Some(_) => {
                self.wrong(key, "must be a name in quotes");
                return None;
            }
        };
        Some(Some(text).filter(|text| !text.is_empty()))
    }

    /// Reports what is not known.
    fn only(&mut self, known: &[&str]) {
        let unknown: Vec<String> = self.dict.keys().filter(|key| !known.contains(&key.as_str())).cloned().collect();
        for key in unknown {
            let meant = nearest(&key, known.iter().copied());
            let meant = meant.map(|meant| format!("; did you mean `{}{meant}`?", self.above)).unwrap_or_default();
            self.wrong(
                &shown(&key),
                format_args!("is not known{meant} (known keys: {})", listed(known.iter().copied())),
            );
        }
    }
}
