//! Lays sentences out as HTML and as plain text. Every value is escaped by the HTML template's own rule, none
//! is trusted.

use askama::Template;

use super::locale::Locale;
use super::words::Words;

#[derive(Template)]
#[template(path = "mail/notice.html")]
struct Html<'a> {
    lang: &'static str,
    words: &'a Words,
    link: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "mail/notice.txt", escape = "none")]
struct Plain<'a> {
    words: &'a Words,
    link: Option<&'a str>,
}

/// One mail, ready to be put into an envelope.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) subject: String,
    pub(super) html: String,
    pub(super) plain: String,
}

/// Without a link there is no button; the sentences tell what to do all the same.
pub(super) fn render(locale: Locale, words: Words, link: Option<&str>) -> Result<Rendered, askama::Error> {
    let html = Html { lang: locale.tag(), words: &words, link }.render()?;
    let plain = Plain { words: &words, link }.render()?;
    Ok(Rendered { subject: words.subject, html, plain })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::{env, fs};

    use super::*;
    use crate::notify::text;
    use crate::notify::words::{Story, words};

    const LINK: &str = "https://app.example/reconnect?connection=42&from=mail";
    const STORIES: [(&str, Story); 3] = [
        ("failing", Story::Expiring),
        ("needs_reconnect", Story::Refused),
        ("not_extended", Story::LoginNeeded { days_left: Some(7) }),
    ];

    fn mail(locale: Locale, story: Story) -> Rendered {
        let date = locale.date("2026-11-30T12:00:00Z".parse().unwrap());
        render(locale, words(locale, story, Some("ana.maria"), Some(&date)), Some(LINK)).unwrap()
    }

    fn folder() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/mail")
    }

    /// Compares with the committed file byte by byte; with `UPDATE_SNAPSHOTS=1` writes it.
    fn assert_snapshot(name: &str, text: &str) {
        let path = folder().join(name);
        if env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs::write(&path, text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "`{}` differs (UPDATE_SNAPSHOTS=1 rewrites it); now:\n{text}", path.display());
    }

    #[test]
    fn every_mail_looks_as_its_snapshot() {
        let mut known = Vec::new();
        let mut check = |name: String, mail: Rendered| {
            assert_snapshot(&format!("{name}.html"), &mail.html);
            assert_snapshot(&format!("{name}.txt"), &format!("Subject: {}\n\n{}", mail.subject, mail.plain));
            known.extend([format!("{name}.html"), format!("{name}.txt")]);
        };
        for locale in Locale::ALL {
            for (name, story) in STORIES {
                check(format!("{locale}-{name}"), mail(locale, story));
            }
        }
        let bare = words(Locale::PtBr, Story::Expiring, None, None);
        check("pt-BR-failing-bare".to_owned(), render(Locale::PtBr, bare, None).unwrap());

        let mut kept: Vec<String> =
            fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        kept.sort();
        known.push("message.eml".to_owned());
        known.sort();
        assert_eq!(kept, known, "a snapshot that no test compares");
    }

    #[test]
    fn the_portuguese_warning_says_what_it_must() {
        let mail = mail(Locale::PtBr, Story::Expiring);
        assert_eq!(mail.subject, "Sua conexão com o Instagram precisa ser renovada");
        for text in [&mail.html, &mail.plain] {
            for sentence in [
                "Olá, ana.maria!",
                "Sua conexão com o Instagram precisa ser renovada: ela está prestes a expirar e só vale até 30/11/2026.",
                "Para continuar recebendo mensagens e comentários, abra o sistema e reconecte sua conta.",
                "Reconectar Instagram",
                "Se você não reconectar, em breve vai deixar de receber notificações.",
            ] {
                assert!(text.contains(sentence), "{sentence}");
            }
        }
        assert!(mail.html.contains(r#"<html lang="pt-BR">"#));
        assert!(mail.plain.contains(LINK));
        assert!(mail.html.contains(r#"href="https://app.example/reconnect?connection=42&#38;from=mail""#));
    }

    #[test]
    fn a_refused_connection_is_told_to_have_stopped_and_not_that_it_will() {
        let portuguese = mail(Locale::PtBr, Story::Refused).plain;
        assert!(portuguese.contains("parou de funcionar e precisa ser renovada."));
        assert!(!portuguese.contains("prestes"));
        let english = mail(Locale::En, Story::Refused).plain;
        assert!(english.contains("has stopped working"));
        assert!(!english.contains("about to"));
        let spanish = mail(Locale::Es, Story::Refused).plain;
        assert!(spanish.contains("dejó de funcionar"));
        assert!(!spanish.contains("a punto"));
    }

    #[test]
    fn days_are_counted_in_the_singular_too() {
        for (locale, one, many) in [
            (Locale::PtBr, "expira em 1 dia (", "expira em 14 dias ("),
            (Locale::En, "expires in 1 day (", "expires in 14 days ("),
            (Locale::Es, "vence en 1 día (", "vence en 14 días ("),
        ] {
            assert!(mail(locale, Story::LoginNeeded { days_left: Some(1) }).plain.contains(one));
            assert!(mail(locale, Story::LoginNeeded { days_left: Some(14) }).plain.contains(many));
        }
    }

    #[test]
    fn without_an_address_there_is_no_button_but_the_advice() {
        for locale in Locale::ALL {
            let words = words(locale, Story::Expiring, None, None);
            let (act, button) = (words.act, words.button);
            let mail = render(locale, words, None).unwrap();
            for text in [&mail.html, &mail.plain] {
                assert!(text.contains(act));
                assert!(!text.contains(button));
                assert!(!text.contains("://"));
            }
        }
    }

    #[test]
    fn names_cannot_bring_markup_into_the_html() {
        for name in [
            "<script>alert(1)</script>",
            "\"><img src=x onerror=alert(1)>",
            "'; background:url(javascript:alert(1))",
            "&lt;b&gt;",
            "{{ 7*7 }}",
            "]]><svg/onload=alert(1)>",
        ] {
            let greeted = text::greeted(name).unwrap();
            let mail = render(Locale::En, words(Locale::En, Story::Refused, Some(&greeted), None), Some(LINK)).unwrap();
            let plain = render(Locale::En, words(Locale::En, Story::Refused, Some("x"), None), Some(LINK)).unwrap();
            let tags = |html: &str| (html.matches('<').count(), html.matches('"').count(), html.matches('\'').count());
            assert_eq!(tags(&mail.html), tags(&plain.html), "{name}");
            assert!(mail.plain.contains(name), "plain text shows it as it is");
            assert!(!mail.html.contains("49"), "nothing in a name is evaluated");
        }
    }

    #[test]
    fn an_address_cannot_leave_its_attribute() {
        let words = words(Locale::En, Story::Refused, None, None);
        let html = render(Locale::En, words, Some("https://app.example/\"onmouseover=\"x")).unwrap().html;
        assert!(!html.contains("\"onmouseover"));
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for locale in Locale::ALL {
            for (_, story) in STORIES {
                let html = mail(locale, story).html;
                for loader in ["<img", "<link", "<script", "<iframe", "url(", "@import", "src="] {
                    assert!(!html.contains(loader), "{loader}");
                }
                assert_eq!(html.matches("://").count(), 3, "the link, twice in an attribute and once in full");
            }
        }
    }
}
