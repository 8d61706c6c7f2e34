//! The storage engine against this machine, in one table: `cargo bench -p varve-benches --bench storage`.
//!
//! Each row alternates the floor (the same bytes by plain system calls) and ours on the same disk, and prints the
//! median of the ratios round by round. Shares are of throughput, or of latency turned over, so that 1.00 is the floor
//! and more is better. `-- --help` lists the options.

mod append;
mod compaction;
mod groups;
mod log;
mod read;
mod recovery;
mod scan;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Parser;
use varve_benches::stats::median;

/// Storage against the floor of this machine.
#[derive(Debug, Parser)]
struct Args {
    /// Rows whose name contains one of these words; all without any.
    rows: Vec<String>,
    /// Rounds of floor and ours for each row.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// MiB written or read per round.
    #[arg(long, default_value_t = 512)]
    mib: usize,
    /// Numbers of partitions for group commit; the last is also compared with the first.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 1000])]
    partitions: Vec<usize>,
    /// GiB of old segments that a reader scans while appends go on.
    #[arg(long, default_value_t = 4)]
    scan_gib: usize,
    /// Where; else `$VARVE_BENCH_DIR`, else a temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Shape of the result.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// One small round of everything, to see that it works: what `cargo test --benches` runs.
    #[arg(long)]
    test: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A Markdown table.
    Table,
    /// One JSON document.
    Json,
}

/// One line of the table.
struct Row {
    name: String,
    unit: &'static str,
    /// Medians over the rounds.
    floor: f64,
    ours: f64,
    /// Median of the ratios of the rounds, 1.0 for level with the floor, more is better.
    share: f64,
    /// What is asked of the share.
    target: Option<f64>,
}

/// What a round has measured.
#[derive(Clone, Copy)]
struct Round {
    floor: f64,
    ours: f64,
}

/// Whether a larger figure is the better one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

impl Row {
    fn new(name: impl Into<String>, unit: &'static str, better: Better, rounds: &[Round]) -> Self {
        let ratio = |r: &Round| match better {
            Better::More => r.ours / r.floor,
            Better::Less => r.floor / r.ours,
        };
        let all =
            |pick: &dyn Fn(&Round) -> f64| median(&rounds.iter().map(pick).collect::<Vec<_>>());
        Self {
            name: name.into(),
            unit,
            floor: all(&|r| r.floor),
            ours: all(&|r| r.ours),
            share: all(&ratio),
            target: None,
        }
    }

    const fn target(mut self, share: f64) -> Self {
        self.target = Some(share);
        self
    }
}

/// What a group of rows is given.
struct Bench<'a> {
    dir: &'a Path,
    rounds: usize,
    bytes: usize,
    partitions: &'a [usize],
    scan_bytes: u64,
    quick: bool,
    wanted: &'a [String],
}

impl Bench<'_> {
    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|w| name.contains(w.as_str()))
    }

    /// A fresh directory below the bench's own.
    fn fresh(&self, name: &str) -> Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix(name).tempdir_in(self.dir)?)
    }

    /// Alternates floor and ours; which one is first changes from round to round.
    fn rounds(
        &self,
        mut floor: impl FnMut() -> Result<f64>,
        mut ours: impl FnMut() -> Result<f64>,
    ) -> Result<Vec<Round>> {
        let mut rounds = Vec::new();
        for n in 0..self.rounds {
            // What earlier rounds have left to write is not charged to this one.
            rustix::fs::sync();
            rounds.push(if n % 2 == 0 {
                let floor = floor()?;
                rustix::fs::sync();
                Round {
                    floor,
                    ours: ours()?,
                }
            } else {
                let ours = ours()?;
                rustix::fs::sync();
                Round {
                    floor: floor()?,
                    ours,
                }
            });
        }
        Ok(rounds)
    }
}

type Group = fn(&Bench<'_>) -> Result<Vec<Row>>;

const GROUPS: [(&str, Group); 6] = [
    ("append", append::append),
    ("group commit", groups::rows),
    ("read", read::rows),
    ("recovery", recovery::rows),
    ("compaction", compaction::rows),
    ("scan", scan::rows),
];

fn main() -> Result<()> {
    varve_benches::tell_profile();
    let args = Args::parse();
    let home = match args
        .dir
        .clone()
        .or_else(|| std::env::var_os("VARVE_BENCH_DIR").map(Into::into))
    {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let bench = Bench {
        dir: home.path(),
        rounds: if args.test { 1 } else { args.rounds.max(1) },
        bytes: if args.test { 4 << 20 } else { args.mib << 20 },
        partitions: if args.test { &[2, 5] } else { &args.partitions },
        scan_bytes: if args.test {
            8 << 20
        } else {
            (args.scan_gib as u64) << 30
        },
        quick: args.test,
        wanted: &args.rows,
    };
    let mut rows = Vec::new();
    for (name, group) in GROUPS {
        if bench.wants(name) {
            eprintln!("measuring {name} ...");
            rows.extend(group(&bench)?);
        }
    }
    if rows.is_empty() {
        let names = GROUPS.map(|(name, _)| name).join(", ");
        bail!("no rows of that name; there are: {names}");
    }
    if args.output == Output::Json {
        println!("{}", json(&rows));
    } else {
        table(&rows);
    }
    Ok(())
}

fn table(rows: &[Row]) {
    println!("| what | floor | varve | unit | share | target |");
    println!("| --- | ---: | ---: | --- | ---: | ---: |");
    for row in rows {
        let target = row.target.map_or(String::new(), |t| format!("{t:.2}"));
        println!(
            "| {} | {} | {} | {} | {:.2} | {target} |",
            row.name,
            figure(row.floor),
            figure(row.ours),
            row.unit,
            row.share,
        );
    }
}

/// Three significant digits or so.
fn figure(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn json(rows: &[Row]) -> serde_json::Value {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "name": row.name,
                "unit": row.unit,
                "floor": row.floor,
                "varve": row.ours,
                "share": row.share,
                "target": row.target,
            })
        })
        .collect();
    serde_json::json!({ "rows": rows })
}
