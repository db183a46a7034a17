//! `evenkeel config`: the JSON Schema says of files what the program says, as far as a schema can,
//! and the file to begin with is one that can be used.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[path = "support/reference.rs"]
mod reference;
mod support;

fn evenkeel(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(arguments).env_remove("EVENKEEL_CONFIG");
    command
}

/// What it printed; it must have gone well.
fn printed(arguments: &[&str]) -> String {
    let output = evenkeel(arguments).output().expect("it runs");
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The files of a folder of `tests/config`.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new("tests/config").join(folder)).expect("it is there");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|ending| ending != "txt"))
        .collect();
    files.sort();
    files
}

/// `EVENKEEL_BLESS=1 cargo test --test schema` writes them.
#[test]
fn the_schemas_and_the_reference_are_current() {
    let schema = printed(&["config", "schema"]);
    let zone = printed(&["config", "schema", "--zone"]);
    let parsed = |schema: &str| serde_json::from_str::<Value>(schema).expect("JSON");
    let keys = |file: &str| fs::read_to_string(file).expect("it is in the repository");
    let reference = reference::page(&[
        (&keys("src/config/keys.md"), &parsed(&schema)),
        (&keys("src/config/zone_keys.md"), &parsed(&zone)),
    ]);
    for (file, current) in [
        ("docs/evenkeel.schema.json", schema),
        ("docs/evenkeel-zone.schema.json", zone),
        ("docs/reference.md", reference),
    ] {
        if std::env::var_os("EVENKEEL_BLESS").is_some() {
            fs::write(file, current).expect("writable");
            continue;
        }
        let there = fs::read_to_string(file).unwrap_or_default();
        assert!(
            there == current,
            "{file} is old: EVENKEEL_BLESS=1 cargo test --test schema"
        );
    }
}

/// Which of these files a validator that is not ours refuses.
fn refused(python: &Path, schema: &str, files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let folder = tempfile::tempdir().expect("a folder");
    let schema_file = folder.path().join("schema.json");
    fs::write(&schema_file, schema).expect("writable");
    let output = Command::new(python)
        .args([
            "-m",
            "check_jsonschema",
            "--output-format",
            "json",
            "--schemafile",
        ])
        .arg(&schema_file)
        .args(files)
        .output()
        .expect("it runs");
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    ["errors", "parse_errors"]
        .iter()
        .flat_map(|kind| said[kind].as_array().into_iter().flatten())
        .map(|error| PathBuf::from(error["filename"].as_str().expect("it names the file")))
        .collect()
}

/// What a file says of itself that has a mistake which a schema sees.
const STRUCTURAL: &[&str] = &[
    "error: unknown key",
    "error: expected ",
    "is not in this version yet",
    "is not between",
    "such as",
];

#[test]
fn a_validator_agrees_with_the_program() {
    let Some(python) = support::python_with(&["check_jsonschema"]) else {
        return;
    };
    let run = printed(&["config", "schema"]);
    let zone = printed(&["config", "schema", "--zone"]);
    for (schema, valid, invalid) in [
        (&run, "valid", "invalid"),
        (&zone, "zone-valid", "zone-invalid"),
    ] {
        assert_eq!(refused(&python, schema, &files(valid)), BTreeSet::new());
        let structural = |file: &PathBuf| {
            let text = fs::read_to_string(format!("{}.txt", file.display())).expect("readable");
            let errors = text.lines().filter(|line| line.starts_with("error: "));
            let mut errors = errors.map(|line| STRUCTURAL.iter().any(|part| line.contains(part)));
            errors.any(|structural| structural)
        };
        let files = files(invalid);
        let wrong: Vec<&PathBuf> = files.iter().filter(|file| structural(file)).collect();
        assert!(3 * wrong.len() > files.len(), "{wrong:#?}");
        let refused = refused(&python, schema, &files);
        let passed: Vec<_> = wrong
            .iter()
            .filter(|file| !refused.contains(**file))
            .collect();
        assert!(passed.is_empty(), "{passed:#?}");
    }
}

/// Whatever the schema requires, the program misses.
#[test]
fn what_is_required_is_missed() {
    fn strip(schema: &Value, value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        for member in schema["anyOf"].as_array().into_iter().flatten() {
            strip(member, value, path, found);
        }
        if let Some(list) = value.as_array() {
            for (index, member) in list.iter().enumerate() {
                path.push(index.to_string());
                strip(&schema["items"], member, path, found);
                path.pop();
            }
        }
        let Some(table) = value.as_object() else {
            return;
        };
        let required = schema["required"].as_array().into_iter().flatten();
        for key in required
            .filter_map(Value::as_str)
            .filter(|key| table.contains_key(*key))
        {
            found.push(path.iter().cloned().chain([key.to_owned()]).collect());
        }
        for (key, value) in table {
            path.push(key.clone());
            strip(&schema["properties"][key], value, path, found);
            path.pop();
        }
    }
    let schema: Value = serde_json::from_str(&printed(&["config", "schema"])).expect("JSON");
    let whole = fs::read_to_string("tests/config/valid/full.json").expect("readable");
    let whole: Value = serde_json::from_str(&whole).expect("JSON");
    let mut found = Vec::new();
    strip(&schema, &whole, &mut Vec::new(), &mut found);
    let kinds: BTreeSet<&str> = found
        .iter()
        .filter_map(|path| path.last())
        .map(String::as_str)
        .collect();
    assert!(kinds.len() > 8, "{kinds:?}");
    for path in found {
        let (key, above) = path.split_last().expect("a key");
        let mut less = whole.clone();
        let pointer: String = above.iter().map(|step| format!("/{step}")).collect();
        let table = less.pointer_mut(&pointer).expect("it is there");
        table.as_object_mut().expect("a table").remove(key);
        let text = less.to_string();
        let loaded = evenkeel::config::Loader::text(text, evenkeel::config::Format::Json).load();
        let error = loaded.expect_err(&path.join(".")).to_string();
        assert!(
            error.contains("is missing") || error.contains("there is no listener"),
            "{path:?}\n{error}"
        );
    }
}

#[test]
fn the_file_to_begin_with_can_be_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("evenkeel.toml");
    let name = file.to_str().expect("UTF-8");
    let said = printed(&["config", "init", name]);
    assert!(said.contains(name), "{said}");
    let starter = fs::read_to_string(&file).expect("it was written");
    assert_eq!(starter, printed(&["config", "init"]));

    let check = |file: &str| evenkeel(&["check", file]).output().expect("it runs");
    let checked = check(name);
    assert!(
        checked.status.success() && checked.stderr.is_empty(),
        "{checked:?}"
    );

    // It is somebody's work by now.
    fs::write(&file, "# mine").expect("writable");
    let again = evenkeel(&["config", "init", name])
        .output()
        .expect("it runs");
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"));
    assert_eq!(fs::read_to_string(&file).expect("readable"), "# mine");

    // Everything that it proposes, too.
    let all: Vec<&str> = starter
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting,
            _ => line,
        })
        .collect();
    assert!(all.contains(&"[probe]"), "{all:#?}");
    fs::write(&file, all.join("\n")).expect("writable");
    let certs = folder.path().join("certs");
    printed(&["cert", "dev", "--out", certs.to_str().expect("UTF-8")]);
    let checked = check(name);
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        text.contains("2 listeners, 3 services, 3 routes"),
        "{checked:?}"
    );
    assert!(checked.stderr.is_empty(), "{checked:?}");
}
