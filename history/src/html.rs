//! Pages of HTML that need nothing else: no script, no picture, no font from anywhere. What is on
//! them is in `picture` and `spacetime`.

/// Forbids the page to load anything, should something that looks like an address be in it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const STYLE: &str = "
:root { color-scheme: light; }
body { font: 14px system-ui, sans-serif; margin: 1.5em; color: #1a1a1a; background: #ffffff; }
h1 { font-size: 1.3em; margin: 0 0 0.5em; }
p.problem { background: #fdecea; border-left: 4px solid #c62828; padding: 0.6em 0.8em; }
ul.notes { color: #555555; padding-left: 1.2em; }
div.scroll { overflow-x: auto; border: 1px solid #dddddd; margin: 1em 0; }
svg text { font: 11px ui-monospace, Menlo, Consolas, monospace; }
code, td { font: 12px ui-monospace, Menlo, Consolas, monospace; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid #e5e5e5; padding: 2px 10px 2px 0; text-align: left; }
";

/// Text as HTML shows it. Characters that no document may contain are replaced.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' => escaped.push(character),
            control if control.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A whole page. `title` is text, `style` and `body` are markup.
pub(crate) fn page(title: &str, style: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>\n\
         <title>{title}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n\
         <h1>{title}</h1>\n{body}</body>\n</html>\n"
    )
}

/// A list of sentences, which are text.
pub(crate) fn notes(sentences: &[String]) -> String {
    let items: String = sentences
        .iter()
        .map(|sentence| format!("<li>{}</li>\n", escape(sentence)))
        .collect();
    format!("<ul class=\"notes\">\n{items}</ul>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_html_loses_it() {
        let escaped = escape("<a href='x'>&\"\u{0}\u{1b}\n");
        assert_eq!(
            escaped,
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{fffd}\u{fffd}\n"
        );
    }

    #[test]
    fn a_page_shows_its_title_as_text() {
        let page = page("<script>", "", "");
        assert!(!page.contains("<script>"), "{page}");
        assert!(page.contains("<title>&lt;script&gt;</title>"), "{page}");
    }
}
