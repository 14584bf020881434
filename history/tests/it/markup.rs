//! Just enough of a parser to see that a page is well formed: tags are balanced, attributes are
//! quoted, nothing is loaded from anywhere.

/// Checks a page; returns its text without the tags.
#[track_caller]
pub(crate) fn assert_well_formed(page: &str) -> String {
    let rest = page
        .strip_prefix("<!DOCTYPE html>")
        .expect("it says what it is");
    for foreign in [
        "http:", "https:", "src=", "href=", "@import", "<script", "<img", "<link",
    ] {
        assert!(
            !rest.contains(foreign),
            "{foreign} in a page that needs nothing else"
        );
    }
    let (mut open, mut text, mut rest) = (Vec::new(), String::new(), rest);
    while let Some(begin) = rest.find('<') {
        text.push_str(&unescaped(&rest[..begin]));
        let end = begin + rest[begin..].find('>').expect("a tag ends");
        let tag = &rest[begin + 1..end];
        assert!(!tag.contains('<'), "a tag within a tag: {tag}");
        assert!(
            tag.matches('"').count().is_multiple_of(2),
            "an open quote: {tag}"
        );
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect();
        assert!(!name.is_empty(), "a tag without a name: {tag}");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closes what is not open: {tag}");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert_eq!(open, Vec::<String>::new(), "never closed");
    assert_eq!(rest.trim(), "", "something behind the end");
    text
}

/// Text as it is read. Every ampersand must begin a known reference.
fn unescaped(text: &str) -> String {
    let known = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
    ];
    let mut plain = text.to_owned();
    for (reference, character) in known {
        plain = plain.replace(reference, character);
    }
    assert_eq!(
        plain.matches('&').count(),
        plain.matches("&amp;").count(),
        "{plain}"
    );
    plain.replace("&amp;", "&")
}

#[test]
fn what_is_not_well_formed_is_noticed() {
    assert_eq!(
        assert_well_formed("<!DOCTYPE html><p a=\"1\">x&amp;y<br/></p>\n"),
        "x&y"
    );
    for bad in [
        "<p></p>",
        "<!DOCTYPE html><p>",
        "<!DOCTYPE html><p></b>",
        "<!DOCTYPE html><p><b></p></b>",
        "<!DOCTYPE html><p>a & b</p>",
        "<!DOCTYPE html><p a=\"1></p>",
        "<!DOCTYPE html><p>a < b</p>",
        "<!DOCTYPE html><p src=\"x\"></p>",
    ] {
        let checked = std::panic::catch_unwind(|| assert_well_formed(bad));
        assert!(checked.is_err(), "{bad}");
    }
}
