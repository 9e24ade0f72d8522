//! Reads what is remembered, beside the rows as the app has them now.

use jiff::Timestamp;

use super::key::Key;
use super::{Mapped, State};
use crate::store::Remembered;

pub(super) fn page(
    state: &State,
    sources: &[Mapped],
    after: Option<(usize, String)>,
    limit: usize,
    now: Timestamp,
) -> Vec<Remembered> {
    let after = after.map(|(source, id)| (source, Key::of(&id)));
    let first = after.as_ref().map_or(0, |(source, _)| *source);
    let from_here = sources.iter().enumerate().skip(first);
    let page = from_here.flat_map(|(source, mapped)| {
        let table = &state.tables[mapped.table];
        let after = after.as_ref().filter(|after| after.0 == source).map(|(_, key)| key);
        let kept = table.kept_from(after.cloned().unwrap_or(Key::FIRST));
        kept.filter(move |(key, _)| Some(*key) != after && !table.is_leased(key, None, now)).map(move |(key, kept)| {
            Remembered {
                source,
                id: key.to_string(),
                version: kept.version,
                memory: kept.memory.clone(),
                row: table.connection(mapped, key),
            }
        })
    });
    page.take(limit).collect()
}
