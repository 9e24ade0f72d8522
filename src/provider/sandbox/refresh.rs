//! The three grants: how each behaviour answers a refresh.

use jiff::Timestamp;
use perene_policy::Grant;

use super::Behaviour;
use super::answer::Content;
use super::refusal::Refusal;
use super::state::{End, LIFE_S, Lineage, Memory};
use super::token::{self, TokenText};

/// Answers a refresh at the endpoint of `grant`.
///
/// A granted refresh at Facebook and Instagram hands out a new string, of the next generation, and the old one
/// stays good; Threads moves the end of the string that it was shown. Both are seen in life, so both must work.
pub(super) fn answer(grant: Grant, text: &TokenText<'_>, memory: &mut Memory, now: Timestamp) -> Content {
    // A token of another family is as good as noise, and does not count as a call that reached it.
    if text.grant != grant {
        return Content::Refused(Refusal::cannot_parse());
    }
    let lineage = memory.lineage(text, now);
    let earlier_refreshes = lineage.refreshes;
    lineage.refreshes = lineage.refreshes.saturating_add(1);
    match text.behaviour {
        Behaviour::Html500 => return Content::SorryPage,
        Behaviour::Limited => return Content::Refused(Refusal::too_many_calls()),
        Behaviour::Flaky if earlier_refreshes == 0 => return Content::Refused(Refusal::unexpected_error()),
        _ => {}
    }
    if let Some(death) = lineage.death(text, now) {
        return Content::Refused(death.refusal(now));
    }
    match text.behaviour {
        Behaviour::Young => Content::Refused(Refusal::too_young()),
        Behaviour::NoToken => Content::no_token(LIFE_S),
        Behaviour::Stuck => still_as_long(lineage, text, now),
        _ => extended(lineage, text, now),
    }
}

/// The same string, and what is left of its life: seconds only count down.
fn still_as_long(lineage: &Lineage, text: &TokenText<'_>, now: Timestamp) -> Content {
    let left_s = match lineage.end(text, now) {
        End::Never => None,
        End::At(instant) | End::Untold(instant) => Some(instant - now.as_second()),
    };
    Content::token(token::write(text.lineage, text.generation), left_s)
}

fn extended(lineage: &mut Lineage, text: &TokenText<'_>, now: Timestamp) -> Content {
    let never_ends = lineage.end(text, now) == End::Never;
    lineage.generation = lineage.generation.max(text.generation);
    if text.grant != Grant::Threads || text.behaviour == Behaviour::Rotate {
        lineage.generation = lineage.generation.saturating_add(1);
    }
    lineage.extend(never_ends, now);
    Content::token(token::write(text.lineage, lineage.generation), (!never_ends).then_some(LIFE_S))
}
