//! `docs/messages.md` has every error of walvec's own, and none that it does not have. No server is needed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Of programs around walvec, which say themselves what to do: the demo, the servers that it fetches.
const NOT_HERE: [&str; 3] = ["src/cli/demo.rs", "src/servers/mod.rs", "src/change.rs"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        match entry.is_dir() {
            true => sources(&entry, found),
            false if entry.extension().is_some_and(|extension| extension == "rs") => found.push(entry),
            false => {}
        }
    }
}

/// A format string as the document writes it: `…` for what is filled in, no line continuations.
fn normalised(format: &str) -> String {
    let mut text = String::new();
    let mut characters = format.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '{' => {
                while characters.next().is_some_and(|inside| inside != '}') {}
                text.push('…');
            }
            '\\' if characters.peek() == Some(&'\n') => {
                while characters.next_if(|space| space.is_whitespace()).is_some() {}
            }
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    text
}

/// The literals of `#[error("…")]`, tests aside.
fn messages(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = Vec::new();
    for after in source.split("#[error(").skip(1) {
        let Some(literal) = after.trim_start().strip_prefix('"') else { continue };
        let mut end = 0;
        let mut escaped = false;
        for (at, character) in literal.char_indices() {
            match character {
                '"' if !escaped => {
                    end = at;
                    break;
                }
                '\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        found.push(normalised(&literal[..end]));
    }
    found
}

#[test]
fn every_error_is_in_the_document_and_every_one_of_it_exists() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut said = BTreeSet::new();
    for file in files {
        let name = file.strip_prefix(root()).expect("below").to_string_lossy().into_owned();
        if !NOT_HERE.contains(&name.as_str()) {
            said.extend(messages(&std::fs::read_to_string(&file).expect("a source file")));
        }
    }
    said.remove("…"); // it passes on another's words
    let document = std::fs::read_to_string(root().join("docs/messages.md")).expect("the document");
    let listed: BTreeSet<String> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(message, _)| message.to_owned())
        .collect();
    let missing: Vec<_> = said.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&said).collect();
    assert!(missing.is_empty() && gone.is_empty(), "not in docs/messages.md: {missing:#?}\nno longer said: {gone:#?}");
    assert!(said.len() > 90, "{}", said.len());
}

#[test]
fn what_is_filled_in_is_an_ellipsis() {
    let source = "#[error(\"a {b:?} \\\n    of {}\", c)] #[error(transparent)] #[error(\n    \"say \\\"{x}\\\"\")]";
    assert_eq!(messages(source), ["a … of …", "say \"…\""]);
}
