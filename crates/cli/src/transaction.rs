//! `varve transaction`: list, describe and abort transactions.

use std::time::Duration;

use clap::Subcommand;
use varve_client::{Admin, ClientError, proto as v1};
use varve_types::size::parse_duration;

use crate::args::{Global, OutputArgs};
use crate::confirm::confirm;
use crate::connection::Settings;
use crate::failure::Failure;
use crate::output::{Done, Output, print_line, print_message, print_table};

/// Commands on transactions.
#[derive(Debug, Subcommand)]
pub enum TransactionCommand {
    /// List transactional ids and the state of their transactions
    #[command(visible_alias = "ls")]
    List {
        /// Only transactions in one of these states
        #[arg(long, value_enum, value_delimiter = ',', value_name = "STATE")]
        state: Vec<State>,
        /// Only ids with this prefix
        #[arg(long, default_value = "", value_name = "TEXT")]
        prefix: String,
        /// Only transactions that have been open for longer than this, such as 5m
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        open_for: Option<Duration>,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Show session, state and partitions of transactional ids
    #[command(visible_alias = "info")]
    Describe {
        /// Transactional ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Abort open transactions, for example of a producer that hangs
    Abort {
        /// Transactional ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
}

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum State {
    /// No transaction has begun
    Empty,
    /// Open
    Ongoing,
    /// Being committed
    PrepareCommit,
    /// Being aborted
    PrepareAbort,
    /// Committed
    CompleteCommit,
    /// Aborted
    CompleteAbort,
}

impl State {
    const fn wire(self) -> v1::TransactionState {
        match self {
            Self::Empty => v1::TransactionState::Empty,
            Self::Ongoing => v1::TransactionState::Ongoing,
            Self::PrepareCommit => v1::TransactionState::PrepareCommit,
            Self::PrepareAbort => v1::TransactionState::PrepareAbort,
            Self::CompleteCommit => v1::TransactionState::CompleteCommit,
            Self::CompleteAbort => v1::TransactionState::CompleteAbort,
        }
    }
}

/// Runs a command.
///
/// # Errors
/// [`Failure`] of the first transactional id that fails.
pub async fn run(global: &Global, command: TransactionCommand) -> Result<u8, Failure> {
    let admin = Settings::resolve(global)?.admin()?;
    match command {
        TransactionCommand::List {
            state,
            prefix,
            open_for,
            form,
        } => {
            let mut found = all(&admin, &state, prefix).await?;
            if let Some(least) = open_for {
                let now = jiff::Timestamp::now();
                found.retain(|t| age(t.started, now).is_some_and(|age| age > least));
            }
            list(found, form.output)
        }
        TransactionCommand::Describe { ids, form } => {
            for id in ids {
                describe(&admin, id, form.output).await?;
            }
            Ok(0)
        }
        TransactionCommand::Abort { ids, form } => {
            let what = format!(
                "this aborts the open transactions of {} and discards their records",
                ids.join(", ")
            );
            confirm(global, &what)?;
            let mut done = Done::new(form.output, global.quiet);
            for id in ids {
                let request = v1::AbortTransactionRequest {
                    transactional_id: id.clone(),
                };
                admin.abort_transaction(request).await?;
                done.add(id, "aborted")?;
            }
            done.end()
        }
    }
}

async fn all(
    admin: &Admin,
    states: &[State],
    id_prefix: String,
) -> Result<Vec<v1::TransactionListing>, ClientError> {
    let mut request = v1::ListTransactionsRequest {
        states: states.iter().map(|state| state.wire().into()).collect(),
        id_prefix,
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let page = admin.list_transactions(request.clone()).await?;
        found.extend(page.transactions);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

/// For how long a transaction has been open by this machine's clock, if it is.
fn age(started: Option<prost_types::Timestamp>, now: jiff::Timestamp) -> Option<Duration> {
    let age = now.duration_since(time(started)?);
    Some(Duration::try_from(age).unwrap_or_default())
}

fn list(transactions: Vec<v1::TransactionListing>, output: Output) -> Result<u8, Failure> {
    if !output.is_text() {
        let response = v1::ListTransactionsResponse {
            transactions,
            ..Default::default()
        };
        print_message(output, "ListTransactionsResponse", &response)?;
        return Ok(0);
    }
    let headings = [
        "TRANSACTIONAL-ID",
        "PRODUCER",
        "EPOCH",
        "STATE",
        "COORDINATOR",
        "STARTED",
    ];
    print_table(&headings, transactions.iter().map(row).collect())?;
    Ok(0)
}

fn row(listing: &v1::TransactionListing) -> Vec<String> {
    let session = listing.session.unwrap_or_default();
    vec![
        listing.transactional_id.clone(),
        session.producer_id.to_string(),
        session.producer_epoch.to_string(),
        name(listing.state().as_str_name(), "TRANSACTION_STATE_"),
        listing.coordinator_id.to_string(),
        shown(listing.started),
    ]
}

fn time(time: Option<prost_types::Timestamp>) -> Option<jiff::Timestamp> {
    time.and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok())
}

/// A time as people read it; nothing for none.
fn shown(raw: Option<prost_types::Timestamp>) -> String {
    time(raw).map_or_else(String::new, |time| time.to_string())
}

/// A value of an enum of the API as people read it.
fn name(value: &str, prefix: &str) -> String {
    value.trim_start_matches(prefix).to_ascii_lowercase()
}

async fn describe(admin: &Admin, id: String, output: Output) -> Result<(), Failure> {
    let request = v1::GetTransactionRequest {
        transactional_id: id,
    };
    let found = admin.get_transaction(request).await?;
    if !output.is_text() {
        return print_message(output, "GetTransactionResponse", &found);
    }
    print_table(&["FIELD", "VALUE"], fields(&found))?;
    if found.partitions.is_empty() {
        return Ok(());
    }
    print_line("")?;
    let partition = |tp: &v1::TopicPartition| {
        let told = match found.untold.contains(tp) {
            true => "no",
            false if found.state() == v1::TransactionState::Ongoing => "",
            false => "yes",
        };
        vec![tp.topic.clone(), tp.partition.to_string(), told.to_owned()]
    };
    let rows = found.partitions.iter().map(partition).collect();
    print_table(&["TOPIC", "PARTITION", "INFORMED"], rows)
}

fn fields(found: &v1::GetTransactionResponse) -> Vec<Vec<String>> {
    let session = found.session.unwrap_or_default();
    let timeout = found.transaction_timeout.unwrap_or_default();
    let timeout = std::time::Duration::try_from(timeout).unwrap_or_default();
    let rows = [
        ("transactional id", found.transactional_id.clone()),
        (
            "state",
            name(found.state().as_str_name(), "TRANSACTION_STATE_"),
        ),
        (
            "decided by",
            name(found.cause().as_str_name(), "TRANSACTION_CAUSE_"),
        ),
        ("producer", session.producer_id.to_string()),
        ("epoch", session.producer_epoch.to_string()),
        ("coordinator", found.coordinator_id.to_string()),
        ("timeout", format!("{timeout:?}")),
        ("started", shown(found.started)),
        ("updated", shown(found.updated)),
    ];
    let filled = rows.into_iter().filter(|(_, value)| !value.is_empty());
    filled
        .map(|(field, value)| vec![field.to_owned(), value])
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_state_has_its_name() {
        for state in State::value_variants() {
            let typed = state.to_possible_value().unwrap().get_name().to_owned();
            let shown = name(state.wire().as_str_name(), "TRANSACTION_STATE_");
            assert_eq!(typed, shown);
        }
    }

    #[test]
    fn a_row_and_a_description_say_what_there_is() {
        let session = Some(v1::TransactionSession {
            producer_id: 7,
            producer_epoch: 3,
        });
        let listing = v1::TransactionListing {
            transactional_id: "billing-1".to_owned(),
            session,
            state: v1::TransactionState::PrepareCommit.into(),
            coordinator_id: 2,
            started: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
        };
        assert_eq!(
            row(&listing),
            [
                "billing-1",
                "7",
                "3",
                "prepare_commit",
                "2",
                "2023-11-14T22:13:20Z"
            ]
        );
        let later = jiff::Timestamp::new(1_700_000_060, 0).unwrap();
        assert_eq!(age(listing.started, later), Some(Duration::from_mins(1)));
        assert_eq!(age(None, later), None);
        let found = v1::GetTransactionResponse {
            transactional_id: "billing-1".to_owned(),
            session,
            state: v1::TransactionState::CompleteAbort.into(),
            cause: v1::TransactionCause::Timeout.into(),
            transaction_timeout: Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            }),
            ..Default::default()
        };
        let fields = fields(&found);
        let value = |field: &str| fields.iter().find(|row| row[0] == field).map(|row| &row[1]);
        assert_eq!(value("state").unwrap(), "complete_abort");
        assert_eq!(value("decided by").unwrap(), "timeout");
        assert_eq!(value("timeout").unwrap(), "60s");
        assert_eq!(value("started"), None);
    }
}
