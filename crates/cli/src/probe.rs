//! `varve check health`: one question to one node, and the answer as an exit code, for containers, cron and monitoring.
//!
//! It asks the HTTP port and changes nothing. Invariant: it asks the node that was named, and none that only happens to
//! listen at the default address: with `-b` it first asks that node where its HTTP port is.

use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use varve_client::proto as v1;

use crate::args::{Global, OutputArgs};
use crate::connection::Settings;
use crate::failure::{CONDITION, FAILED, Failure, TIMEOUT};
use crate::output::{print_line, print_value};

/// Most bytes of an answer that are read: a probe's is a line.
const ANSWER_MAX: u64 = 64 << 10;
/// Where the HTTP port of this machine's node is, unless the command line says otherwise.
const DEFAULT_HTTP: &str = "127.0.0.1:8277";

/// Flags of `check health`.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Ask whether the node accepts requests (the default)
    #[arg(long)]
    ready: bool,
    /// Ask whether the process is alive, whatever the state of its peers
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// Ask whether the node has finished its recovery and listens
    #[arg(long, conflicts_with_all = ["ready", "live"])]
    startup: bool,
    /// The node's port for metrics and health [default: that of the node named by -b, or else 127.0.0.1:8277]
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Output format.
    #[command(flatten)]
    form: OutputArgs,
}

/// Runs a command.
///
/// # Errors
/// [`Failure`] when the node does not answer.
pub async fn run(global: &Global, args: &HealthArgs) -> Result<u8, Failure> {
    let (path, probe) = match (args.live, args.startup) {
        (true, _) => ("/livez", "live"),
        (_, true) => ("/startupz", "startup"),
        _ => ("/readyz", "ready"),
    };
    let address = match &args.http {
        Some(http) => http.clone(),
        None => named(global).await?,
    };
    let (status, body) = get(&address, path, global.timeout).await?;
    let code = match status {
        200 => 0,
        503 => CONDITION,
        _ => {
            let text =
                format!("{address} answered {path} with status {status}: is it a varve node?");
            return Err(Failure::new(FAILED, text));
        }
    };
    let answer = body.lines().next().unwrap_or_default();
    if !args.form.output.is_text() {
        let value = serde_json::json!({
            "http": address, "probe": probe, "ok": code == 0, "answer": answer,
        });
        print_value(args.form.output, &value)?;
    } else if !global.quiet {
        print_line(answer)?;
    }
    Ok(code)
}

/// The HTTP address of the node that `-b` names, as that node tells it; the default one if none is named.
async fn named(global: &Global) -> Result<String, Failure> {
    let by_setting = global.set.iter().any(|set| set.starts_with("brokers="));
    if global.brokers.is_empty() && !by_setting {
        return Ok(DEFAULT_HTTP.to_owned());
    }
    let settings = Settings::resolve(global)?;
    let brokers = settings.text("brokers");
    if brokers.contains(',') {
        let text = format!(
            "check health asks one node, and -b (or VARVE_BROKERS) names several: {brokers}; name one of them, or its \
             HTTP port with --http HOST:PORT"
        );
        return Err(Failure::usage(text));
    }
    let asked = settings.admin()?;
    let mut info = asked
        .get_server_info(v1::GetServerInfoRequest {})
        .await
        .map_err(Failure::from)?;
    info.listeners.remove("http").ok_or_else(|| {
        Failure::usage(format!(
            "node {} at {brokers} does not say where its HTTP port is; name it with --http HOST:PORT",
            info.node_id
        ))
    })
}

async fn get(address: &str, path: &str, within: Duration) -> Result<(u16, String), Failure> {
    let asked = tokio::time::timeout(within, exchange(address, path)).await;
    let answer = match asked {
        Ok(answer) => answer.map_err(|error| {
            Failure::new(FAILED, format!("no node answers at {address}: {error}"))
        })?,
        Err(_) => {
            let text = format!("the node at {address} did not answer within {within:?}");
            return Err(Failure::new(TIMEOUT, text));
        }
    };
    parse(&answer).ok_or_else(|| {
        Failure::new(
            FAILED,
            format!("{address} does not speak HTTP: is it the address that http.address names?"),
        )
    })
}

async fn exchange(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // 1.0: the answer comes in one piece and the connection ends with it.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood_or_not() {
        let good = "HTTP/1.0 503 Service Unavailable\r\ncontent-length: 8\r\n\r\ndraining\n";
        assert_eq!(parse(good), Some((503, "draining\n".to_owned())));
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 x\r\n\r\n",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
