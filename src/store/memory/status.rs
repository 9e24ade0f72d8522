//! How the connections stand.

use jiff::{SignedDuration, Timestamp};
use perene_policy::backoff::later;
use perene_policy::{Memory, Outcome, State as Remembers};

use super::key::Key;
use super::row::AppRow;
use super::{Mapped, State};
use crate::store::{Standing, window_of};

pub(super) fn standing(
    state: &State,
    sources: &[Mapped],
    windows: &[SignedDuration],
    soonest: usize,
    now: Timestamp,
) -> Standing {
    let mut standing = Standing::default();
    for (source, mapped) in sources.iter().enumerate() {
        let table = &state.tables[mapped.table];
        for (key, row) in table.rows().filter(|(_, row)| row.has_token()) {
            let memory = table.kept(key).map(|kept| &kept.memory);
            *place(&mut standing, row, memory, later(now, window_of(windows, source)), now) += 1;
        }
        let ahead = table.dated_from((now, Key::FIRST)).filter(|(at, _)| *at > now).take(soonest);
        let named = ahead.filter_map(|(at, key)| Some((source, table.row(key)?.id.clone(), *at)));
        standing.soonest.extend(named);
    }
    standing.soonest.sort_by_key(|(source, _, at)| (*at, *source));
    standing.soonest.truncate(soonest);
    standing
}

fn place<'a>(
    standing: &'a mut Standing,
    row: &AppRow,
    memory: Option<&Memory>,
    horizon: Timestamp,
    now: Timestamp,
) -> &'a mut u64 {
    let state = memory.map(|memory| &memory.state);
    let waits = memory.and_then(|memory| memory.next_try_at).is_some_and(|at| at > now);
    let is_stuck = state == Some(&Remembers::NotExtended);
    if row.expires_at.is_some_and(|at| at <= now) || matches!(state, Some(Remembers::NeedsReconnect { .. })) {
        &mut standing.dark
    } else if waits && matches!(state, Some(Remembers::Waiting { outcome: Outcome::RateLimited, .. })) {
        &mut standing.limited
    } else if !is_stuck && memory.is_some_and(|memory| memory.incident.is_some()) {
        &mut standing.failing
    } else if is_stuck || (waits && state != Some(&Remembers::Healthy)) {
        &mut standing.waiting
    } else if row.expires_at.map_or(state != Some(&Remembers::NeverExpires), |at| at < horizon) {
        &mut standing.due
    } else {
        &mut standing.healthy
    }
}
