//! The binary `varve`. Under the name `varve-produce` or `varve-consume`, as a link, it is that command.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    let command = match name.and_then(|name| name.to_str()) {
        Some("varve-produce") => Some("produce"),
        Some("varve-consume") => Some("consume"),
        _ => None,
    };
    if let Some(command) = command {
        arguments.insert(1, command.into());
    }
    varve_cli::run(arguments)
}
