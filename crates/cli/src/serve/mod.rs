//! `varve server` and `varve config`: the node, and what its configuration means. Several nodes for trying things out
//! are in `nodes`.

mod layout;
mod nodes;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use varve_server::config::{Settings, keys};
use varve_server::{Config, Node};

use crate::args::OutputArgs;
use crate::failure::{FAILED, Failure, USAGE};
use crate::output::{Output, print_line, print_table, print_value};

/// Where a configuration file is looked for when none is named.
const DEFAULT_FILE: &str = "/etc/varve/varve.toml";
/// What `--dev` stands for.
const DEV: &[(&str, &str)] = &[
    ("node.id", "1"),
    ("storage.data_dir", "./varve-data"),
    ("storage.min_free_bytes", "256MiB"),
    ("listeners.client.address", "127.0.0.1:8278"),
    ("listeners.client.tls.mode", "insecure"),
    ("listeners.kafka.address", "127.0.0.1:9092"),
    ("listeners.kafka.tls.mode", "insecure"),
    ("auto.create.topics.enable", "true"),
    ("create.topics.lower.replication", "true"),
    ("http.address", "127.0.0.1:8277"),
    ("shutdown.drain_grace", "0s"),
    ("shutdown.stream_grace", "1s"),
];

/// Arguments that say how a node is configured.
#[derive(Debug, Clone, Default, Args)]
pub struct SettingsArgs {
    /// Configuration file [default: /etc/varve/varve.toml, if it is there]
    #[arg(
        short = 'c',
        long = "config-file",
        visible_alias = "file",
        value_name = "FILE",
        env = "VARVE_CONFIG"
    )]
    file: Option<PathBuf>,
    /// Data directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Id of this node
    #[arg(long, value_name = "N")]
    node_id: Option<String>,
    /// Address to listen on for gRPC
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Address to listen on for metrics and health
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Set any configuration key; may be repeated
    #[arg(long = "set-config", value_name = "KEY=VALUE")]
    set_config: Vec<String>,
}

/// Arguments of `varve server`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "Examples:
  varve server --dev                 # one node, data in ./varve-data
  varve server --dev --nodes 3       # three nodes that are one cluster")]
pub struct ServerArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Run one node to try things out: data in ./varve-data, listeners on loopback only; a file, the environment and
    /// other flags override these defaults
    #[arg(long)]
    dev: bool,
    /// With --dev: run a cluster of N nodes on this machine, with data in ./varve-cluster; --node-id runs only that one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: Option<u8>,
}

/// `varve config …`.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Print every key with its value
    Show {
        /// How the node is configured.
        #[command(flatten)]
        settings: SettingsArgs,
        /// Also print where each value comes from
        #[arg(long)]
        effective: bool,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Check file, environment and flags, and change nothing
    Check {
        /// How the node is configured.
        #[command(flatten)]
        settings: SettingsArgs,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the documentation of every key as Markdown
    Docs,
}

impl SettingsArgs {
    /// Of a node for trying things out (`dev`) or of any other.
    fn load(&self, dev: bool) -> Result<Settings, Failure> {
        let default = PathBuf::from(DEFAULT_FILE);
        let file = match &self.file {
            Some(file) => Some(file.clone()),
            // The machine's own node is not tried things out with.
            None => (!dev && default.exists()).then_some(default),
        };
        let mut settings = self.read(file.as_deref(), &[])?;
        if dev {
            settings
                .fill("--dev", DEV)
                .map_err(|error| Failure::new(USAGE, error.to_string()))?;
        }
        Ok(settings)
    }

    /// Of a node for trying things out, with further flags over those that were given.
    fn load_with(&self, more: &[(String, String)]) -> Result<Settings, Failure> {
        self.read(self.file.as_deref(), more)
    }

    /// Whether `--set-config` sets a key.
    fn sets(&self, key: &str) -> bool {
        let of = |pair: &String| pair.split_once('=').is_some_and(|(name, _)| name == key);
        self.set_config.iter().any(of)
    }

    fn read(&self, file: Option<&Path>, more: &[(String, String)]) -> Result<Settings, Failure> {
        let given = [
            ("storage.data_dir", &self.data_dir),
            ("node.id", &self.node_id),
            ("listeners.client.address", &self.listen),
            ("http.address", &self.http),
        ];
        let mut flags: Vec<(String, String)> = given
            .iter()
            .filter_map(|(key, value)| Some(((*key).to_owned(), (*value).clone()?)))
            .collect();
        for pair in &self.set_config {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("{pair:?} is not KEY=VALUE")))?;
            flags.push((key.to_owned(), value.to_owned()));
        }
        flags.extend_from_slice(more);
        Settings::load(file, variables()?.into_iter(), &flags)
            .map_err(|error| Failure::new(USAGE, error.to_string()))
    }
}

/// The variables of the environment that are text. Others are not for this program, unless they have its prefix.
fn variables() -> Result<Vec<(String, String)>, Failure> {
    let mut all = Vec::new();
    for (name, value) in std::env::vars_os() {
        let shown = name.to_string_lossy().into_owned();
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => all.push((name, value)),
            _ if shown.starts_with("VARVE_") => {
                return Err(Failure::usage(format!(
                    "the environment variable {shown} is not UTF-8; nothing was started; set it to text, or unset it"
                )));
            }
            _ => {}
        }
    }
    Ok(all)
}

/// Runs a node until a signal stops it.
///
/// # Errors
/// A sentence about what is wrong.
pub async fn server(args: ServerArgs) -> Result<u8, Failure> {
    let settings = match args.nodes {
        Some(_) if !args.dev => {
            return Err(Failure::usage(
                "--nodes runs several nodes on one machine for trying things out, and needs --dev; a real cluster has \
                 a node per machine, each with cluster.seeds; nothing was started",
            ));
        }
        Some(count @ 2..) => match args.settings.node_id.clone() {
            None => return Box::pin(nodes::run(&args, usize::from(count))).await,
            Some(id) => one_of(&args.settings, usize::from(count), &id)?,
        },
        _ => args.settings.load(args.dev)?,
    };
    let config =
        Config::resolve(&settings).map_err(|error| Failure::new(USAGE, error.to_string()))?;
    varve_server::telemetry::install(config.log_format, &config.log_filter);
    let announce = move |node: &Node| {
        // One of several is announced by who started them all.
        if args.dev && args.nodes.is_none_or(|count| count < 2) {
            eprintln!("{}", dev_hint(node));
        }
    };
    let ended = varve_server::run(config, Box::new(announce)).await;
    ended
        .map(|()| 0)
        .map_err(|error| Failure::new(FAILED, format!("{error:#}")))
}

/// Settings of one node of `--nodes`.
fn one_of(args: &SettingsArgs, count: usize, id: &str) -> Result<Settings, Failure> {
    let number = id.parse().ok().filter(|id| (1..=count).contains(id));
    let number = number.ok_or_else(|| {
        Failure::usage(format!(
            "there is no node {id} in a cluster of {count}: give --node-id 1 to {count}; nothing was started"
        ))
    })?;
    let args = SettingsArgs {
        node_id: None,
        ..args.clone()
    };
    layout::Layout::of(&args, count)?.settings(&args, number)
}

fn dev_hint(node: &Node) -> String {
    let address = node.client_address();
    let brokers = if address.port() == 8278 {
        String::new()
    } else {
        format!(" -b {address}")
    };
    let kafka = node.kafka_address().map_or(String::new(), |kafka| {
        format!("; clients of the Kafka protocol on {kafka}")
    });
    format!(
        "\nvarve is ready on {address}; metrics and health on http://{http}{kafka}\nTry, in another terminal:\n  \
         varve{brokers} topic create hello -p 3 && echo 'k1:hello' | varve{brokers} produce hello -K :\n  \
         varve{brokers} consume hello -e -f '%t[%p]@%o %k %v\\n'\n",
        http = node.http_address()
    )
}

/// Runs `varve config …`.
///
/// # Errors
/// What is wrong with the configuration, in one line.
pub fn config(command: &ConfigCommand) -> Result<u8, Failure> {
    match command {
        ConfigCommand::Docs => print_line(keys::docs().trim_end())?,
        ConfigCommand::Check { settings, output } => {
            let settings = settings.load(false)?;
            Config::resolve(&settings).map_err(|e| Failure::new(USAGE, e.to_string()))?;
            match output.output.is_text() {
                true => print_line("ok")?,
                false => print_value(output.output, &serde_json::json!({ "ok": true }))?,
            }
        }
        ConfigCommand::Show {
            settings,
            effective,
            output,
        } => {
            show(output.output, &settings.load(false)?, *effective)?;
        }
    }
    Ok(0)
}

fn show(output: Output, settings: &Settings, sources: bool) -> Result<(), Failure> {
    let all = settings.effective();
    if !output.is_text() {
        let entry = |(key, value, source): &(String, String, varve_server::config::Source)| serde_json::json!({ "key": key, "value": value, "source": source.to_string() });
        return print_value(output, &all.iter().map(entry).collect());
    }
    if !sources {
        for (key, value, _) in all {
            print_line(&format!("{key} = {value:?}"))?;
        }
        return Ok(());
    }
    let rows = all
        .into_iter()
        .map(|(k, v, s)| vec![k, v, s.to_string()])
        .collect();
    print_table(&["KEY", "VALUE", "SOURCE"], rows)
}
