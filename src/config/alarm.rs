//! Section `alarm`: where the operator hears of what no customer can cure.

use lettre::message::Mailbox;
use perene_policy::Secret;

use super::address;
use super::found::Found;
use super::mail::mailbox;

/// Section `alarm`. Without either, alarms are in the log and in `perene status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alarm {
    /// Key `alarm.slack_url`: an incoming webhook, which is a secret as a whole.
    pub slack_url: Option<Secret>,
    /// Key `alarm.email`; needs `mail.smtp_url`.
    pub email: Option<Mailbox>,
}

pub(super) fn read(found: &Found<'_>) -> Alarm {
    let slack_url = found.read_secret("alarm.slack_url", |text| {
        address::provider(text.expose().trim()).map(|url| Secret::new(url.as_str()))
    });
    let email = found.read("alarm.email", mailbox);
    if email.is_some() && !found.is_set("mail.smtp_url") {
        found.wrong("alarm.email", "needs `mail.smtp_url`, which is not set");
    }
    Alarm { slack_url, email }
}
