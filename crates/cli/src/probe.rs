//! `varve check health`: one question to one node, and the answer as an exit code, for whoever watches nodes from
//! outside: containers, cron, monitoring. Asks the HTTP port and changes nothing.

use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::args::Global;
use crate::failure::{CONDITION, FAILED, Failure, TIMEOUT};
use crate::output::print_line;

/// Most bytes of an answer that are read: a probe's is a line.
const ANSWER_MAX: u64 = 64 << 10;

/// Flags of `check health`.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Whether requests should be sent to it (the default)
    #[arg(long)]
    ready: bool,
    /// Whether the process does its work; says nothing of its peers
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// Whether it has recovered and listens
    #[arg(long, conflicts_with_all = ["ready", "live"])]
    startup: bool,
    /// Port of metrics and health of the node
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8277")]
    http: String,
}

/// Runs a command.
///
/// # Errors
/// [`Failure`] when the node does not answer.
pub async fn run(global: &Global, args: &HealthArgs) -> Result<u8, Failure> {
    let path = match (args.live, args.startup) {
        (true, _) => "/livez",
        (_, true) => "/startupz",
        _ => "/readyz",
    };
    let (status, body) = get(&args.http, path, global.timeout).await?;
    let said = body.lines().next().unwrap_or_default();
    if !global.quiet {
        print_line(said)?;
    }
    match status {
        200 => Ok(0),
        503 => Ok(CONDITION),
        _ => Err(Failure::new(
            FAILED,
            format!(
                "{} answered {path} with status {status}: is it a varve node?",
                args.http
            ),
        )),
    }
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
            format!("{address} does not speak HTTP: is it the port of http.address?"),
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
