//! Tells people: banner, e-mail, webhook.
