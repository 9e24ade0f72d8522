//! Makes foreign texts fit to be shown: one line, no control characters, bounded. Escapes nothing; that is
//! the template's part.

/// One line of at most `chars_max` characters. Control characters, line separators, and the marks that turn
/// the direction of writing round, become blanks; blanks in a row become one.
pub(super) fn one_line(text: &str, chars_max: usize) -> String {
    // Whoever sends megabytes shall not cost us megabytes.
    let shown: String = text.chars().take(chars_max * 4).map(|c| if is_unfit(c) { ' ' } else { c }).collect();
    let line = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= chars_max {
        return line;
    }
    let mut cut: String = line.chars().take(chars_max.saturating_sub(1)).collect();
    cut.truncate(cut.trim_end().len());
    cut.push('…');
    cut
}

/// Whether a text has characters in it that no address or name needs and no terminal should get.
pub(super) fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A customer's name as a mail may greet it; `None` if nothing is left of it.
///
/// Mail programs turn an address in running text into a link. The mail's only link is the app's own, so an
/// address in a name is shown but kept from becoming one, by an invisible word joiner (U+2060) in it.
pub(super) fn greeted(name: &str) -> Option<String> {
    const CHARS_MAX: usize = 80;
    let name = one_line(name, CHARS_MAX).replace("://", ":\u{2060}//");
    let name = name.replace("www.", "www\u{2060}.").replace("WWW.", "WWW\u{2060}.");
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_line_ends_become_one_blank() {
        assert_eq!(one_line("a\r\nBcc:\tx@y\u{0} \u{2028}b\u{1b}[31m", 80), "a Bcc: x@y b [31m");
        assert_eq!(one_line("abc\u{202e}gnp.exe", 80), "abc gnp.exe");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(one_line("ação🌱ação", 6), "ação🌱…");
        assert_eq!(one_line(&"x".repeat(10_000_000), 5), "xxxx…");
        assert_eq!(one_line("12345", 5), "12345");
    }

    #[test]
    fn an_address_in_a_name_does_not_become_a_link() {
        assert_eq!(greeted("https://evil.example").as_deref(), Some("https:\u{2060}//evil.example"));
        assert_eq!(greeted("www.evil.example").as_deref(), Some("www\u{2060}.evil.example"));
        assert_eq!(greeted("ana.maria").as_deref(), Some("ana.maria"));
        assert_eq!(greeted("\r\n\t"), None);
    }
}
