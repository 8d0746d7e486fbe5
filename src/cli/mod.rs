//! Command line.
pub mod plan;

pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
