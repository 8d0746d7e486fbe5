//! Configuration: as written (`Config`) → as used (`Settings`).
//!
//! In: `walvec.toml`, the environment variables, files and commands that it names for secrets. Out: `Settings`, and
//! warnings to log; or every problem found, each with file, line, key, what is wrong and the way out.
//!
//! Holds: a key that is not known is an error that suggests the nearest one. `${…}` is refused, never filled in: a
//! variable that is not set would be an empty password. No secret is in an error, a warning or a `Debug`.
//!
//! Not here: whether the servers agree (`cli::check`), what a table becomes (`plan`).

pub mod conninfo;
mod resolve;
mod secret;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod values;
pub mod written;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use secret::Environment;
pub use settings::*;

use toml::de::{DeTable, DeValue};
use written::{Config, KEYS};

/// What holds, and what the operator should know about it.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    /// One sentence each, to be logged at start.
    pub warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no configuration file: looked for {}; give one with --config or WALVEC_CONFIG", paths(.tried))]
    NotFound { tried: Vec<PathBuf> },
    #[error("cannot read configuration {file:?}")]
    Unreadable {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// At least one problem; each is a line of its own.
    #[error("{}", lines(.file, .problems))]
    Invalid { file: String, problems: Vec<Problem> },
}

/// One thing that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1; `None` when it is about something that is not in the file.
    pub line: Option<usize>,
    /// `source.url`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and the way out, without the value where that may be a secret.
    pub sentence: String,
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn lines(file: &str, problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{file}{problem}")).collect::<Vec<_>>().join("\n")
}

/// What follows the file's name: `:12: source.url: …`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.sentence)
    }
}

/// The file to read: the one asked for, else `./walvec.toml`, else `/etc/walvec/walvec.toml`.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = explicit {
        return Ok(path.to_owned());
    }
    let tried = vec![PathBuf::from("walvec.toml"), PathBuf::from("/etc/walvec/walvec.toml")];
    tried.iter().find(|path| path.exists()).cloned().ok_or(ConfigError::NotFound { tried })
}

/// Read and check a file, and fetch its secrets.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { file: path.to_owned(), source })?;
    parse(&text, &path.display().to_string(), &Environment::process())
}

/// Only `[admin]` of a file, for commands that talk to the daemon: no secret is fetched for it.
pub fn load_admin(path: &Path) -> Result<AdminSettings, ConfigError> {
    let file = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { file: path.to_owned(), source })?;
    let config = written(&text, &file)?;
    resolve::admin(&config, &text).map_err(|problems| ConfigError::Invalid { file, problems })
}

/// The same from a text; `file` is for messages.
pub fn parse(text: &str, file: &str, environment: &Environment) -> Result<Loaded, ConfigError> {
    let config = written(text, file)?;
    resolve::resolve(config, text, environment)
        .map_err(|problems| ConfigError::Invalid { file: file.to_owned(), problems })
}

/// What was typed, with known keys only and nothing to fill in.
fn written(text: &str, file: &str) -> Result<Config, ConfigError> {
    let invalid = |problems| ConfigError::Invalid { file: file.to_owned(), problems };
    let document = DeTable::parse(text).map_err(|error| invalid(vec![toml_problem(text, &error)]))?;
    let mut problems = Vec::new();
    check_keys(text, document.get_ref(), "", &mut problems);
    refuse_interpolation(text, &DeValue::Table(document.get_ref().clone()), 0..0, "", &mut problems);
    if !problems.is_empty() {
        return Err(invalid(problems));
    }
    toml::from_str(text).map_err(|error| invalid(vec![toml_problem(text, &error)]))
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1
}

/// The parser's or serde's own message, with the key that its line is about. The line itself may hold a secret.
fn toml_problem(text: &str, error: &toml::de::Error) -> Problem {
    let span = error.span().filter(|span| *span != (0..0));
    let line = span.as_ref().map(|span| line_of(text, span.start));
    let key =
        line.and_then(|line| text.lines().nth(line - 1)).and_then(|line| line.split_once('=')).map(|(key, _)| key);
    let key = key.map(str::trim).filter(|key| key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-\" ".contains(&b)));
    let message = error.message().trim().replace('\n', ", ");
    let sentence = match message.as_str() {
        "missing field `source`" => "there is no [source] section".to_owned(),
        "missing field `target`" => "there is no [target] section".to_owned(),
        _ => message,
    };
    Problem { line, key: key.unwrap_or_default().to_owned(), sentence }
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// Every key that the file has and `KEYS` does not.
fn check_keys(text: &str, table: &DeTable<'_>, section: &str, problems: &mut Vec<Problem>) {
    let Some((_, known)) = KEYS.iter().find(|(name, _)| *name == section) else {
        return;
    };
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        if !known.contains(&name) {
            let sentence = unknown_key(name, section, known);
            problems.push(Problem { line: Some(line_of(text, key.span().start)), key: join(section, name), sentence });
            continue;
        }
        let inner = join(section, name);
        match value.get_ref() {
            // The names below `fields` are the user's columns.
            DeValue::Table(fields) if inner == "table.fields" => {
                for field in fields.values() {
                    if let DeValue::Table(field) = field.get_ref() {
                        check_keys(text, field, &inner, problems);
                    }
                }
            }
            DeValue::Table(table) => check_keys(text, table, &inner, problems),
            DeValue::Array(array) => {
                for element in array.iter() {
                    if let DeValue::Table(table) = element.get_ref() {
                        check_keys(text, table, &inner, problems);
                    }
                }
            }
            _ => {}
        }
    }
}

fn unknown_key(name: &str, section: &str, known: &[&str]) -> String {
    if let Some(nearest) = nearest(name, known.iter().copied()) {
        return format!("unknown key; did you mean {nearest:?}?");
    }
    let elsewhere: Vec<String> =
        KEYS.iter().filter(|(_, keys)| keys.contains(&name)).map(|(section, _)| format!("[{section}]")).collect();
    if !elsewhere.is_empty() {
        return format!("unknown key; it belongs in {}", elsewhere.join(" or ")).replace("[]", "the top level");
    }
    let place = if section.is_empty() { "the top level".to_owned() } else { format!("[{section}]") };
    format!("unknown key; {place} has {}", known.join(", "))
}

/// The name that was probably meant: within a third of its length in edits, or a part of it.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    known
        .map(|known| (strsim::damerau_levenshtein(&name, &known.to_ascii_lowercase()), known))
        .filter(|(edits, known)| {
            *edits <= (known.len().max(name.len()) / 3).max(1) || (name.len() > 3 && known.starts_with(&name))
        })
        .min()
        .map(|(_, known)| known)
}

fn refuse_interpolation(text: &str, value: &DeValue<'_>, span: Range<usize>, key: &str, problems: &mut Vec<Problem>) {
    match value {
        DeValue::String(string) if string.contains("${") => problems.push(Problem {
            line: Some(line_of(text, span.start)),
            key: key.to_owned(),
            sentence: "holds ${…}, which is not filled in; for a secret write { env = \"NAME\" }, \
                       { file = \"/path\" } or { command = [\"program\"] }"
                .to_owned(),
        }),
        DeValue::Table(table) => {
            for (name, value) in table {
                refuse_interpolation(text, value.get_ref(), value.span(), &join(key, name.get_ref()), problems);
            }
        }
        DeValue::Array(array) => {
            for value in array.iter() {
                refuse_interpolation(text, value.get_ref(), value.span(), key, problems);
            }
        }
        _ => {}
    }
}
