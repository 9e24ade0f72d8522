//! Reads `mail.smtp_url`. Opens nothing.
//!
//! `smtp://` is plain SMTP at port 25; with `?tls=required` or `?tls=opportunistic` it turns to TLS by STARTTLS, at
//! port 587. `smtps://` speaks TLS from the first byte, at port 465. User and password stand before an `@`,
//! percent-encoded. A path, if any, is the name that Perene greets the server with.

use percent_encoding::percent_decode_str;
use perene_policy::Secret;
use url::{Host, Url};

/// What the URL says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// A name, or an IP address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Tls,
    pub(super) login: Option<Login>,
    pub(super) hello: Option<String>,
}

/// When the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tls {
    /// Never.
    Off,
    /// After STARTTLS, if the server offers it.
    Opportunistic,
    /// After STARTTLS; a server that does not offer it gets nothing.
    Required,
    /// From the first byte.
    Implicit,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Secret,
}

/// Errors, as fragments after "`mail.smtp_url` ", name keys and never values: any part may hold the password.
pub(super) fn read(text: &Secret) -> Result<Address, String> {
    let url = Url::parse(text.expose().trim()).map_err(|error| {
        format!(
            "is no URL ({error}): write smtp://user:password@host:port, with what is special in user and password \
             percent-encoded"
        )
    })?;
    let implicit = match url.scheme() {
        "smtp" => false,
        "smtps" => true,
        _ => return Err("has an unknown scheme (known schemes: smtp, smtps)".to_owned()),
    };
    if url.fragment().is_some() {
        return Err("has a `#`: in a password it is written %23".to_owned());
    }
    let tls = tls(&url, implicit)?;
    let host = match url.host() {
        Some(Host::Domain(name)) if is_name(name) => name.to_owned(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        _ => return Err("names no mail server: write smtp://host or smtp://host:port".to_owned()),
    };
    let port = url.port().unwrap_or(match tls {
        Tls::Off => 25,
        Tls::Opportunistic | Tls::Required => 587,
        Tls::Implicit => 465,
    });
    let hello = match url.path().trim_matches('/') {
        "" => None,
        name if is_name(name) => Some(name.to_owned()),
        _ => return Err("has a path that is no host name: leave it out".to_owned()),
    };
    Ok(Address { host, port, tls, login: login(&url)?, hello })
}

fn tls(url: &Url, implicit: bool) -> Result<Tls, String> {
    let mut tls = if implicit { Tls::Implicit } else { Tls::Off };
    for (key, value) in url.query_pairs() {
        tls = match (key.as_ref(), value.as_ref(), implicit) {
            ("tls", _, true) => {
                return Err("has `tls` with smtps://, which is TLS from the start: leave it out".to_owned());
            }
            ("tls", "required", false) => Tls::Required,
            ("tls", "opportunistic", false) => Tls::Opportunistic,
            ("tls", _, false) => {
                return Err("has a wrong value of `tls` (known values: opportunistic, required)".to_owned());
            }
            (key, _, _) => {
                let key = crate::notify::text::one_line(key, 40);
                return Err(format!("has an unknown parameter `{key}` (known parameters: tls)"));
            }
        };
    }
    Ok(tls)
}

fn login(url: &Url) -> Result<Option<Login>, String> {
    let decoded = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .map(std::borrow::Cow::into_owned)
            .map_err(|_| "has a user or password that is not UTF-8 when percent-decoded".to_owned())
    };
    match (url.username(), url.password()) {
        ("", None) => Ok(None),
        ("", Some(_)) => Err("has a password without a user".to_owned()),
        (_, None) => Err("has a user without a password".to_owned()),
        (user, Some(password)) => Ok(Some(Login { user: decoded(user)?, password: Secret::new(decoded(password)?) })),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        read(&Secret::new(text)).unwrap()
    }

    fn error(text: &str) -> String {
        read(&Secret::new(text)).unwrap_err()
    }

    #[test]
    fn each_way_to_encrypt_has_its_port() {
        for (text, tls, port) in [
            ("smtp://mail.example", Tls::Off, 25),
            ("smtp://mail.example?tls=opportunistic", Tls::Opportunistic, 587),
            ("smtp://mail.example/?tls=required", Tls::Required, 587),
            ("smtps://mail.example", Tls::Implicit, 465),
            ("smtp://mail.example:2525?tls=required", Tls::Required, 2525),
            ("smtps://mail.example:2465", Tls::Implicit, 2465),
        ] {
            let address = address(text);
            assert_eq!((address.tls, address.port), (tls, port), "{text}");
            assert_eq!(address.login, None);
        }
    }

    #[test]
    fn user_and_password_are_percent_decoded() {
        let login = address("smtps://avisos%40loja.example:p%40ss%2F%23%3A+%C3%A9@mail.example").login.unwrap();
        assert_eq!(login.user, "avisos@loja.example");
        assert_eq!(login.password.expose(), "p@ss/#:+é");
    }

    #[test]
    fn hosts_may_be_ip_addresses() {
        assert_eq!(address("smtp://127.0.0.1:1025").host, "127.0.0.1");
        assert_eq!(address("smtp://[::1]:1025").host, "::1");
    }

    #[test]
    fn a_path_is_the_name_for_the_greeting() {
        assert_eq!(address("smtp://mail.example/app.example").hello.as_deref(), Some("app.example"));
        assert!(error("smtp://mail.example/app%0D%0AMAIL").contains("path"));
    }

    #[test]
    fn an_error_names_the_key_and_shows_no_value() {
        for (text, expected) in [
            ("smtp://u:hunter2@mail.example?tsl=hunter2", "unknown parameter `tsl` (known parameters: tls)"),
            ("smtp://u:hunter2@mail.example?tls=hunter2", "wrong value of `tls`"),
            ("smtps://u:hunter2@mail.example?tls=required", "leave it out"),
            ("http://u:hunter2@mail.example", "known schemes: smtp, smtps"),
            ("smtp://u:hun#ter2@mail.example", ""),
            ("smtp://u:hunter2@mail.example#hunter2", "%23"),
            ("smtp://u:hunter2@", ""),
            ("smtp://:hunter2@mail.example", "without a user"),
            ("smtp://hunter2@mail.example", "without a password"),
            ("smtp:hunter2", "names no mail server"),
            ("hunter2", "is no URL"),
            ("smtp://u:%FFhunter2@mail.example", "UTF-8"),
            ("smtp://u:hunter2@mail.example:99999", "is no URL"),
        ] {
            let error = error(text);
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("hunter2") && !error.contains("ter2"), "{error}");
            assert!(!error.contains('\n'));
        }
    }
}
