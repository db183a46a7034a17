//! The dashboard: files that are part of the program. Nobody builds them, and they ask for nothing
//! from elsewhere.

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Where it is.
    pub path: &'static str,
    /// What it is.
    pub content_type: &'static str,
    /// It.
    pub bytes: &'static [u8],
}

/// The file at that path.
pub fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

macro_rules! asset {
    ($path:literal, $file:literal, $type:ident) => {
        Asset {
            path: $path,
            content_type: $type,
            bytes: include_bytes!($file),
        }
    };
}

const ASSETS: &[Asset] = &[
    asset!("/", "index.html", HTML),
    asset!("/style.css", "style.css", CSS),
    asset!("/favicon.svg", "favicon.svg", SVG),
    asset!("/app.js", "app.js", SCRIPT),
    asset!("/api.js", "api.js", SCRIPT),
    asset!("/dns.js", "dns.js", SCRIPT),
    asset!("/dom.js", "dom.js", SCRIPT),
    asset!("/explain.js", "explain.js", SCRIPT),
    asset!("/overview.js", "overview.js", SCRIPT),
    asset!("/requests.js", "requests.js", SCRIPT),
    asset!("/services.js", "services.js", SCRIPT),
    asset!("/timeline.js", "timeline.js", SCRIPT),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    /// What one file of the page names, and what the tags of HTML do.
    fn named() -> impl Iterator<Item = String> {
        let texts = ASSETS
            .iter()
            .map(|asset| String::from_utf8_lossy(asset.bytes));
        texts.flat_map(|text| {
            let mut names = Vec::new();
            for mark in [
                " from \"./",
                "import \"./",
                "src=\"",
                "rel=\"stylesheet\" href=\"",
                "svg+xml\" href=\"",
            ] {
                let found = text.split(mark).skip(1);
                names.extend(found.filter_map(|rest| rest.split('"').next().map(str::to_owned)));
            }
            names
        })
    }

    #[test]
    fn every_file_that_is_named_is_there_and_every_file_is_named() {
        let named: Vec<String> = named().collect();
        for name in &named {
            assert!(find(&format!("/{name}")).is_some(), "{name}");
        }
        for asset in ASSETS.iter().filter(|asset| asset.path != "/") {
            let name = asset.path.trim_start_matches('/');
            assert!(named.iter().any(|n| n == name), "nobody asks for {name}");
        }
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_no_text_becomes_markup() {
        for asset in ASSETS {
            let text = String::from_utf8_lossy(asset.bytes);
            for banned in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=\"",
            ] {
                assert!(!text.contains(banned), "{}: {banned}", asset.path);
            }
            let addresses = text.matches("://").count();
            let known = text.matches("http://www.w3.org/2000/svg").count()
                + text.matches("placeholder=\"https://").count();
            assert_eq!(addresses, known, "{}", asset.path);
        }
    }
}
