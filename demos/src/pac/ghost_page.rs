//! The page of a ghost, filled in.

use discovery::{Coordinate, Endpoint};

use super::assets;

/// What the page shows.
pub(super) struct Page<'a> {
    pub(super) coordinate: &'a Coordinate,
    pub(super) status: &'a str,
    pub(super) endpoints: &'a [Endpoint],
    pub(super) peers: &'a [Coordinate],
}

impl Page<'_> {
    pub(super) fn render(&self) -> String {
        let service = self.coordinate.service().labels().next_back().unwrap_or_default();
        fill(assets::GHOST, |name| match name {
            "coordinate" => escape(&self.coordinate.to_string()),
            "status" => escape(self.status),
            "color" => color(service),
            "endpoints" => {
                items(self.endpoints.iter().map(|endpoint| format!("{} {endpoint}", endpoint.name())))
            }
            "peers" => items(self.peers.iter().map(Coordinate::to_string)),
            // Left empty: a hole in the page is better than braces.
            _ => String::new(),
        })
    }
}

/// Puts `value(name)` in the place of each `{{name}}`, in one pass: what is put in is not looked at again.
fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut page = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        let Some((name, after)) = behind.split_once("}}") else { break };
        page.push_str(before);
        page.push_str(&value(name.trim()));
        rest = after;
    }
    page.push_str(rest);
    page
}

fn items(texts: impl Iterator<Item = String>) -> String {
    texts.fold(String::new(), |items, text| items + "<li>" + &escape(&text) + "</li>")
}

/// For text and for attributes in double quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The colour that the server's page gives to a service, so that both pages show the same ghost: the classic one, or
/// one from the 32-bit FNV-1a hash of the name. Keep in step with `colour` in `assets/pac.js`.
fn color(service: &str) -> String {
    let classic = match service {
        "blinky" => "#ff3b30",
        "pinky" => "#ffa8d8",
        "inky" => "#33e1f5",
        "clyde" => "#ffab42",
        _ => {
            let hash = service
                .bytes()
                .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
            let (hue, light) = ((270 + hash % 300) % 360, 62 + (hash >> 16) % 3 * 7);
            return format!("hsl({hue} 85% {light}%)");
        }
    };
    classic.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_filled_in() {
        let coordinate: Coordinate = "1f.blinky.test.local".parse().unwrap();
        let page = Page {
            coordinate: &coordinate,
            status: "active",
            endpoints: &[Endpoint::new("http", "::1", 80).unwrap()],
            peers: &[coordinate.clone(), "2f.blinky.test.local".parse().unwrap()],
        }
        .render();
        for part in [
            "<title>1f.blinky.test.local</title>",
            r#"data-status="active""#,
            "<li>http [::1]:80</li>",
            "<li>1f.blinky.test.local</li><li>2f.blinky.test.local</li>",
            "#ff3b30",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(!page.contains("{{"), "{page}");
    }

    #[test]
    fn what_is_put_in_is_neither_markup_nor_a_template() {
        let page = fill("<p>{{a}}</p>{{b}}{{", |name| match name {
            "a" => escape("<script>\"'&{{b}}"),
            _ => "b".into(),
        });
        assert_eq!(page, "<p>&lt;script&gt;&quot;&#39;&amp;{{b}}</p>b{{");
    }

    #[test]
    fn any_name_has_a_colour() {
        assert_eq!(color("clyde"), "#ffab42");
        assert_eq!(color("sue"), color("sue"));
        assert!(color("sue").starts_with("hsl("));
    }
}
