//! Shell completion and the version.
//!
//! The script of a shell asks this program for candidates, so that it knows the names of topics, groups and nodes of
//! the cluster that the command line names. Invariant: a cluster that does not answer within `PATIENCE` only costs
//! those names; completion never prints an error.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::{Arg, Command, Parser};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use varve_client::proto as v1;

use crate::args::Global;
use crate::connection::Settings;
use crate::failure::{FAILED, Failure};
use crate::output::{Output, print_line, print_value};

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Set by the scripts: the shell that asks for candidates.
const VARIABLE: &str = "VARVE_COMPLETE";
/// How long a person at a shell waits for names.
const PATIENCE: Duration = Duration::from_millis(300);
/// Flags that say which cluster is meant, with a value each.
const REACHING: [&str; 13] = [
    "-b",
    "--brokers",
    "--bootstrap-server",
    "--server",
    "-F",
    "--client-config",
    "--context",
    "-X",
    "--client-set",
    "--tls-ca",
    "--tls-cert",
    "--tls-key",
    "--tls",
];

/// Names that a cluster knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Topics,
    Groups,
    Nodes,
}

impl Names {
    /// What the value of a flag or argument names, by what the help calls it.
    fn of(arg: &Arg) -> Option<Self> {
        let named = arg.get_value_names()?.first()?.as_str();
        match named.split(['[', ':', ',']).next()? {
            "TOPIC" | "TOPICS" => Some(Self::Topics),
            "GROUP" | "GROUPS" => Some(Self::Groups),
            "NODE" => Some(Self::Nodes),
            _ => None,
        }
    }
}

/// The tree of commands that the script asks about.
fn tree() -> Command {
    let mut tree = crate::tree::tree();
    // Fills in the names of values.
    tree.build();
    with_names(tree)
}

fn with_names(command: Command) -> Command {
    // Those name a topic that does not exist yet.
    let names_new = matches!(command.get_name(), "create" | "run");
    let command = command.mut_args(|arg| match Names::of(&arg) {
        Some(names) if !(names_new && names == Names::Topics) => {
            arg.add(ArgValueCandidates::new(move || candidates(names)))
        }
        _ => arg,
    });
    command.mut_subcommands(with_names)
}

/// Answers a completion script, if that is who calls. `arguments` begin with the program's name.
#[must_use]
pub fn answer(arguments: &[OsString]) -> bool {
    if std::env::var_os(VARIABLE).is_none() {
        return false;
    }
    let here = std::env::current_dir().ok();
    let completing = CompleteEnv::with_factory(tree).var(VARIABLE).bin("varve");
    // A shell has nowhere to show an error.
    completing
        .try_complete(arguments.iter().cloned(), here.as_deref())
        .unwrap_or(true)
}

/// Where the cluster is, by a command line that is not complete.
#[derive(Debug, Parser)]
struct Reaching {
    #[command(flatten)]
    global: Global,
}

fn reaching(words: impl Iterator<Item = OsString>) -> Option<Global> {
    let mut words = words.peekable();
    let mut kept = vec![OsString::from("varve")];
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let (flag, attached) = match text.split_once('=') {
            Some((flag, _)) => (flag.to_owned(), true),
            None => (text.clone(), false),
        };
        if flag == "--tls" {
            kept.push(word);
        } else if REACHING.contains(&flag.as_str()) {
            kept.push(word);
            kept.extend(if attached { None } else { words.next() });
        } else if text.starts_with("-b") && !text.starts_with("--") {
            kept.push(word);
        }
    }
    Some(Reaching::try_parse_from(kept).ok()?.global)
}

fn candidates(names: Names) -> Vec<CompletionCandidate> {
    let words = std::env::args_os().skip_while(|word| word != OsStr::new("--"));
    let found = reaching(words.skip(1)).and_then(|global| ask(global, names));
    let found = found.unwrap_or_default().into_iter();
    found.map(CompletionCandidate::new).collect()
}

fn ask(global: Global, names: Names) -> Option<Vec<String>> {
    let global = Global {
        timeout: PATIENCE,
        ..global
    };
    let admin = Settings::resolve(&global).ok()?.admin().ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let asking = async {
        let found: Vec<String> = match names {
            Names::Topics => {
                let topics = admin.all_topics("", false).await.ok()?;
                topics.into_iter().map(|topic| topic.name).collect()
            }
            Names::Groups => {
                let groups = admin.all_groups().await.ok()?;
                groups.into_iter().map(|group| group.group).collect()
            }
            Names::Nodes => {
                let request = v1::GetMetadataRequest::default();
                let nodes = admin.get_metadata(request).await.ok()?.nodes;
                nodes.iter().map(|node| node.node_id.to_string()).collect()
            }
        };
        Some(found)
    };
    let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await });
    // A name that is still being looked up holds nothing up.
    runtime.shutdown_background();
    found.ok().flatten()
}

/// Prints the completion script of a shell.
///
/// # Errors
/// When standard output cannot be written.
pub fn print(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let completer = shells
        .completer(&name)
        .ok_or_else(|| Failure::new(FAILED, format!("there is no completion script for {name}")))?;
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, "varve", "varve", "varve", &mut script)?;
    crate::output::write_out(&script)?;
    Ok(0)
}

/// Prints the version.
///
/// # Errors
/// When standard output cannot be written.
pub fn version(output: Output) -> Result<u8, Failure> {
    if output.is_text() {
        print_line(&format!("varve {}", varve_server::VERSION_LINE))?;
    } else {
        let version = serde_json::json!({"version": VERSION, "revision": varve_server::REVISION});
        print_value(output, &version)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_name_something_are_found() {
        let tree = tree();
        let names = |path: &[&str], id: &str| {
            let mut command = &tree;
            for name in path {
                command = command.find_subcommand(name).unwrap();
            }
            let arg = command.get_arguments().find(|arg| arg.get_id() == id);
            let arg = arg.unwrap();
            (Names::of(arg), arg.get::<ArgValueCandidates>().is_some())
        };
        for (path, id, wanted) in [
            (&["topic", "describe"][..], "topics", Names::Topics),
            (&["produce"], "topic", Names::Topics),
            (&["group", "describe"], "groups", Names::Groups),
            (&["group", "seek"], "group", Names::Groups),
            (&["cluster", "drain"], "node", Names::Nodes),
            (&["cluster", "reassign"], "partitions", Names::Topics),
        ] {
            assert_eq!(names(path, id), (Some(wanted), true), "{path:?} {id}");
        }
        assert_eq!(
            names(&["topic", "create"], "topics"),
            (Some(Names::Topics), false)
        );
    }

    #[test]
    fn the_command_line_says_which_cluster() {
        let of = |line: &str| {
            let words = line.split(' ').map(OsString::from);
            reaching(words).map(|global| global.brokers)
        };
        assert_eq!(
            of("varve -b a:1,b:2 topic describe o"),
            Some(vec!["a:1".to_owned(), "b:2".to_owned()])
        );
        assert_eq!(
            of("varve topic describe --brokers=a:1 -a"),
            Some(vec!["a:1".to_owned()])
        );
    }
}
