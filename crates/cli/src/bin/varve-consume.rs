//! `varve consume` under a name of its own.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    arguments.insert(1.min(arguments.len()), "consume".into());
    varve_cli::run(arguments)
}
