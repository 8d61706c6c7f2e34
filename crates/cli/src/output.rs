//! How management commands print: tables for people, the JSON form of the API's messages for programs.

use std::io::Write as _;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

use crate::failure::{FAILED, Failure};

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// A table.
    #[default]
    Text,
    /// A table with more columns.
    Wide,
    /// Protobuf JSON of the response.
    Json,
    /// The same as YAML.
    Yaml,
}

impl Output {
    /// Whether a table is wanted.
    #[must_use]
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Wide)
    }
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
        .ok_or_else(|| wrong("no such message".to_owned()))?;
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
    let mut stdout = std::io::stdout().lock();
    if output == Output::Yaml {
        let mut text = String::new();
        yaml(value, 0, &mut text);
        stdout.write_all(text.trim_start_matches('\n').as_bytes())?;
    } else {
        serde_json::to_writer_pretty(&mut stdout, value).map_err(std::io::Error::from)?;
    }
    writeln!(stdout)?;
    Ok(())
}

/// Block style; strings are quoted as in JSON, which is YAML too.
fn yaml(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                out.push('\n');
                out.push_str(&indent);
                out.push_str(key);
                out.push(':');
                yaml_inner(value, depth + 1, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                out.push('\n');
                out.push_str(&indent);
                out.push('-');
                yaml_inner(item, depth + 1, out);
            }
        }
        other => out.push_str(&other.to_string()),
    }
}

fn yaml_inner(value: &Value, depth: usize, out: &mut String) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if !nested {
        out.push(' ');
    }
    yaml(value, depth, out);
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
    let mut stdout = std::io::stdout().lock();
    for line in table.to_string().lines() {
        writeln!(stdout, "{}", line.trim())?;
    }
    Ok(())
}

/// Prints one line.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_line(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{line}")?;
    Ok(())
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
    fn yaml_is_block_style() {
        let value = serde_json::json!({"a": 1, "b": [{"c": "x"}, "y"], "d": {}, "e": []});
        let mut text = String::new();
        yaml(&value, 0, &mut text);
        assert_eq!(
            text,
            "\na: 1\nb:\n  -\n    c: \"x\"\n  - \"y\"\nd: {}\ne: []"
        );
    }
}
