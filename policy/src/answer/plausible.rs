//! Tells a token from what is stored or sent in its place by mistake: nothing implausible is ever stored or sent.

/// The longest token, in bytes.
pub const LENGTH_MAX: usize = 16 * 1024;

/// What programs write when they have no token: text forms of "nothing".
const NOTHING: [&str; 5] = ["null", "undefined", "none", "nil", "nan"];

/// Whether a text can be a token.
///
/// # Errors
/// A fixed word in snake case that says why it cannot.
pub fn plausible(token: &str) -> Result<(), &'static str> {
    if crate::planted::has(crate::planted::Bug::ImplausibleStored) {
        return Ok(());
    }
    if token.is_empty() {
        return Err("token_empty");
    }
    if token.len() > LENGTH_MAX {
        return Err("token_too_long");
    }
    if token.contains('\0') {
        return Err("token_with_nul");
    }
    if token.contains(char::is_whitespace) {
        return Err("token_with_blanks");
    }
    if token.contains(char::is_control) {
        return Err("token_with_control_characters");
    }
    if token.contains(char::REPLACEMENT_CHARACTER) {
        return Err("token_garbled");
    }
    if NOTHING.iter().any(|nothing| token.eq_ignore_ascii_case(nothing)) {
        return Err("token_is_a_placeholder");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_every_kind_pass() {
        for token in ["EAAB1x", "IG-ok-1", "THQVJ...", "123|abc", "ya29.a0-_~+/=", "nullable"] {
            assert_eq!(plausible(token), Ok(()), "{token}");
        }
        assert_eq!(plausible(&"x".repeat(LENGTH_MAX)), Ok(()));
    }

    #[test]
    fn what_is_no_token_is_refused_with_its_reason() {
        for (token, reason) in [
            ("", "token_empty"),
            ("a\0b", "token_with_nul"),
            ("a b", "token_with_blanks"),
            ("EAA\n", "token_with_blanks"),
            ("\u{a0}EAA", "token_with_blanks"),
            ("a\u{7}b", "token_with_control_characters"),
            ("a\u{fffd}b", "token_garbled"),
            ("null", "token_is_a_placeholder"),
            ("Undefined", "token_is_a_placeholder"),
        ] {
            assert_eq!(plausible(token), Err(reason), "{token:?}");
        }
        assert_eq!(plausible(&"x".repeat(LENGTH_MAX + 1)), Err("token_too_long"));
    }
}
