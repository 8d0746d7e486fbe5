//! The `walvec` binary: hands the command line to the library and turns its verdict into an exit code.
use std::process::ExitCode;

fn main() -> ExitCode {
    walvec::cli::main()
}
