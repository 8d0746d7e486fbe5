//! Exit codes: one list, for the code, for `--help` and for `docs/exit-codes.md` (a test compares).

use std::error::Error;
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok,
    No,
    Configuration,
    Source,
    Target,
    State,
    Tables,
    Temporary,
}

impl Exit {
    pub const ALL: [Exit; 8] = [
        Exit::Ok,
        Exit::No,
        Exit::Configuration,
        Exit::Source,
        Exit::Target,
        Exit::State,
        Exit::Tables,
        Exit::Temporary,
    ];

    pub const fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::No => 1,
            Exit::Configuration => 2,
            Exit::Source => 3,
            Exit::Target => 4,
            Exit::State => 5,
            Exit::Tables => 6,
            // EX_TEMPFAIL of sysexits.h
            Exit::Temporary => 75,
        }
    }

    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Ok => "done; the answer is yes",
            Exit::No => "done; the answer is no: sides differ, not healthy, not equal",
            Exit::Configuration => "the command line or the configuration is wrong",
            Exit::Source => "PostgreSQL refuses, or must not be used as it is",
            Exit::Target => "Milvus refuses, or a collection does not fit",
            Exit::State => "the state directory cannot be used",
            Exit::Tables => "a table cannot become a collection as configured",
            Exit::Temporary => "something did not answer; the same command may work later",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// A command that could not do what was asked.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: Box<dyn Error + Send + Sync>,
    way_out: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure { exit, error: error.into(), way_out: None }
    }

    /// What an operator can do about it, where the error itself does not say.
    pub fn with_way_out(self, way_out: Option<String>) -> Failure {
        Failure { way_out, ..self }
    }

    pub fn way_out(&self) -> Option<&str> {
        self.way_out.as_deref()
    }

    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The error and its causes, each once: a transparent error repeats its cause's words.
    pub fn chain(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::new();
        let mut next: Option<&dyn Error> = Some(&*self.error);
        while let Some(error) = next {
            let text = error.to_string();
            if chain.last() != Some(&text) {
                chain.push(text);
            }
            next = error.source();
        }
        chain
    }
}

/// The text below `--help`.
pub fn help() -> String {
    let lines = Exit::ALL.map(|exit| format!("  {:>2}  {}\n", exit.code(), exit.meaning()));
    format!("Exit codes:\n{}", lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_code_with_its_meaning() {
        let document = include_str!("../../docs/exit-codes.md");
        for exit in Exit::ALL {
            let row = format!("| {} | {} |", exit.code(), exit.meaning());
            assert!(document.lines().any(|line| line.starts_with(&row)), "{row}");
        }
        let rows = document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| code")).count();
        // The system's own codes, 130 and 134, stand below ours.
        assert_eq!(rows, Exit::ALL.len() + 2);
    }

    #[test]
    fn a_chain_says_each_thing_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cause")]
        struct Cause;
        #[derive(Debug, thiserror::Error)]
        enum Outer {
            #[error(transparent)]
            Transparent(#[from] Cause),
            #[error("outer")]
            Said(#[source] Cause),
        }
        assert_eq!(Failure::new(Exit::No, Outer::Transparent(Cause)).chain(), ["cause"]);
        assert_eq!(Failure::new(Exit::No, Outer::Said(Cause)).chain(), ["outer", "cause"]);
    }
}
