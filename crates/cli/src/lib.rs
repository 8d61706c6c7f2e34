//! The command line as a library: arguments in, exit code out.
//!
//! Data goes to standard output, everything else to standard error. A reader that closes the pipe ends
//! the command quietly. Exit codes are documented in [`failure`].

pub mod args;
pub mod check;
pub mod cluster;
pub mod completion;
pub mod confirm;
pub mod connection;
pub mod consume;
pub mod consume_group;
pub mod demo;
pub mod examples;
pub mod failure;
pub mod format;
pub mod group;
pub mod habits;
pub mod input;
pub mod inspect;
pub mod interrupt;
pub mod json;
pub mod kcat;
pub mod offset;
pub mod opened;
pub mod operate;
pub mod operate_args;
pub mod output;
pub mod parse;
pub mod probe;
pub mod probe_cluster;
pub mod process;
pub mod produce;
pub mod progress;
pub mod reach;
pub mod repair;
pub mod replicas;
pub mod serve;
pub mod sim;
mod sink;
pub mod told;
pub mod topic;
pub mod topic_create;
pub mod topic_data;
pub mod transaction;
pub mod tree;
pub mod units;
pub mod upgrade;
pub mod watch;
pub mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches as _;

use crate::args::{Cli, Command};
use crate::check::CheckCommand;
use crate::failure::Failure;
use crate::habits::Asked;
use crate::output::Output;

/// Runs the command that `arguments` (with the program's name first) name.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    process::watch_parent();
    if completion::answer(&arguments) {
        return ExitCode::SUCCESS;
    }
    let mut tree = tree::tree();
    let arguments = match habits::translate(&tree, kcat::translate(arguments)) {
        Asked::Run(arguments) => arguments,
        Asked::Settings => return ended(connection::print_settings(), false),
        Asked::Options => {
            let text = tree::options();
            return ended(output::print_line(text.trim_end()).map(|()| 0), false);
        }
        Asked::Says(sentence) => return Failure::usage(sentence).report(false),
    };
    let matches = tree.try_get_matches_from_mut(&arguments);
    let parsed = matches.and_then(|matches| {
        Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut tree))
    });
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return refused(&tree, &arguments, &error),
    };
    let verbose = cli.global.verbose;
    // A node sets up its own log, as its configuration says.
    if !matches!(cli.command, Command::Server(_)) {
        start_log(&cli);
    }
    ended(dispatch(cli), verbose > 0)
}

fn ended(result: Result<u8, Failure>, verbose: bool) -> ExitCode {
    // What is buffered is written at the exit at the latest, where a failure would go unseen.
    let result = result.and_then(|code| output::flush().map(|()| code));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(verbose),
    }
}

/// What the parser did not take, or help that was asked for.
fn refused(tree: &clap::Command, arguments: &[OsString], error: &clap::Error) -> ExitCode {
    if let Some(sentence) = habits::explain(tree, arguments, error) {
        return Failure::usage(sentence).report(false);
    }
    let printed = error.print();
    if error.use_stderr() {
        return ExitCode::from(failure::USAGE);
    }
    let printed = printed.map_err(|error| Failure::unprinted(&error));
    ended(printed.map(|()| 0), false)
}

fn start_log(cli: &Cli) {
    let level = match cli.global.verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let level = if cli.global.quiet { "error" } else { level };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new(format!(
            "varve={level},varve_client={level},varve_cli={level}"
        ))
    });
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(!cli.global.no_color && failure::stderr_is_terminal())
        .try_init();
}

fn dispatch(cli: Cli) -> Result<u8, Failure> {
    match cli.command {
        Command::Completion { shell } => completion::print(shell),
        Command::Version { json, form } => {
            completion::version(if json { Output::Json } else { form.output })
        }
        Command::Log { command } => inspect::run(&command, &cli.global),
        Command::Config { command } => serve::config(&command),
        Command::Sim(args) => sim::run(&args),
        Command::Check {
            command: CheckCommand::History { file, form },
        } => check::history(&file, form.output),
        command => {
            if cli.global.list_settings() {
                return connection::print_settings();
            }
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            let result = runtime.block_on(network(cli.global, command));
            // A thread that is blocked in a read of the terminal must not hold the exit up.
            runtime.shutdown_background();
            result
        }
    }
}

async fn network(global: args::Global, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Produce(args) => Box::pin(produce::run(&global, args)).await,
        Command::Consume(args) => Box::pin(consume::run(&global, args)).await,
        Command::Topic { command } => Box::pin(topic::run(&global, command)).await,
        Command::Group { command } => Box::pin(group::run(&global, command)).await,
        Command::Transaction { command } => Box::pin(transaction::run(&global, command)).await,
        Command::Cluster { command } => Box::pin(cluster::run(&global, command)).await,
        Command::Check {
            command: CheckCommand::Run(args),
        } => Box::pin(check::run(&global, &args)).await,
        Command::Check {
            command: CheckCommand::Health(args),
        } => probe::run(&global, &args).await,
        Command::Check {
            command: CheckCommand::Lag(args),
        } => Box::pin(probe_cluster::lag(&global, &args)).await,
        Command::Check {
            command: CheckCommand::Replication(args),
        } => Box::pin(probe_cluster::replication(&global, args)).await,
        Command::Server(args) => Box::pin(serve::server(*args)).await,
        Command::Demo(args) => Box::pin(demo::run(&global, &args)).await,
        Command::Completion { .. }
        | Command::Version { .. }
        | Command::Log { .. }
        | Command::Check { .. }
        | Command::Sim(_)
        | Command::Config { .. } => Ok(0),
    }
}
