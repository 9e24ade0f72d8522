//! English.

use super::{Story, Words};

pub(super) fn words(story: Story, name: Option<&str>, date: Option<&str>) -> Words {
    let (subject, what) = subject_and_fact(story, date);
    Words {
        subject,
        greeting: name.map_or_else(|| "Hello,".to_owned(), |name| format!("Hi {name},")),
        what,
        why: match story {
            Story::Expiring => None,
            Story::Refused => Some(
                "This usually happens after a password change or a security check by Instagram, or when the \
                 permission has been removed.",
            ),
            Story::LoginNeeded { .. } => {
                Some("This time it cannot be renewed automatically: Instagram asks you to log in again.")
            }
        },
        act: match story {
            Story::Expiring | Story::LoginNeeded { .. } => {
                "To keep receiving messages and comments, open the system and reconnect your account."
            }
            Story::Refused => "To receive messages and comments again, open the system and reconnect your account.",
        },
        button: "Reconnect Instagram",
        copy: "If the button does not work, copy this address into your browser:",
        otherwise: match story {
            Story::Expiring | Story::LoginNeeded { .. } => {
                "If you don't reconnect, you will soon stop receiving notifications."
            }
            Story::Refused => "Until you reconnect, you will not receive any notifications.",
        },
        footer: "You are receiving this e-mail because your Instagram account is connected to our system. If you have \
                 already reconnected, you can ignore it.",
    }
}

fn subject_and_fact(story: Story, date: Option<&str>) -> (String, String) {
    const RENEW: &str = "Your Instagram connection needs to be renewed";
    match story {
        Story::Expiring => {
            let until = date.map_or_else(String::new, |date| format!(" and is only valid until {date}"));
            (RENEW.to_owned(), format!("{RENEW}: it is about to expire{until}."))
        }
        Story::Refused => (
            "Your Instagram connection has stopped working".to_owned(),
            "Your Instagram connection has stopped working and needs to be renewed.".to_owned(),
        ),
        Story::LoginNeeded { days_left } => {
            let when = match days_left {
                Some(1) => "expires in 1 day".to_owned(),
                Some(days) => format!("expires in {days} days"),
                None => "is about to expire".to_owned(),
            };
            let on = date.map_or_else(String::new, |date| format!(" ({date})"));
            let subject = format!("Your Instagram connection {when}");
            let what = format!("{subject}{on} and needs to be renewed.");
            (subject, what)
        }
    }
}
