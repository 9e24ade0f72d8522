//! What the mails to customers say, one file a language. Every sentence is here, none in the layout.

use super::locale::Locale;

mod en;
mod es;
mod pt_br;

/// The case that a customer is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Story {
    /// It still works, and is about to expire.
    Expiring,
    /// It has stopped working.
    Refused,
    /// It still works, and only a new login can prolong it; with the days that are left, if they are known.
    LoginNeeded {
        /// At least 1.
        days_left: Option<u32>,
    },
}

/// One mail's sentences, unescaped.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) subject: String,
    pub(super) greeting: String,
    /// What has happened or will.
    pub(super) what: String,
    /// Why, where that helps.
    pub(super) why: Option<&'static str>,
    /// What to do.
    pub(super) act: &'static str,
    /// What the button says.
    pub(super) button: &'static str,
    /// Stands before the address in full, for whom the button does not work.
    pub(super) copy: &'static str,
    /// What happens if nothing is done.
    pub(super) otherwise: &'static str,
    /// Why they get this mail.
    pub(super) footer: &'static str,
}

/// The sentences for a case. `date` is the last day, already written in that language.
pub(super) fn words(locale: Locale, story: Story, name: Option<&str>, date: Option<&str>) -> Words {
    match locale {
        Locale::PtBr => pt_br::words(story, name, date),
        Locale::En => en::words(story, name, date),
        Locale::Es => es::words(story, name, date),
    }
}
