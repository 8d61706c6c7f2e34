//! The closing table: what was counted, and in which way. The same as JSON or YAML for programs.

use std::time::Duration;

use super::ledger::Findings;
use super::talk::{count, grouped};
use crate::failure::Failure;
use crate::output::{Output, print_line, print_value};

/// What an acknowledgement meant.
const MEANING: &str = "flushed to disk: acks=all, durability=fsync";
/// Narrower terminals get the numbers without the remarks.
const WIDE: u16 = 78;

/// Everything that a run has shown.
#[derive(Debug)]
pub(super) struct Report {
    /// Where the records came from.
    pub source: String,
    pub bytes: u64,
    pub findings: Findings,
    /// The consumer that was killed, counted from 0.
    pub killed: Option<usize>,
    /// Records that had been sent and not acknowledged when the node was killed.
    pub pending: usize,
    /// Records that the producer sent again although they were in the log: the node recognised them.
    pub repeated: usize,
    /// From the kill of the node to the next acknowledgement.
    pub recovery: Option<Duration>,
    /// Acknowledged in a second, up to the kill of the node.
    pub rate: f64,
    pub took: Duration,
}

impl Report {
    /// Whether everything was as promised.
    pub fn holds(&self) -> bool {
        self.findings.hold() && self.recovery.is_some()
    }

    /// # Errors
    /// When standard output cannot be written.
    pub fn print(&self, output: Output) -> Result<(), Failure> {
        if output.is_text() {
            self.table(width().is_none_or(|width| width >= WIDE))
                .iter()
                .try_for_each(|line| print_line(line))
        } else {
            print_value(output, &self.value())
        }
    }

    fn table(&self, remarks: bool) -> Vec<String> {
        let found = &self.findings;
        let mut lines = vec![format!(
            "{}: {} with {}, {:.1} MB",
            self.source,
            count(found.records, "record", "records"),
            count(found.keys, "key", "keys"),
            self.bytes as f64 / 1e6
        )];
        let spread = found.partitions.iter().map(|partition| partition.records);
        let (least, most) = (spread.clone().min(), spread.max());
        lines.push(format!(
            "{}: {} to {} records each",
            count(found.partitions.len(), "partition", "partitions"),
            grouped(least.unwrap_or(0)),
            grouped(most.unwrap_or(0))
        ));
        lines.push(String::new());
        for (name, number, remark) in self.rows() {
            let line = if remarks {
                format!("{name:<25}{number:>10}  {remark}")
            } else {
                format!("{name}: {number}")
            };
            lines.push(line);
        }
        lines.push(String::new());
        lines.push(self.verdict());
        lines
    }

    fn rows(&self) -> Vec<(&'static str, String, String)> {
        let found = &self.findings;
        let killed = self.killed.map_or_else(
            || "to a group of 3".to_owned(),
            |number| format!("to a group of 3; consumer {} was killed", number + 1),
        );
        let recovery = self.recovery.map_or_else(
            || "-".to_owned(),
            |time| format!("{:.1} s", time.as_secs_f64()),
        );
        let mut rows = vec![
            (
                "records acknowledged",
                grouped(found.acknowledged),
                MEANING.to_owned(),
            ),
            ("records delivered", grouped(found.delivered), killed),
            (
                "lost",
                grouped(found.lost),
                "acknowledged, but not in the log as sent".to_owned(),
            ),
            (
                "duplicated by producer",
                grouped(found.duplicated),
                format!(
                    "in the log twice; {} recognised",
                    count(self.repeated, "repeat", "repeats")
                ),
            ),
            (
                "keys out of order",
                grouped(found.keys_out_of_order),
                format!(
                    "of {}, in the log and at each consumer",
                    grouped(found.keys)
                ),
            ),
            (
                "delivered again",
                grouped(found.again),
                "after the kills (at-least-once delivery)".to_owned(),
            ),
            (
                "time to recover",
                recovery,
                "from kill -9 to the next acknowledgement".to_owned(),
            ),
            (
                "records a second",
                grouped(self.rate as usize),
                "acknowledged, before the node was killed".to_owned(),
            ),
        ];
        if found.damaged > 0 {
            let remark = "came back changed, or were never sent".to_owned();
            rows.insert(3, ("damaged", grouped(found.damaged), remark));
        }
        rows
    }

    fn verdict(&self) -> String {
        if self.holds() {
            return "All of it holds: nothing lost, nothing doubled, every key in order."
                .to_owned();
        }
        let found = &self.findings;
        let records = |number: usize| count(number, "record", "records");
        let missing = found.records - found.acknowledged;
        let undelivered = found.records - found.delivered;
        let faults = [
            (missing, format!("{} not acknowledged", records(missing))),
            (
                undelivered,
                format!("{} not delivered", records(undelivered)),
            ),
            (found.lost, format!("{} lost", records(found.lost))),
            (found.damaged, format!("{} damaged", records(found.damaged))),
            (
                found.duplicated,
                format!("{} duplicated", records(found.duplicated)),
            ),
            (
                found.keys_out_of_order,
                format!(
                    "{} out of order",
                    count(found.keys_out_of_order, "key", "keys")
                ),
            ),
            (
                usize::from(self.recovery.is_none()),
                "the node did not come back".to_owned(),
            ),
        ];
        let faults = faults.into_iter().filter(|(number, _)| *number > 0);
        let faults: Vec<String> = faults.map(|(_, text)| text).collect();
        format!("It does not hold: {}.", faults.join(", "))
    }

    fn value(&self) -> serde_json::Value {
        let found = &self.findings;
        let partitions = found.partitions.iter().enumerate();
        let partitions: Vec<_> = partitions
            .map(|(number, partition)| {
                serde_json::json!({
                    "partition": number, "records": partition.records, "keys": partition.keys,
                })
            })
            .collect();
        serde_json::json!({
            "holds": self.holds(),
            "source": self.source,
            "records": found.records,
            "bytes": self.bytes,
            "keys": found.keys,
            "partitions": partitions,
            "acknowledged": found.acknowledged,
            "acknowledgement": MEANING,
            "delivered": found.delivered,
            "deliveredFirstByConsumer": found.members,
            "deliveredAgain": found.again,
            "killedConsumer": self.killed.map(|number| number + 1),
            "lost": found.lost,
            "damaged": found.damaged,
            "duplicatedByProducer": found.duplicated,
            "keysOutOfOrder": found.keys_out_of_order,
            "pendingAtKill": self.pending,
            "repeatsRecognised": self.repeated,
            "recoverySeconds": self.recovery.map(|time| time.as_secs_f64()),
            "recordsPerSecond": self.rate,
            "seconds": self.took.as_secs_f64(),
        })
    }
}

/// Columns of the terminal that standard output is, if it is one.
fn width() -> Option<u16> {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| size.ws_col)
        .filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::ledger::Partition;

    fn report() -> Report {
        let partition = |records, keys| Partition { records, keys };
        Report {
            source: "sample orders of a web shop".to_owned(),
            bytes: 7_000_000,
            findings: Findings {
                records: 50_000,
                keys: 400,
                acknowledged: 50_000,
                delivered: 50_000,
                again: 1_234,
                partitions: vec![partition(8_000, 60), partition(42_000, 340)],
                ..Findings::default()
            },
            killed: Some(1),
            pending: 1_850,
            repeated: 420,
            recovery: Some(Duration::from_millis(940)),
            rate: 41_234.5,
            took: Duration::from_secs(9),
        }
    }

    #[test]
    fn the_table_fits_eighty_columns_and_says_how_it_ended() {
        let report = report();
        assert!(report.holds());
        let lines = report.table(true);
        for line in &lines {
            assert!(line.chars().count() <= 80, "{line}");
            assert_eq!(line.trim_end(), line);
        }
        let text = lines.join("\n");
        for part in [
            "50,000 records with 400 keys, 7.0 MB",
            "2 partitions: 8,000 to 42,000 records each",
            "records acknowledged         50,000  flushed to disk: acks=all, durability=fsync",
            "time to recover               0.9 s",
            "All of it holds",
        ] {
            assert!(text.contains(part), "{part} in:\n{text}");
        }
        let narrow = report.table(false).join("\n");
        assert!(narrow.contains("\nlost: 0\n"), "{narrow}");
    }

    #[test]
    fn every_fault_fails_it_and_is_named() {
        type Spoil = fn(&mut Report);
        let faults: [(Spoil, &str); 7] = [
            (
                |r| r.findings.acknowledged -= 1,
                "1 record not acknowledged",
            ),
            (|r| r.findings.delivered -= 2, "2 records not delivered"),
            (|r| r.findings.lost = 1, "1 record lost"),
            (|r| r.findings.damaged = 3, "3 records damaged"),
            (|r| r.findings.duplicated = 1, "1 record duplicated"),
            (|r| r.findings.keys_out_of_order = 2, "2 keys out of order"),
            (|r| r.recovery = None, "the node did not come back"),
        ];
        for (spoil, words) in faults {
            let mut report = report();
            spoil(&mut report);
            assert!(!report.holds(), "{words}");
            assert_eq!(report.value()["holds"], false);
            assert_eq!(report.verdict(), format!("It does not hold: {words}."));
        }
    }

    #[test]
    fn programs_get_numbers() {
        let value = report().value();
        assert_eq!(value["acknowledged"], 50_000);
        assert_eq!(value["lost"], 0);
        assert_eq!(value["killedConsumer"], 2);
        assert_eq!(value["recoverySeconds"], 0.94);
        assert_eq!(value["partitions"][1]["records"], 42_000);
    }
}
