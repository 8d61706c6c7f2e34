//! The table of a run: each figure with its median and its worst round beside what is asked.

use serde_json::json;
use varve_benches::stats::median;

/// Shape of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A table.
    Table,
    /// One JSON object a line.
    Json,
}

/// Which way a figure is good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Asked {
    AtMost(f64),
    AtLeast(f64),
    Nothing,
}

/// One figure, once a round.
#[derive(Debug)]
pub struct Row {
    what: String,
    unit: &'static str,
    asked: Asked,
    figures: Vec<f64>,
}

impl Row {
    pub fn new(what: impl Into<String>, unit: &'static str, asked: Asked) -> Self {
        Self {
            what: what.into(),
            unit,
            asked,
            figures: Vec::new(),
        }
    }

    pub fn push(&mut self, figure: f64) {
        self.figures.push(figure);
    }

    /// The round that is furthest from what is asked; the largest where nothing is.
    fn worst(&self) -> f64 {
        let figures = self.figures.iter().copied();
        match self.asked {
            Asked::AtLeast(_) => figures.fold(f64::INFINITY, f64::min),
            Asked::AtMost(_) | Asked::Nothing => figures.fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

/// Prints all rows that have a figure.
pub fn print(rows: &[Row], output: Output) {
    let rows = rows.iter().filter(|row| !row.figures.is_empty());
    if output == Output::Json {
        for row in rows {
            let (direction, asked) = match row.asked {
                Asked::AtMost(asked) => (Some("at_most"), Some(asked)),
                Asked::AtLeast(asked) => (Some("at_least"), Some(asked)),
                Asked::Nothing => (None, None),
            };
            let line = json!({
                "what": row.what, "unit": row.unit, "rounds": row.figures.len(),
                "median": median(&row.figures), "worst": row.worst(), "all": row.figures,
                "direction": direction, "asked": asked,
            });
            println!("{line}");
        }
        return;
    }
    println!("| what | unit | median | worst | rounds | asked |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    for row in rows {
        let asked = match row.asked {
            Asked::AtMost(asked) => format!("<= {asked}"),
            Asked::AtLeast(asked) => format!(">= {asked}"),
            Asked::Nothing => String::new(),
        };
        println!(
            "| {} | {} | {:.2} | {:.2} | {} | {asked} |",
            row.what,
            row.unit,
            median(&row.figures),
            row.worst(),
            row.figures.len()
        );
    }
}
