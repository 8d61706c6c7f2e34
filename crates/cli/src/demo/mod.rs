//! `varve demo`: the product in a minute, all by itself. A node, a group of three consumers and a producer on sample
//! records or on input of one's own; a consumer is killed, the node is killed in the middle of producing and started
//! again; in the end a table says what was counted.
//!
//! Invariants: no number in the table is assumed, each is counted from records and acknowledgements that came back;
//! the settings of the person who runs it do not count; no process and no directory is left behind, also after an
//! interrupt or a panic. It never touches a cluster that exists.

mod input;
mod ledger;
mod members;
mod play;
mod report;
mod sample;
mod stage;
mod talk;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use self::stage::Stage;
use self::talk::Talk;
use crate::args::{Global, OutputArgs};
use crate::failure::{FAILED, Failure, INTERRUPTED};
use crate::interrupt::Stop;

/// Name of the demo's topic.
const TOPIC: &str = "orders";
/// Name of the demo's group.
const GROUP: &str = "demo";

/// Arguments of `varve demo`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "Examples:
  varve demo
  varve demo access.log -p 12        # each line is a record, its first word the key")]
pub struct DemoArgs {
    /// Lines to send: a file, or - for standard input [default: 50,000 sample orders of a web shop]
    file: Option<PathBuf>,
    /// Split key and value of a line at the first STR; without it, the first word is the key
    #[arg(short = 'K', long, value_name = "STR", requires = "file")]
    key_delim: Option<String>,
    /// Partitions of the topic
    #[arg(short, long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,
    /// Form of the output.
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the demo; exit code 0 when everything held.
///
/// # Errors
/// Anything that keeps the demo from coming to its end, in a sentence.
pub async fn run(global: &Global, args: &DemoArgs) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let reading = args.clone();
    // A read of a terminal cannot be interrupted: it is left to its thread.
    let reading = tokio::task::spawn_blocking(move || {
        input::read(reading.file.as_deref(), reading.key_delim.as_deref())
    });
    let (source, lines) = tokio::select! {
        biased;
        () = stop.come() => {
            return Err(Failure::new(INTERRUPTED, "interrupted; nothing was started"));
        }
        read = reading => read.map_err(|error| Failure::new(FAILED, error.to_string()))??,
    };
    let lines: Arc<[input::Line]> = lines.into();
    let bytes = lines.iter().map(|line| line.bytes() as u64).sum();
    let talk = Talk::new(global.quiet);
    let mut stage = Stage::new(bytes)?;
    let played = async {
        talk.say("starting a node in a temporary directory");
        play::start(&mut stage).await?;
        let ended = play::run(&mut stage, &talk, (source, lines), args.partitions).await;
        // A full disk makes anything fail; it is the reason to give.
        ended.or_else(|failure| stage.check_disk().and(Err(failure)))
    };
    let played = tokio::select! {
        biased;
        () = stop.come() => {
            let text = "interrupted; the node was stopped and its files were removed";
            Err(Failure::new(INTERRUPTED, text))
        }
        played = played => played,
    };
    talk.finish();
    // Before anything is printed: a reader that goes away must not keep the files here.
    drop(stage);
    let report = played?;
    report.print(args.output.output)?;
    if args.output.output.is_text() && !global.quiet {
        say_next();
    }
    Ok(if report.holds() { 0 } else { FAILED })
}

fn say_next() {
    let _ = std::io::stdout().flush();
    let _ = write!(
        std::io::stderr(),
        "\nNext:\n  varve server --dev\nand in another terminal:\n  varve topic create hello -p 3\n  \
         echo 'k1:hello' | varve produce hello -K :\n  varve consume hello -e -f '%k %v\\n'\n"
    );
}
