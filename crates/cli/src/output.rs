//! How management commands print: tables for people, the JSON form of the API's messages for programs.
//!
//! Invariants: a command prints one JSON or YAML document, also about several things: a list of them then. A cell of a
//! table never holds an error: [`print_remarks`] puts those below it.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

use crate::failure::{FAILED, Failure};

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// A table.
    #[default]
    Text,
    /// A table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Output {
    /// Whether a table is wanted.
    #[must_use]
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Wide)
    }
}

/// What was printed, while a caller compares it first.
static CAPTURED: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// Keeps what is printed from here on.
pub fn capture() {
    *CAPTURED.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
}

/// Prints to standard output again, and gives what was kept.
#[must_use]
pub fn captured() -> Vec<u8> {
    let mut captured = CAPTURED.lock().unwrap_or_else(PoisonError::into_inner);
    captured.take().unwrap_or_default()
}

/// Prints a text as it is.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_text(text: &str) -> Result<(), Failure> {
    let mut captured = CAPTURED.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *captured {
        Some(kept) => kept.extend_from_slice(text.as_bytes()),
        None => write_out(text.as_bytes())?,
    }
    Ok(())
}

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written.
pub fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let written = std::io::stdout().lock().write_all(bytes);
    written.map_err(|error| Failure::unprinted(&error))
}

/// Brings out what standard output still buffers.
///
/// # Errors
/// When it cannot be written.
pub fn flush() -> Result<(), Failure> {
    let flushed = std::io::stdout().lock().flush();
    flushed.map_err(|error| Failure::unprinted(&error))
}

/// Protobuf JSON of a message of the API.
///
/// # Errors
/// When the message is not in the schema that was compiled in.
pub fn to_json<M: Message>(name: &str, message: &M) -> Result<Value, Failure> {
    let wrong = |error: String| Failure::new(FAILED, format!("varve.v1.{name}: {error}"));
    let pool = DescriptorPool::decode(varve_proto::FILE_DESCRIPTOR_SET)
        .map_err(|error| wrong(error.to_string()))?;
    let descriptor = pool
        .get_message_by_name(&format!("varve.v1.{name}"))
        .ok_or_else(|| wrong("the schema has no such message".to_owned()))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|error| wrong(error.to_string()))?;
    let options = SerializeOptions::new().skip_default_fields(false);
    dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| wrong(error.to_string()))
}

/// Prints a message in a form for programs.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_message<M: Message>(output: Output, name: &str, message: &M) -> Result<(), Failure> {
    print_value(output, &to_json(name, message)?)
}

/// Prints a value in a form for programs.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_value(output: Output, value: &Value) -> Result<(), Failure> {
    let mut text = String::new();
    if output == Output::Yaml {
        yaml(value, 0, &mut text);
    } else {
        text = serde_json::to_string_pretty(value).map_err(std::io::Error::from)?;
        text.push('\n');
    }
    print_text(&text)
}

/// Prints one document about everything that was asked for: one value as it is, several as a list.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_values(output: Output, mut values: Vec<Value>) -> Result<(), Failure> {
    match values.len() {
        1 => print_value(output, &values.remove(0)),
        _ => print_value(output, &Value::Array(values)),
    }
}

/// What was done to one thing after the other: a line for each, or one document about all of them at the end.
#[derive(Debug)]
pub struct Done {
    output: Output,
    quiet: bool,
    all: Vec<Value>,
}

impl Done {
    /// Nothing yet. `quiet`: print nothing for people.
    #[must_use]
    pub const fn new(output: Output, quiet: bool) -> Self {
        Self {
            output,
            quiet,
            all: Vec::new(),
        }
    }

    /// One more, and what became of it, such as "deleted".
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn add(&mut self, name: impl Into<String>, outcome: &str) -> Result<(), Failure> {
        let name = name.into();
        if !self.output.is_text() {
            self.all
                .push(serde_json::json!({ "name": name, "outcome": outcome }));
        } else if !self.quiet {
            print_line(&format!("{name}: {outcome}"))?;
        }
        Ok(())
    }

    /// Prints the document, always as a list. Also to be called when a later thing failed.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn end(self) -> Result<u8, Failure> {
        if !self.output.is_text() {
            print_value(self.output, &Value::Array(self.all))?;
        }
        Ok(0)
    }
}

/// Lines of block style, each with its end.
fn yaml(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                out.push_str(&indent);
                out.push_str(&scalar(&Value::String(key.clone())));
                out.push(':');
                if is_nested(value) {
                    out.push('\n');
                    yaml(value, depth + 1, out);
                } else {
                    out.push_str(&format!(" {}\n", scalar(value)));
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                // The item's first line takes the dash in the place of its indent.
                let mut inner = String::new();
                yaml(item, depth + 1, &mut inner);
                out.push_str(&indent);
                out.push_str("- ");
                out.push_str(inner.get(indent.len() + 2..).unwrap_or_default());
            }
        }
        other => out.push_str(&format!("{indent}{}\n", scalar(other))),
    }
}

fn is_nested(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// A value on one line; texts that YAML could read as something else are quoted as in JSON, which is YAML too.
fn scalar(value: &Value) -> String {
    const WORDS: [&str; 10] = [
        "true", "false", "null", "yes", "no", "on", "off", "y", "n", "~",
    ];
    let is_plain = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
            && !WORDS.contains(&text.to_ascii_lowercase().as_str())
    };
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Prints rows under headings, columns aligned.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_table(headings: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_header(headings.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim());
        text.push('\n');
    }
    print_text(&text)
}

/// Prints what is wrong below a table, each about something that its rows name.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_remarks(remarks: &[(String, String)]) -> Result<(), Failure> {
    if remarks.is_empty() {
        return Ok(());
    }
    print_line("")?;
    for (about, remark) in remarks {
        print_line(&format!("{about}: {remark}"))?;
    }
    Ok(())
}

/// Prints one line.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_line(line: &str) -> Result<(), Failure> {
    print_text(&format!("{line}\n"))
}

/// A list of numbers with commas.
#[must_use]
pub fn numbers(list: &[i32]) -> String {
    list.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use varve_client::proto as v1;

    #[test]
    fn messages_print_as_the_schema_says() {
        let topic = v1::Topic {
            name: "orders".to_owned(),
            ..Default::default()
        };
        let response = v1::GetTopicResponse { topic: Some(topic) };
        let json = to_json("GetTopicResponse", &response).unwrap();
        assert_eq!(json["topic"]["name"], "orders");
        assert_eq!(json["topic"]["partitionCount"], 0);
        assert_eq!(json["topic"]["partitioner"], "PARTITIONER_UNSPECIFIED");
        let partition = v1::Partition {
            high_watermark: 1 << 60,
            ..Default::default()
        };
        let json = to_json("Partition", &partition).unwrap();
        assert_eq!(json["highWatermark"], "1152921504606846976");
        assert!(to_json("Nonsense", &partition).is_err());
    }

    #[test]
    fn yaml_is_as_people_write_it() {
        let value = serde_json::json!({
            "a": 1,
            "b": [{"c": "x", "d": [1, 2]}, "y z", [3, [4]], {}],
            "e": {"f": {"g": "no"}},
            "h": [],
            "7": "1e3",
            "i": "a: b",
            "j": null,
        });
        let mut text = String::new();
        yaml(&value, 0, &mut text);
        let expected = "\"7\": \"1e3\"\na: 1\nb:\n  - c: x\n    d:\n      - 1\n      - 2\n  - \"y z\"\n  - - 3\n    - - 4\n  \
                        - {}\ne:\n  f:\n    g: \"no\"\nh: []\ni: \"a: b\"\nj: null\n";
        assert_eq!(text, expected);
        let mut list = String::new();
        yaml(&serde_json::json!([{"a": 1, "b": 2}]), 0, &mut list);
        assert_eq!(list, "- a: 1\n  b: 2\n");
    }
}
