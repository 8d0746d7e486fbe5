//! Who may import whom, and which modules are pure: read from the source itself. No server is needed.
//!
//! `change` and `mutation` are the bottom. `milvus` knows nothing of ours but itself, `postgres` nothing of Milvus.
//! Only `pipeline`, `verify` and `cli` see both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A module of `src/` and the modules that its `crate::` paths may begin with, itself aside.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("change", &[]),
    ("mutation", &["change"]),
    ("config", &[]),
    ("milvus", &[]),
    ("servers", &[]),
    ("telemetry", &["config"]),
    ("metrics", &["change"]),
    ("letters", &["commands", "mutation"]),
    ("commands", &["mutation"]),
    ("admin", &["commands", "letters", "metrics"]),
    ("checkpoint", &["change", "letters", "mutation"]),
    ("engine", &["change", "mutation"]),
    ("postgres", &["change", "config"]),
    ("plan", &["change", "config", "milvus", "mutation", "postgres"]),
    (
        "pipeline",
        &[
            "admin",
            "change",
            "checkpoint",
            "commands",
            "config",
            "engine",
            "letters",
            "metrics",
            "milvus",
            "mutation",
            "plan",
            "postgres",
        ],
    ),
    // The oracle: nothing of the way that it judges.
    ("verify", &["change", "config", "milvus", "pipeline", "plan", "postgres"]),
    (
        "cli",
        &[
            "admin",
            "change",
            "checkpoint",
            "commands",
            "config",
            "letters",
            "metrics",
            "milvus",
            "pipeline",
            "plan",
            "postgres",
            "servers",
            "telemetry",
            "verify",
        ],
    ),
    ("lib", &[]),
    // The binary's one call.
    ("main", &["walvec"]),
];

/// Files and folders whose code is values in, values out.
const PURE: &[&str] = &[
    "change.rs",
    "mutation.rs",
    "engine",
    "plan",
    "postgres/array.rs",
    "postgres/decode",
    "postgres/float.rs",
    "postgres/gate.rs",
    "postgres/pgoutput.rs",
    "postgres/pgvector.rs",
    "postgres/relation.rs",
    "pipeline/encode",
    "pipeline/keyed.rs",
];

/// What would make them impure: waiting, clocks, the world outside.
const IMPURE: &[&str] = &[
    "tokio",
    "async fn",
    ".await",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::time",
    "Instant",
    "SystemTime",
    "tracing",
];

/// `crate::x::y` that a module may not name, although it may name `crate::x`.
const APART: &[(&str, &[&str])] = &[
    ("verify", &["pipeline::encode", "postgres::decode", "postgres::pgvector", "postgres::array", "postgres::float"]),
    ("plan", &["milvus::GrpcClient", "milvus::grpc", "milvus::Milvus", "postgres::connect", "postgres::Connection"]),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder of src") {
            rust_files(&entry.expect("an entry").path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// Code without comments and without a module of tests that follows `#[cfg(test)]` at the left margin; such a module
/// is the end of its file.
fn code(text: &str) -> Vec<(usize, &str)> {
    let mut code = Vec::new();
    let mut for_tests = false;
    for (index, line) in text.lines().enumerate() {
        if for_tests && line.starts_with("mod ") && line.ends_with('{') {
            break;
        }
        for_tests = line == "#[cfg(test)]";
        let line = line.split("//").next().unwrap_or_default();
        if !line.trim().is_empty() {
            code.push((index + 1, line));
        }
    }
    code
}

/// The first segments of all `crate::` paths, with the line each stands on; also in `use crate::{a, b::c}` over many lines.
fn imports(code: &[(usize, &str)]) -> BTreeSet<(usize, String)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    // Depth of braces within a list that `crate::{` opened, and whether the next word begins an item of it.
    let mut list: Option<(usize, bool)> = None;
    for (number, line) in code {
        let mut rest = *line;
        while !rest.is_empty() {
            let Some((depth, begins)) = list.as_mut() else {
                let Some((before, after)) = rest.split_once("crate::") else { break };
                rest = after;
                if before.ends_with(word) {
                    continue; // another word that ends so
                }
                if let Some(after) = after.strip_prefix('{') {
                    (list, rest) = (Some((0, true)), after);
                } else {
                    found.insert((*number, after.chars().take_while(|c| word(*c)).collect()));
                }
                continue;
            };
            let name: String = rest.chars().take_while(|c| word(*c)).collect();
            if !name.is_empty() {
                rest = rest.split_at(name.len()).1;
                if *depth == 0 && std::mem::take(begins) {
                    found.insert((*number, name));
                }
                continue;
            }
            let mut characters = rest.chars();
            match characters.next() {
                Some('{') => *depth += 1,
                Some('}') if *depth == 0 => list = None,
                Some('}') => *depth -= 1,
                Some(',') => *begins = true,
                _ => {}
            }
            rest = characters.as_str();
        }
    }
    found
}

/// Everything that is wrong with a file of this module.
fn faults(module: &str, pure: bool, text: &str) -> Vec<String> {
    let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed);
    let Some(allowed) = allowed else { return vec![format!("module {module} has no place in MAY_IMPORT")] };
    let apart = APART.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, apart)| *apart);
    let mut faults = Vec::new();
    let code = code(text);
    for (number, import) in imports(&code) {
        if import != module && !allowed.contains(&import.as_str()) {
            faults.push(format!("{number}: {module} may not import {import}"));
        }
    }
    for (number, line) in code {
        for path in apart.iter().filter(|path| line.contains(&format!("crate::{path}"))) {
            faults.push(format!("{number}: {module} may not name {path}"));
        }
        if pure {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                faults.push(format!("{number}: {word} in a pure module"));
            }
        }
    }
    faults
}

#[test]
fn imports_go_one_way_and_pure_modules_are_pure() {
    let root = source();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.len() > 40, "{} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).expect("below src");
        // Tests of a module stand in a file of their own where they are long, and so do those that write a page of `docs/`.
        if relative.file_stem().is_some_and(|stem| stem == "tests" || stem == "docs") {
            continue;
        }
        let first = relative.iter().next().expect("a name").to_string_lossy();
        let module = first.strip_suffix(".rs").unwrap_or(&first);
        let pure = PURE.iter().any(|pure| relative.starts_with(pure));
        let text = std::fs::read_to_string(&file).expect("UTF-8");
        wrong
            .extend(faults(module, pure, &text).into_iter().map(|fault| format!("src/{}:{fault}", relative.display())));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_pure_path_exists() {
    for path in PURE {
        assert!(source().join(path).exists(), "src/{path}");
    }
}

#[test]
fn what_is_forbidden_is_found() {
    let count = |module: &str, pure: bool, text: &str| faults(module, pure, text).len();
    assert_eq!(count("milvus", false, "use crate::milvus::MilvusError;\n"), 0);
    assert_eq!(count("milvus", false, "use crate::postgres::Value;\n"), 1);
    assert_eq!(count("postgres", false, "fn f() { crate::milvus::grpc::new() }\n"), 1);
    assert_eq!(count("engine", false, "use crate::{change::{Lsn, Row}, pipeline, mutation::Key};\n"), 1);
    assert_eq!(
        count(
            "engine",
            false,
            "use crate::{\n    change::{Lsn, admin},\n    pipeline,\n    milvus::X,\n};\nfn admin() {}\n"
        ),
        2
    );
    assert_eq!(count("plan", true, "    let now = Instant::now();\n"), 1);
    assert_eq!(count("plan", true, "//! no Instant here\nlet a = 1; // nor tokio\n"), 0);
    assert_eq!(count("plan", true, "fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n"), 0);
    assert_eq!(count("plan", true, "#[cfg(test)]\nmod tests;\nuse std::fs;\n"), 1);
    assert_eq!(count("verify", false, "use crate::postgres::decode::text;\n"), 1);
    assert_eq!(count("novelty", false, ""), 1);
}

/// The page about traps promises a test for each: its names are those of tests that exist.
#[test]
fn the_tests_that_the_page_about_traps_names_exist() {
    let page = include_str!("../../docs/traps.md");
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    rust_files(&source().with_file_name("tests"), &mut files);
    let texts: String = files.iter().map(|file| std::fs::read_to_string(file).expect("a source file")).collect();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")).collect();
    assert_eq!(rows.len(), 116);
    for (number, row) in (1..=100).chain(1..=16).zip(rows) {
        assert!(row.starts_with(&format!("| {number} |")), "{row}");
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty() || row.contains('—'), "{row}: no test and no reason");
        for name in names {
            // The scenarios of the simulator are made by a macro, from their names.
            let exists = texts.contains(&format!("fn {name}(")) || texts.contains(&format!("\n    {name}:"));
            assert!(exists, "{number}: there is no test {name}");
        }
    }
}
