//! `varve consume` under a name of its own: starts the `varve` that lies beside it. It has no code of the product.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let varve = std::env::current_exe().map(|this| this.with_file_name("varve"));
    let failed = match varve {
        // Returns only when the program could not be started.
        Ok(varve) => Command::new(varve)
            .arg("consume")
            .args(std::env::args_os().skip(1))
            .exec(),
        Err(error) => error,
    };
    eprintln!("error: varve-consume starts the program varve beside it, which failed: {failed}");
    ExitCode::FAILURE
}
