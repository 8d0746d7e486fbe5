//! Command line.
pub mod plan;
pub mod demo;

pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
