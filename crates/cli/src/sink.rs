//! Where `varve produce` puts its records: a plain producer, or one that writes in transactions.
//!
//! Invariant: a transaction is committed only when all of its records were acknowledged; any failure aborts the open
//! transaction, and the error says how many records are committed.

use varve_client::{
    Client, Producer, ProducerConfig, RecordRef, TransactionError, TransactionalConfig,
    TransactionalProducer,
};
use varve_types::{Acks, TopicName, TransactionalId};

use crate::args::ProduceArgs;
use crate::failure::Failure;
use crate::words::count;

/// See the module.
pub enum Sink {
    /// Every record on its own.
    Plain(Producer),
    /// Records in transactions.
    Transactions(Box<Transactions>),
}

/// Transactions of a limited number of records.
pub struct Transactions {
    producer: TransactionalProducer,
    /// Records of a transaction.
    most: u64,
    /// Records of the one that is open; 0: none is.
    open: u64,
    committed: u64,
}

impl Sink {
    /// What the command line asks for.
    ///
    /// # Errors
    /// Usage, when a setting is wrong; what the cluster says to the transactional id.
    pub async fn open(
        client: Client,
        config: ProducerConfig,
        args: &ProduceArgs,
    ) -> Result<Self, Failure> {
        let Some(id) = &args.transactional_id else {
            return Ok(Self::Plain(Producer::new(client, config)?));
        };
        let id = TransactionalId::new(id)
            .map_err(|error| Failure::usage(format!("--transactional-id {id:?}: {error}")))?;
        if config.acks != Acks::All {
            return Err(Failure::usage(
                "transactions need --acks all; nothing was written",
            ));
        }
        let config = TransactionalConfig {
            producer: config,
            ..Default::default()
        };
        Ok(Self::Transactions(Box::new(Transactions {
            producer: TransactionalProducer::open(client, id, config).await?,
            most: args.transaction_records.unwrap_or(u64::MAX),
            open: 0,
            committed: 0,
        })))
    }

    /// Takes a record, when there is room.
    ///
    /// # Errors
    /// [`Failure`]; the transaction that was open is aborted then.
    pub async fn enqueue(
        &mut self,
        topic: &TopicName,
        record: RecordRef<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::Plain(producer) => Ok(producer.enqueue(topic, record).await?),
            Self::Transactions(transactions) => {
                let taken = transactions.enqueue(topic, record).await;
                match taken {
                    Ok(()) => Ok(()),
                    Err(error) => Err(transactions.give_up(Some(error)).await),
                }
            }
        }
    }

    /// Waits until everything is acknowledged. What is open in a transaction is committed when `whole`, and
    /// aborted otherwise.
    ///
    /// # Errors
    /// [`Failure`] when something was not acknowledged, or does not count.
    pub async fn finish(&mut self, whole: bool) -> Result<(), Failure> {
        match self {
            Self::Plain(producer) => Ok(producer.flush().await?),
            Self::Transactions(transactions) if transactions.open == 0 => Ok(()),
            Self::Transactions(transactions) if !whole => Err(transactions.give_up(None).await),
            Self::Transactions(transactions) => match transactions.commit().await {
                Ok(()) => Ok(()),
                Err(error) => Err(transactions.give_up(Some(error)).await),
            },
        }
    }
}

impl Transactions {
    async fn enqueue(
        &mut self,
        topic: &TopicName,
        record: RecordRef<'_>,
    ) -> Result<(), TransactionError> {
        if self.open == 0 {
            self.producer.begin()?;
        }
        // Counted first: an interrupt may end this call at any moment, and what was taken must be committed.
        self.open += 1;
        self.producer.enqueue(topic, record).await?;
        if self.open >= self.most {
            self.commit().await?;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), TransactionError> {
        self.producer.commit().await?;
        self.committed += self.open;
        self.open = 0;
        Ok(())
    }

    /// Aborts the transaction that is open, and says what counts.
    async fn give_up(&mut self, why: Option<TransactionError>) -> Failure {
        let (open, committed) = (std::mem::take(&mut self.open), self.committed);
        let unsure = matches!(why, Some(TransactionError::Unsure(_)));
        let fate = if unsure {
            format!(
                "the last {} may or may not be committed",
                count(open, "record")
            )
        } else {
            match self.producer.abort().await {
                Ok(()) => format!("the last {} were aborted", count(open, "record")),
                Err(_) => format!(
                    "the last {} will be aborted when the transaction times out",
                    count(open, "record")
                ),
            }
        };
        let text = format!("{} committed; {fate}", count(committed, "record"));
        match why {
            Some(error) => Failure::from(error).context(&text),
            None => Failure::new(crate::failure::FAILED, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use varve_client::ClientConfig;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::failure::USAGE;

    async fn opened(line: &str, acks: Acks) -> Result<Sink, Failure> {
        let Command::Produce(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("{line}");
        };
        let client = Client::new(ClientConfig::default()).unwrap();
        let config = ProducerConfig {
            acks,
            ..Default::default()
        };
        Sink::open(client, config, &args).await
    }

    #[tokio::test]
    async fn what_transactions_cannot_be_made_with_is_said_before_anybody_is_asked() {
        let line = "varve produce orders --transactional-id billing-1";
        let unsure = opened(line, Acks::Leader).await.err().unwrap();
        assert_eq!(unsure.code, USAGE);
        assert!(unsure.message.contains("--acks all"), "{}", unsure.message);
        let line = "varve produce orders --transactional-id a/b";
        let name = opened(line, Acks::All).await.err().unwrap();
        assert_eq!(name.code, USAGE);
        let plain = opened("varve produce orders", Acks::Leader).await;
        assert!(matches!(plain, Ok(Sink::Plain(_))));
    }
}
