//! Which web addresses may stand in the configuration. No message repeats one: they may hold secrets.

use url::{Host, ParseError, Url};

/// Where a provider is called: `https://`, or `http://` to this machine. No user, no fragment.
pub(super) fn provider(text: &str) -> Result<Url, String> {
    let url = web(text)?;
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(
            "must begin with `https://`: plain `http://` only to this machine (127.0.0.0/8, ::1, localhost)".to_owned()
        );
    }
    Ok(url)
}

/// The same as a base onto which paths are put: without a query, and without a slash at the end of its path
/// (but for the one that an address without a path has).
pub(super) fn provider_base(text: &str) -> Result<Url, String> {
    let mut url = provider(text)?;
    if url.query().is_some() {
        return Err("must have no query (`?...`)".to_owned());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Any web address without a user and a fragment.
pub(super) fn web(text: &str) -> Result<Url, String> {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(ParseError::RelativeUrlWithoutBase) => return Err("must begin with `https://`".to_owned()),
        Err(error) => return Err(format!("is not a web address: {error}")),
    };
    if !["http", "https"].contains(&url.scheme()) {
        return Err("must begin with `https://`".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no user and no password".to_owned());
    }
    if url.fragment().is_some() {
        return Err("must have no fragment (`#...`)".to_owned());
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_to_this_machine_only() {
        for good in [
            "https://graph.facebook.com",
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "http://[::1]:1/",
            "http://LOCALHOST:9",
        ] {
            assert!(provider_base(good).is_ok(), "{good}");
        }
        for bad in [
            "http://graph.facebook.com",
            "http://localhost.example.com",
            "http://10.0.0.1",
            "http://[::ffff:127.0.0.1]",
            "ftp://127.0.0.1",
            "graph.facebook.com",
            "https://u:p@graph.facebook.com",
            "https://graph.facebook.com/?a=b",
            "https://graph.facebook.com/#x",
            "https://",
        ] {
            assert!(provider_base(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slash_at_the_end_makes_no_difference() {
        assert_eq!(provider_base("https://a.example/graph/"), provider_base("https://a.example/graph"));
        assert_eq!(provider_base("https://a.example/"), provider_base("https://a.example"));
    }

    #[test]
    fn no_message_repeats_the_address() {
        for bad in
            ["http://hunter2.example", "https://u:hunter2@x", "hunter2", "https://x/#hunter2", "https://x:hunter2/"]
        {
            assert!(!provider_base(bad).unwrap_err().contains("hunter2"));
        }
    }
}
