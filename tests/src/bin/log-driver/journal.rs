//! The lines that a run leaves behind, and what they say a log may look like: the oracle.
//!
//! A line is written before an operation that may change what is legal (`append`, `truncate`, `trim`,
//! `retain`, `reset`), and after one that made something durable (`acked`, `start`, `end`, `open`). One
//! operation is under way at a time, so after a crash only the last intent is open.

use std::io::Write as _;

use crate::content::Described;

/// One line: a word, the partition, and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The log was opened with this start and end; all of it is durable.
    Open { start: i64, end: i64 },
    /// This batch is about to be written at the end.
    Append(Described),
    /// Everything below is durable.
    Acked(i64),
    /// Records from here on are about to be removed; so are the rest of a batch that it lies within.
    Truncate(i64),
    /// The log is about to start anew here.
    Reset(i64),
    /// The end of the log after a truncation or reset, durable.
    End(i64),
    /// The start is about to move here, or less.
    Trim(i64),
    /// The start is durable.
    Start(i64),
    /// The log has failed and must never acknowledge anything again.
    Failed,
    /// The log was closed; whoever opens it says so.
    Closed,
}

impl Event {
    fn text(self, partition: u32) -> String {
        let p = partition;
        match self {
            Self::Open { start, end } => format!("open {p} {start} {end}"),
            Self::Append(b) => format!(
                "append {p} {} {} {} {} {}",
                b.base, b.generation, b.epoch, b.records, b.size
            ),
            Self::Acked(end) => format!("acked {p} {end}"),
            Self::Truncate(to) => format!("truncate {p} {to}"),
            Self::Reset(to) => format!("reset {p} {to}"),
            Self::End(end) => format!("end {p} {end}"),
            Self::Trim(to) => format!("trim {p} {to}"),
            Self::Start(start) => format!("start {p} {start}"),
            Self::Failed => format!("failed {p}"),
            Self::Closed => format!("closed {p}"),
        }
    }

    /// A line. `None` for one that a crash has cut, and for text that is for people.
    pub fn parse(line: &str) -> Option<(u32, Self)> {
        let mut words = line.split_ascii_whitespace();
        let word = words.next()?;
        let partition = words.next()?.parse().ok()?;
        let n: Vec<i64> = words.map(|w| w.parse().ok()).collect::<Option<_>>()?;
        let event = match (word, n.as_slice()) {
            ("open", [start, end]) => Self::Open {
                start: *start,
                end: *end,
            },
            ("append", [base, generation, epoch, records, size]) => Self::Append(Described {
                base: *base,
                generation: u64::try_from(*generation).ok()?,
                epoch: i32::try_from(*epoch).ok()?,
                records: u32::try_from(*records).ok()?,
                size: u32::try_from(*size).ok()?,
            }),
            ("acked", [end]) => Self::Acked(*end),
            ("truncate", [to]) => Self::Truncate(*to),
            ("reset", [to]) => Self::Reset(*to),
            ("end", [end]) => Self::End(*end),
            ("trim", [to]) => Self::Trim(*to),
            ("start", [start]) => Self::Start(*start),
            ("failed", []) => Self::Failed,
            ("closed", []) => Self::Closed,
            _ => return None,
        };
        Some((partition, event))
    }
}

/// Says it, in one write that nothing buffers.
pub fn say(partition: u32, event: Event) {
    let mut line = event.text(partition);
    line.push('\n');
    // Standard output is line buffered at most, so a whole line is one write.
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// What a log may be after a crash.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Batches in order; what is in the log is a prefix of those at or past its start.
    pub batches: Vec<Described>,
    /// Everything below is there.
    pub durable: i64,
    /// The start as it was last made durable.
    pub start: i64,
    /// The start may have moved up to here.
    pub start_max: i64,
    /// A truncation to here may have happened or not.
    pub truncating: Option<i64>,
    /// A reset to here may have happened or not.
    pub resetting: Option<i64>,
    failed: bool,
}

impl Model {
    /// End of the log if everything that was begun has happened, truncations excepted.
    pub fn end(&self) -> i64 {
        self.batches.last().map_or(self.start_max, Described::next)
    }

    /// Where the batch begins that holds `offset`.
    fn boundary(&self, offset: i64) -> i64 {
        let holds = |b: &&Described| b.base <= offset && offset < b.next();
        self.batches.iter().find(holds).map_or(offset, |b| b.base)
    }

    /// The least end that is legal.
    pub fn least_end(&self) -> i64 {
        match self.truncating {
            Some(to) => self.durable.min(self.boundary(to).max(self.start)),
            None => self.durable,
        }
    }

    /// Whether a log from `start` to `end` is legal; why not.
    pub fn judge(&self, start: i64, end: i64) -> Result<(), String> {
        if self.resetting == Some(end) && start == end {
            return Ok(());
        }
        if end < self.least_end() {
            return Err(format!(
                "LOST: it ends at {end}, and everything below {} was acknowledged",
                self.least_end()
            ));
        }
        if start < self.start || start > self.start_max.max(self.start) {
            return Err(format!(
                "it starts at {start}, not within {} and {}",
                self.start, self.start_max
            ));
        }
        let known = self.batches.iter().any(|b| b.next() == end);
        if !known && end != start && end != self.start {
            return Err(format!("it ends at {end}, where no batch ended"));
        }
        Ok(())
    }

    fn cut(&mut self, end: i64) {
        self.batches.retain(|b| b.next() <= end);
        if self.batches.last().is_some_and(|b| b.next() != end) {
            // Within the batch that holds the log's start: the log is empty there, as after a reset.
            self.batches.clear();
        }
        self.durable = self.durable.min(end);
        (self.truncating, self.resetting) = (None, None);
    }

    /// Takes in one line.
    ///
    /// # Errors
    /// What the log did that it must not.
    pub fn take(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Open { start, end } => {
                self.judge(start, end)?;
                self.cut(end);
                (self.start, self.start_max) = (start, start);
                (self.durable, self.failed) = (end, false);
            }
            Event::Append(batch) => self.batches.push(batch),
            Event::Acked(end) => {
                if self.failed && end > self.durable {
                    return Err(format!("acknowledged {end} after it had failed"));
                }
                if end > self.end() {
                    return Err(format!("acknowledged {end}, past its end {}", self.end()));
                }
                self.durable = self.durable.max(end);
            }
            Event::Truncate(to) => self.truncating = Some(to),
            Event::Reset(to) => self.resetting = Some(to),
            Event::End(end) => {
                if self.resetting.is_some() {
                    self.batches.clear();
                    (self.start, self.start_max) = (end, end);
                }
                self.cut(end);
                if self.resetting.is_none() && self.batches.is_empty() {
                    self.durable = end;
                }
            }
            Event::Trim(to) => self.start_max = self.start_max.max(to),
            Event::Start(start) => {
                if start < self.start || start > self.start_max {
                    return Err(format!("the start moved to {start}"));
                }
                (self.start, self.start_max) = (start, start);
            }
            Event::Failed => self.failed = true,
            Event::Closed => {}
        }
        Ok(())
    }
}
