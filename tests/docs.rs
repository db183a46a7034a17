//! The documentation holds together: links lead somewhere, pages can be found, and what is shown to be
//! copied is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use evenkeel::config::{self, Format, Loader};

mod support;

/// Files with this ending, of the folders in which people read and copy.
fn files(ending: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for folder in ["docs", "deploy", "certs"] {
        walk(Path::new(folder), ending, &mut found);
    }
    for entry in fs::read_dir(".").expect("readable") {
        let path = PathBuf::from(entry.expect("readable").file_name());
        if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Lines of a page with their numbers, without those of blocks of code.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fence: Option<&str> = None;
    page.lines().enumerate().filter_map(move |(number, line)| {
        let mark = ["```", "~~~"]
            .into_iter()
            .find(|mark| line.trim_start().starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => return Some((number + 1, line)),
            _ => {}
        }
        None
    })
}

/// What the links of a line lead to; code in it has none.
fn targets(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut code = false;
    let characters: Vec<char> = line.chars().collect();
    for (at, character) in characters.iter().enumerate() {
        match character {
            '`' => code = !code,
            ']' if !code && characters.get(at + 1) == Some(&'(') => {
                let target = characters[at + 2..].iter().take_while(|c| **c != ')');
                found.push(target.collect());
            }
            _ => {}
        }
    }
    for attribute in ["src=\"", "href=\"", "srcset=\""] {
        let parts = line.split(attribute).skip(1);
        found.extend(parts.filter_map(|rest| rest.split('"').next().map(str::to_owned)));
    }
    found
}

/// The names by which headings can be linked to, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(page) {
        for attribute in ["id=\"", "name=\""] {
            let parts = line.split(attribute).skip(1);
            anchors.extend(parts.filter_map(|rest| rest.split('"').next().map(str::to_owned)));
        }
        let text = line.trim_start_matches('#');
        let level = line.len() - text.len();
        let Some(text) = text.strip_prefix(' ').filter(|_| (1..=6).contains(&level)) else {
            continue;
        };
        let name = anchor(text);
        let times = seen.entry(name.clone()).or_default();
        anchors.insert(match *times {
            0 => name,
            more => format!("{name}-{more}"),
        });
        *times += 1;
    }
    anchors
}

/// The name of a heading: links are their labels, letters are small, spaces are hyphens, and of the rest only
/// hyphens and underscores stay.
fn anchor(heading: &str) -> String {
    let mut text = String::new();
    let mut rest = heading.trim();
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    text.to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

/// What is wrong with a link on `page`, if anything is. `read` gives the text of a page.
fn wrong(page: &Path, target: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<String> {
    if let Some((scheme, rest)) = target.split_once("://") {
        let shape = ["http", "https"].contains(&scheme)
            && !rest.is_empty()
            && !target.contains(char::is_whitespace);
        return (!shape).then(|| "is no address".to_owned());
    }
    if target.starts_with("mailto:") {
        return None;
    }
    let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
    let beside = page.parent().unwrap_or(Path::new(""));
    let file = match path {
        "" => page.to_owned(),
        path => plain(&beside.join(path)),
    };
    if !file.exists() {
        return Some(format!("{} is not there", file.display()));
    }
    if fragment.is_empty() {
        return None;
    }
    let text = read(&file)?;
    (!anchors(&text).contains(fragment))
        .then(|| format!("{} has no heading of that name", file.display()))
}

/// `docs/../README.md` is `README.md`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

fn page(file: &Path) -> Option<String> {
    file.extension()
        .filter(|ending| *ending == "md")
        .and_then(|_| fs::read_to_string(file).ok())
}

#[test]
fn links_lead_somewhere() {
    let mut faults = Vec::new();
    let mut followed = 0;
    for file in files("md") {
        let text = page(&file).expect("UTF-8");
        for (number, line) in prose(&text) {
            for target in targets(line) {
                followed += 1;
                if let Some(fault) = wrong(&file, &target, &page) {
                    faults.push(format!("{}:{number}: {target}: {fault}", file.display()));
                }
            }
        }
    }
    assert!(followed > 200, "{followed}");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    assert_eq!(
        anchor("`[[listener]]`: where clients connect"),
        "listener-where-clients-connect"
    );
    assert_eq!(anchor("`[limits]` and `[http]`"), "limits-and-http");
    assert_eq!(
        anchor("SRV records: [synth](dns.md), _tcp"),
        "srv-records-synth-_tcp"
    );
    assert_eq!(targets("`a](b)` [`[x]`](c#d) and ![e](f)"), ["c#d", "f"]);
    let text = "# One\n```\n# not this\n```\n# One\n<a id=\"two\"></a>\n";
    let names: Vec<String> = anchors(text).into_iter().collect();
    assert_eq!(names, ["one", "one-1", "two"]);
    let wrong = |target: &str| wrong(Path::new("docs/dns.md"), target, &|_| Some(text.to_owned()));
    assert_eq!(wrong("../README.md#one-1"), None);
    assert_eq!(wrong("https://example.com/a"), None);
    assert!(wrong("../README.md#three").is_some());
    assert!(wrong("README-of-nothing.md").is_some());
    assert!(wrong("ftp://example.com").is_some());
}

/// Whoever begins at the README gets to each page, and finds it in the list of all.
#[test]
fn every_page_is_in_the_list() {
    let list = fs::read_to_string("docs/README.md").expect("it is in the repository");
    let listed: BTreeSet<String> = prose(&list).flat_map(|(_, line)| targets(line)).collect();
    for file in files("md") {
        let Ok(name) = file.strip_prefix("docs") else {
            continue;
        };
        let name = name.to_str().expect("UTF-8");
        let found = listed
            .iter()
            .any(|target| target.split('#').next() == Some(name));
        assert!(
            found || name == "README.md",
            "docs/README.md does not list {name}"
        );
    }
    let first = fs::read_to_string("README.md").expect("it is in the repository");
    assert!(first.contains("](docs/README.md)"));
}

/// A block of code: where it begins, its language, its text.
struct Block {
    place: String,
    language: String,
    text: String,
}

fn blocks(file: &Path) -> Vec<Block> {
    let page = fs::read_to_string(file).expect("UTF-8");
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in page.lines().enumerate() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            if let Some(block) = &mut open {
                block.text.push_str(line);
                block.text.push('\n');
            }
            continue;
        };
        match open.take() {
            Some(block) => blocks.push(block),
            None => {
                open = Some(Block {
                    place: format!("{}:{}", file.display(), number + 1),
                    language: language.trim().to_owned(),
                    text: String::new(),
                });
            }
        }
    }
    blocks
}

/// What the file that holds `example` may be, where an example shows a part: the keys of a service are put into one,
/// a listener and services that a route names are added.
fn whole(example: &str) -> Result<String, String> {
    let table: toml::Table = example
        .parse()
        .map_err(|e: toml::de::Error| e.to_string())?;
    let known: BTreeSet<String> = config::keys().into_iter().map(|(key, _)| key).collect();
    let of_a_service = table
        .keys()
        .all(|key| !known.contains(key) && known.contains(&format!("service.{key}")));
    let mut text = match of_a_service {
        true => format!(
            "[[service]]\nname = \"of-this-example\"\ndiscover = {{ a = \"x\", port = 1 }}\n{example}"
        ),
        false => example.to_owned(),
    };
    let tables = |key: &str| match table.get(key) {
        Some(toml::Value::Array(tables)) => tables.iter().filter_map(|t| t.as_table()).collect(),
        _ => Vec::new(),
    };
    let said = |key: &str, member: &str| -> BTreeSet<String> {
        let tables: Vec<&toml::Table> = tables(key);
        let values = tables.iter().filter_map(|table| table.get(member));
        values.flat_map(names).collect()
    };
    let named = said("listener", "name");
    let mut wanted = said("route", "listener");
    if tables("listener").is_empty() && wanted.is_empty() {
        wanted.insert("of-this-example".to_owned());
    }
    for name in wanted.difference(&named) {
        text.push_str(&format!(
            "\n[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n"
        ));
    }
    let services = said("service", "name");
    let mut wanted = said("route", "service");
    for route in tables("route") {
        for asked in ["auth", "mirror"] {
            let service = route.get(asked).and_then(|table| table.get("service"));
            wanted.extend(service.into_iter().flat_map(names));
        }
    }
    for name in wanted.difference(&services) {
        text.push_str(&format!(
            "\n[[service]]\nname = \"{name}\"\ndiscover = {{ static = [\"127.0.0.1:9\"] }}\n"
        ));
    }
    Ok(text)
}

/// The names in a value: one, several, or those of the tables that share a route.
fn names(value: &toml::Value) -> Vec<String> {
    match value {
        toml::Value::String(name) => vec![name.clone()],
        toml::Value::Array(values) => values.iter().flat_map(names).collect(),
        toml::Value::Table(table) => table.get("service").into_iter().flat_map(names).collect(),
        _ => Vec::new(),
    }
}

/// What is wrong with a file for the program, if anything is. Files that it names need not be there.
fn refused(text: &str, format: Format) -> Option<String> {
    let zone = format == Format::Toml && text.lines().any(|line| line.starts_with("zone = "));
    if zone {
        let loaded = Loader::text(text, format).load_zone();
        return loaded.err().map(|e| e.to_string());
    }
    let text = match format {
        Format::Toml => match whole(text) {
            Ok(text) => text,
            Err(error) => return Some(error),
        },
        _ => text.to_owned(),
    };
    let loaded = Loader::text(text, format).load();
    loaded.err().map(|e| e.to_string())
}

/// Every file and every example of one is taken. Blocks of YAML and JSON are Evenkeel's if they have listeners.
#[test]
fn what_is_shown_is_taken() {
    let mut faults = Vec::new();
    let mut tried = 0;
    for file in files("md") {
        for block in blocks(&file) {
            let ours = |sign: &str| block.text.lines().any(|line| line.starts_with(sign));
            let format = match block.language.as_str() {
                "toml" => Format::Toml,
                "yaml" if ours("listener:") => Format::Yaml,
                "json" if ours("  \"listener\": [") => Format::Json,
                _ => continue,
            };
            tried += 1;
            if let Some(fault) = refused(&block.text, format) {
                faults.push(format!("{}\n{fault}", block.place));
            }
        }
    }
    assert!(tried > 25, "{tried}");
    for file in files("toml") {
        // The crate's own files are no configurations.
        if file.components().count() == 1 {
            continue;
        }
        let text = fs::read_to_string(&file).expect("UTF-8");
        let loaded = match text.lines().any(|line| line.starts_with("zone = ")) {
            true => Loader::text(text, Format::Toml).load_zone().err(),
            false => Loader::text(text, Format::Toml).load().err(),
        };
        if let Some(fault) = loaded {
            faults.push(format!("{}\n{fault}", file.display()));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn an_example_that_is_wrong_is_found() {
    for wrong in [
        "retries = \"many\"\n",
        "[[route]]\nservise = \"web\"\n",
        "zone = 7\n",
        "x = \n",
    ] {
        assert!(refused(wrong, Format::Toml).is_some(), "{wrong}");
    }
    let right = "[[route]]\nlistener = \"in\"\nservice = [{ service = \"a\", weight = 1 }]\n";
    assert_eq!(refused(right, Format::Toml), None);
    assert_eq!(refused("retries = 2\n", Format::Toml), None);
}

/// The files that the pages on moving here begin with are taken by the programs that they are for.
#[test]
fn what_people_come_from_is_taken_by_its_own_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(["cert", "dev", "--out"])
        .arg(folder.path().join("certs"))
        .output()
        .expect("it runs");
    assert!(made.status.success(), "{made:?}");
    let pem = |name: &str| fs::read_to_string(folder.path().join("certs").join(name)).expect("PEM");
    // HAProxy wants both in one file.
    fs::write(
        folder.path().join("certs/both.pem"),
        pem("dev.pem") + &pem("dev.key"),
    )
    .expect("writable");
    for (page, language, program, arguments) in [
        (
            "docs/migrate-haproxy.md",
            "haproxy",
            "haproxy",
            &["-c", "-f"][..],
        ),
        (
            "docs/migrate-nginx.md",
            "nginx",
            "nginx",
            &["-t", "-q", "-e", "stderr", "-c"],
        ),
    ] {
        if !support::require(program) {
            continue;
        }
        let mut tried = 0;
        for block in blocks(Path::new(page)) {
            if block.language != language {
                continue;
            }
            let certs = folder.path().join("certs");
            let certs = certs.to_str().expect("UTF-8");
            let mut text = block.text.replace("/etc/certs", certs);
            if program == "nginx" {
                // In a file of its own; before 1.27.3 without `resolve`, and then the name would be looked up at once.
                let at = folder.path().display();
                text = format!("pid {at}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{text}\n}}\n")
                    .replace(
                    "web.default.svc.cluster.local service=_http._tcp resolve",
                    "127.0.0.1:8080",
                );
            }
            let file = folder.path().join("file");
            fs::write(&file, text).expect("writable");
            let output = Command::new(program)
                .args(arguments)
                .arg(&file)
                .output()
                .expect("it runs");
            assert!(output.status.success(), "{}\n{output:?}", block.place);
            tried += 1;
        }
        assert!(tried > 0, "{page} shows no {language}");
    }
}
