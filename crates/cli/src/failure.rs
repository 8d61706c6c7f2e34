//! How a command fails: one line for people, an exit code for scripts.
//!
//! Codes: 0 done, 1 failed, 2 usage or an invalid argument, 3 not found, 4 condition not met, 5 timeout, 130
//! interrupted twice.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use varve_client::{ClientError, TransactionError};
use varve_types::ErrorKind;

/// Failed.
pub const FAILED: u8 = 1;
/// The command line is wrong, or asks the cluster for something invalid.
pub const USAGE: u8 = 2;
/// A topic, group, partition or node does not exist.
pub const NOT_FOUND: u8 = 3;
/// A requested condition is not met.
pub const CONDITION: u8 = 4;
/// Time ran out.
pub const TIMEOUT: u8 = 5;
/// Interrupted: a second time, or before the end of a command that has nothing to show until then.
pub const INTERRUPTED: u8 = 130;

/// Whether standard error is a terminal.
#[must_use]
pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Why a command ends early.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// One line.
    pub message: String,
    /// More lines, shown with `-v`.
    pub details: Vec<String>,
    /// Say nothing: the reader of our output is gone, or everything was said.
    quiet: bool,
}

impl Failure {
    /// A failure with an exit code.
    #[must_use]
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Vec::new(),
            quiet: false,
        }
    }

    /// The command line asks for something invalid.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    /// An exit code without a message: everything was said.
    #[must_use]
    pub fn silent(code: u8) -> Self {
        Self {
            quiet: true,
            ..Self::new(code, "")
        }
    }

    /// Standard output took not all that was printed. A reader that is gone wanted no more: that is not a failure.
    #[must_use]
    pub fn unprinted(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::silent(0);
        }
        let why = error.to_string();
        let why = why.split(" (os error").next().unwrap_or_default();
        let text =
            format!("standard output cannot be written: {why}; what was printed is not complete");
        Self::new(FAILED, text)
    }

    /// Puts what was attempted in front.
    #[must_use]
    pub fn context(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Prints it, unless its reader is gone, and gives the exit code.
    #[must_use]
    pub fn report(&self, verbose: bool) -> ExitCode {
        if self.quiet {
            return ExitCode::from(self.code);
        }
        let mut stderr = std::io::stderr().lock();
        // One line, whatever the server said.
        let lines = self.message.lines().map(str::trim);
        let message = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>();
        let _ = writeln!(stderr, "error: {}", message.join("; "));
        if verbose {
            for detail in &self.details {
                let _ = writeln!(stderr, "  {detail}");
            }
        }
        ExitCode::from(self.code)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let quiet = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self {
            quiet,
            ..Self::new(if quiet { 0 } else { FAILED }, error.to_string())
        }
    }
}

fn code_of(error: &ClientError) -> u8 {
    match error.kind() {
        Some(
            ErrorKind::TopicNotFound
            | ErrorKind::GroupNotFound
            | ErrorKind::PartitionNotFound
            | ErrorKind::NodeNotFound
            | ErrorKind::TransactionNotFound,
        ) => NOT_FOUND,
        _ if error.is_timeout() => TIMEOUT,
        _ if is_invalid(error) => USAGE,
        _ => FAILED,
    }
}

/// Whether the cluster refused what it was asked for as invalid, as the command line does with what it can check.
fn is_invalid(error: &ClientError) -> bool {
    let ClientError::Rpc(rpc) = error else {
        return false;
    };
    // Records that are too large or broken are data, and not arguments.
    match rpc.kind {
        Some(ErrorKind::InvalidRequest | ErrorKind::InvalidConfig) => true,
        Some(_) => false,
        None => rpc.code == tonic::Code::InvalidArgument,
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = match &error {
            ClientError::TopicNotFound(_) => format!("{error} (NOT_FOUND/TOPIC_NOT_FOUND)"),
            ClientError::PartitionNotFound { .. } => {
                format!("{error} (NOT_FOUND/PARTITION_NOT_FOUND)")
            }
            other => other.to_string(),
        };
        let mut failure = Self::new(code_of(&error), message);
        if let ClientError::Rpc(rpc) = &error {
            let metadata = rpc
                .metadata
                .iter()
                .map(|(name, value)| format!("{name}: {value}"));
            failure.details.extend(metadata);
            if let Some(leader) = &rpc.leader {
                let (node, address) = (leader.node_id, &leader.address);
                failure
                    .details
                    .push(format!("leader: node {node} at {address}"));
            }
        }
        failure
    }
}

impl From<TransactionError> for Failure {
    fn from(error: TransactionError) -> Self {
        let message = error.to_string();
        match error.cause() {
            Some(cause) => Self {
                message,
                ..Self::from(cause.clone())
            },
            None => Self::new(FAILED, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use varve_client::RpcError;

    #[test]
    fn codes_tell_scripts_what_happened() {
        assert_eq!(
            Failure::from(ClientError::TopicNotFound("t".into())).code,
            NOT_FOUND
        );
        assert_eq!(Failure::from(ClientError::Closed).code, FAILED);
        let mut slow = RpcError::transport("late");
        slow.code = tonic::Code::DeadlineExceeded;
        assert_eq!(
            Failure::from(ClientError::Rpc(Arc::new(slow))).code,
            TIMEOUT
        );
        let mut invalid = RpcError::transport("partitions is 1000000");
        invalid.code = tonic::Code::InvalidArgument;
        assert_eq!(
            Failure::from(ClientError::Rpc(Arc::new(invalid))).code,
            USAGE
        );
        let missing = Failure::from(ClientError::TopicNotFound("t".into()));
        assert_eq!(
            missing.message,
            "topic \"t\" not found (NOT_FOUND/TOPIC_NOT_FOUND)"
        );
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(failure.quiet && failure.code == 0);
    }
}
