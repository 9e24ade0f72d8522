//! Which connection is meant: `ID`, or `TABLE:ID` where several tables are mapped.

use super::failure::Failure;
use crate::config::Source;
use crate::store::Store;

/// The source and the key that a text names, if such a row is there.
pub(super) async fn find(store: &dyn Store, sources: &[Source], text: &str) -> Result<(usize, String), Failure> {
    for (source, id) in candidates(sources, text) {
        if store.find(source, id).await?.is_some() {
            return Ok((source, id.to_owned()));
        }
    }
    let tables: Vec<String> = sources.iter().map(|source| format!("`{}`", source.table)).collect();
    if sources.len() > 1 && candidates(sources, text).is_empty() {
        return Err(Failure::wrong_use(format!(
            "connection `{text}` does not say in which table: write it `TABLE:ID` (mapped tables: {})",
            tables.join(", ")
        )));
    }
    Err(Failure::wrong_use(format!("connection `{text}` not found in {}", tables.join(", "))))
}

/// What a text can mean. A key may hold a colon itself, so with one table mapped both readings are tried.
fn candidates<'a>(sources: &[Source], text: &'a str) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    if sources.len() == 1 {
        found.push((0, text));
    }
    for (source, mapped) in sources.iter().enumerate() {
        let id = text.strip_prefix(&mapped.table.to_string()).and_then(|rest| rest.strip_prefix(':'));
        found.extend(id.map(|id| (source, id)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TableName;

    fn sources(names: &[&str]) -> Vec<Source> {
        names
            .iter()
            .map(|name| Source { table: TableName { schema: None, name: (*name).to_owned() }, ..Source::default() })
            .collect()
    }

    #[test]
    fn one_table_needs_no_name_and_a_key_may_hold_a_colon() {
        assert_eq!(candidates(&sources(&["a"]), "17"), [(0, "17")]);
        assert_eq!(candidates(&sources(&["a"]), "a:17"), [(0, "a:17"), (0, "17")]);
        assert_eq!(candidates(&sources(&["a"]), "b:17"), [(0, "b:17")]);
    }

    #[test]
    fn several_tables_need_the_name() {
        assert_eq!(candidates(&sources(&["a", "b"]), "b:x:y"), [(1, "x:y")]);
        assert!(candidates(&sources(&["a", "b"]), "17").is_empty());
    }
}
