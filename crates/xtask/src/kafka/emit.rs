//! Writes Rust from the message tables: one file for each API, and one with the lists of all of them.
//! The text is laid out here and left alone by rustfmt.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::parse::{Api, Field, Kind, Struct, Versions, used};

/// One line of the output. Writing to a string cannot fail.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{
        let _ = writeln!($out, $($arg)*);
    }};
}

/// The file of one API.
///
/// # Errors
/// When the table does not hold together.
pub fn module(api: &Api) -> Result<String, String> {
    let used = used(api)?;
    let least = least_sizes(api, &used);
    let mut out = String::new();
    line!(
        out,
        "//! @generated from `messages/{}.txt` by `cargo xtask kafka`: do not edit.",
        api.module
    );
    line!(out, "//!");
    line!(out, "//! `{}`, {}.", api.name, words(api.versions));
    line!(out, "");
    let all = &api.structs;
    let any = |kind: &Kind| all.iter().any(|s| s.fields.iter().any(|f| f.kind == *kind));
    if any(&Kind::Bytes) {
        line!(out, "use bytes::Bytes;");
        line!(out, "");
    }
    let mut names = vec!["EncodeError", "Source", "Wire", "Writer"];
    if any(&Kind::String) {
        names.push("Text");
    }
    if any(&Kind::Uuid) {
        names.push("Uuid");
    }
    names.sort_unstable();
    line!(out, "use crate::wire::codec::{{{}}};", names.join(", "));
    for part in all {
        let versions = &used[&part.name];
        definition(&mut out, api, part, versions);
        if !has_natural_defaults(part) {
            default(&mut out, part);
        }
        line!(out, "\nimpl Wire for {} {{", part.name);
        line!(out, "    const LEAST_BYTES: usize = {};", least[&part.name]);
        read(&mut out, api, part);
        write(&mut out, api, part);
        line!(out, "}}");
    }
    Ok(out)
}

/// `versions 0 to 13`.
fn words(versions: Versions) -> String {
    if versions.first == versions.last {
        format!("version {}", versions.first)
    } else {
        format!("versions {} to {}", versions.first, versions.last)
    }
}

fn definition(out: &mut String, api: &Api, part: &Struct, versions: &[i16]) {
    let (first, last) = (versions.iter().min(), versions.iter().max());
    let range = Versions {
        first: first.copied().unwrap_or_default(),
        last: last.copied().unwrap_or_default(),
    };
    line!(
        out,
        "\n/// {} of `{}`, {}.",
        part.role,
        api.name,
        words(range)
    );
    let derived = if has_natural_defaults(part) {
        ", Default"
    } else {
        ""
    };
    line!(out, "#[derive(Debug, Clone, PartialEq, Eq{derived})]");
    line!(out, "pub struct {} {{", part.name);
    for field in &part.fields {
        let mut doc = words(field.versions).replacen('v', "V", 1);
        if let Some(tag) = field.tag {
            let _ = write!(doc, ", tagged {tag}");
        }
        match field.nullable {
            Some(null) if null == field.versions => doc.push_str(", may be null"),
            Some(null) => {
                let _ = write!(doc, ", may be null in {}", words(null));
            }
            None => {}
        }
        line!(out, "    /// {doc}.");
        line!(out, "    pub {}: {},", field.name, rust_type(field));
    }
    line!(out, "}}");
}

fn rust_type(field: &Field) -> String {
    let one = match &field.kind {
        Kind::Bool => "bool",
        Kind::Int8 => "i8",
        Kind::Int16 => "i16",
        Kind::Uint16 => "u16",
        Kind::Int32 => "i32",
        Kind::Int64 => "i64",
        Kind::Uuid => "Uuid",
        Kind::String => "Text",
        Kind::Bytes => "Bytes",
        Kind::Struct(name) => name,
    };
    let many = if field.array {
        format!("Vec<{one}>")
    } else {
        one.to_owned()
    };
    if field.nullable.is_some() {
        format!("Option<{many}>")
    } else {
        many
    }
}

/// The value that a field has when nobody sets it.
fn default_value(field: &Field) -> String {
    if field.nullable.is_some() {
        return "None".into();
    }
    if field.array {
        return "Vec::new()".into();
    }
    match (&field.kind, &field.default) {
        (_, Some(value)) => value.clone(),
        (Kind::Bool, None) => "false".into(),
        (Kind::Int8 | Kind::Int16 | Kind::Uint16 | Kind::Int32 | Kind::Int64, None) => "0".into(),
        (Kind::Uuid, None) => "Uuid::ZERO".into(),
        (Kind::String, None) => "Text::EMPTY".into(),
        (Kind::Bytes, None) => "Bytes::new()".into(),
        (Kind::Struct(name), None) => format!("{name}::default()"),
    }
}

/// Whether a field has its default value.
fn is_default(field: &Field) -> String {
    let place = format!("self.{}", field.name);
    if field.nullable.is_some() {
        return format!("{place}.is_none()");
    }
    match (&field.kind, field.array) {
        (_, true) | (Kind::String | Kind::Bytes, false) => format!("{place}.is_empty()"),
        (Kind::Bool, false) if field.default.as_deref() == Some("true") => place,
        (Kind::Bool, false) => format!("!{place}"),
        _ => format!("{place} == {}", default_value(field)),
    }
}

/// Whether every field's default is that of its type.
fn has_natural_defaults(part: &Struct) -> bool {
    part.fields.iter().all(|field| field.default.is_none())
}

fn default(out: &mut String, part: &Struct) {
    line!(out, "\nimpl Default for {} {{", part.name);
    line!(out, "    fn default() -> Self {{");
    line!(out, "        Self {{");
    for field in &part.fields {
        line!(out, "            {}: {},", field.name, default_value(field));
    }
    line!(out, "        }}");
    line!(out, "    }}");
    line!(out, "}}");
}

/// The condition on `version` under which `within` holds, given that `outer` does; empty when always.
fn condition(within: Versions, outer: Versions) -> String {
    let first = within.first > outer.first;
    let last = within.last < outer.last;
    match (first, last) {
        (false, false) => String::new(),
        _ if within.first == within.last => format!("version == {}", within.first),
        (true, false) => format!("version >= {}", within.first),
        (false, true) => format!("version <= {}", within.last),
        (true, true) => format!("({}..={}).contains(&version)", within.first, within.last),
    }
}

/// Whether the code of a struct asks for the version.
fn asks_version(part: &Struct, api: &Api) -> bool {
    part.fields.iter().any(|field| {
        let null = field.nullable.unwrap_or(field.versions);
        !condition(field.versions, api.versions).is_empty()
            || !condition(null, field.versions).is_empty()
    })
}

/// The method of source and writer for a field, and whether it wants to know if null is allowed.
fn method(field: &Field) -> (&'static str, bool) {
    let null = field.nullable.is_some();
    let name = match (&field.kind, field.array, null) {
        (_, true, false) => "array",
        (_, true, true) => "array_or_null",
        (Kind::Bool, ..) => "boolean",
        (Kind::Int8, ..) => "int8",
        (Kind::Int16, ..) => "int16",
        (Kind::Uint16, ..) => "uint16",
        (Kind::Int32, ..) => "int32",
        (Kind::Int64, ..) => "int64",
        (Kind::Uuid, ..) => "uuid",
        (Kind::String, _, false) => "string",
        (Kind::String, _, true) => "string_or_null",
        (Kind::Bytes, _, false) => "bytes",
        (Kind::Bytes, _, true) => "bytes_or_null",
        (Kind::Struct(_), _, false) => "structure",
        (Kind::Struct(_), _, true) => "structure_or_null",
    };
    (name, null)
}

/// The third argument of methods that know null: the condition under which it is allowed.
fn null_argument(field: &Field) -> String {
    let null = field.nullable.map(|null| condition(null, field.versions));
    match null {
        None => String::new(),
        Some(condition) if condition.is_empty() => ", true".into(),
        Some(condition) => format!(", {condition}"),
    }
}

fn read(out: &mut String, api: &Api, part: &Struct) {
    let tagged: Vec<&Field> = part.fields.iter().filter(|f| f.tag.is_some()).collect();
    line!(
        out,
        "\n    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {{"
    );
    if asks_version(part, api) {
        line!(out, "        let version = s.version();");
    }
    let mutable = if tagged.is_empty() { "" } else { "mut " };
    line!(out, "        let {mutable}m = Self {{");
    for field in &part.fields {
        let (name, _) = method(field);
        let when = condition(field.versions, api.versions);
        let call = format!("s.{name}(\"{}\"{})?", field.name, null_argument(field));
        let (field, default) = (&field.name, default_value(field));
        if tagged.iter().any(|f| f.name == *field) {
            line!(out, "            {field}: {default},");
        } else if when.is_empty() {
            line!(out, "            {field}: {call},");
        } else {
            line!(
                out,
                "            {field}: if {when} {{ {call} }} else {{ {default} }},"
            );
        }
    }
    line!(out, "        }};");
    if tagged.is_empty() {
        line!(out, "        s.tags(&[], |_, _| Ok(false))?;");
    } else {
        let tags: Vec<String> = tagged
            .iter()
            .filter_map(|f| f.tag)
            .map(|t| t.to_string())
            .collect();
        line!(out, "        s.tags(&[{}], |s, tag| {{", tags.join(", "));
        line!(out, "            match tag {{");
        for field in tagged {
            let (name, _) = method(field);
            let (tag, null) = (field.tag.unwrap_or_default(), null_argument(field));
            let when = condition(field.versions, api.versions);
            let when = if when.is_empty() {
                when
            } else {
                format!(" if {when}")
            };
            line!(
                out,
                "                {tag}{when} => m.{0} = s.{name}(\"{0}\"{null})?,",
                field.name
            );
        }
        line!(out, "                _ => return Ok(false),");
        line!(out, "            }}");
        line!(out, "            Ok(true)");
        line!(out, "        }})?;");
    }
    line!(out, "        Ok(m)");
    line!(out, "    }}");
}

fn guarded(out: &mut String, depth: usize, condition: &str, call: &str) {
    let pad = "    ".repeat(depth);
    if condition.is_empty() {
        line!(out, "{pad}{call}");
    } else {
        line!(out, "{pad}if {condition} {{");
        line!(out, "{pad}    {call}");
        line!(out, "{pad}}}");
    }
}

fn put(field: &Field, writer: &str) -> String {
    let (name, _) = method(field);
    let by_value = matches!(
        field.kind,
        Kind::Bool
            | Kind::Int8
            | Kind::Int16
            | Kind::Uint16
            | Kind::Int32
            | Kind::Int64
            | Kind::Uuid
    ) && !field.array;
    let borrow = if by_value { "" } else { "&" };
    let null = null_argument(field);
    let value = match (field.nullable.is_some(), field.array) {
        (true, true) => format!("self.{}.as_deref()", field.name),
        (true, false) => format!("self.{}.as_ref()", field.name),
        (false, _) => format!("{borrow}self.{}", field.name),
    };
    if by_value {
        format!("{writer}.{name}({value})")
    } else {
        format!("{writer}.{name}(\"{}\", {value}{null})?", field.name)
    }
}

fn write(out: &mut String, api: &Api, part: &Struct) {
    line!(
        out,
        "\n    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {{"
    );
    if asks_version(part, api) {
        line!(out, "        let version = w.version();");
    }
    for field in &part.fields {
        let when = condition(field.versions, api.versions);
        let checked = !field.ignorable && !when.is_empty();
        let check = format!(
            "w.must_be_default(\"{}\", {})?;",
            field.name,
            is_default(field)
        );
        match (field.tag, checked) {
            (None, false) => guarded(out, 2, &when, &format!("{};", put(field, "w"))),
            (None, true) => {
                line!(out, "        if {when} {{");
                line!(out, "            {};", put(field, "w"));
                line!(out, "        }} else {{");
                line!(out, "            {check}");
                line!(out, "        }}");
            }
            (Some(_), false) => {}
            // Tagged fields stay once they are there.
            (Some(_), true) => {
                guarded(
                    out,
                    2,
                    &format!("version < {}", field.versions.first),
                    &check,
                );
            }
        }
    }
    tags(out, api, part);
    line!(out, "        Ok(())");
    line!(out, "    }}");
}

fn tags(out: &mut String, api: &Api, part: &Struct) {
    let tagged: Vec<&Field> = part.fields.iter().filter(|f| f.tag.is_some()).collect();
    if tagged.is_empty() {
        line!(out, "        w.tag_count(0);");
        return;
    }
    for (at, field) in tagged.iter().enumerate() {
        let when = condition(field.versions, api.versions);
        let present = match is_default(field) {
            text if text.contains(" == ") => text.replacen(" == ", " != ", 1),
            text if text.ends_with(".is_none()") => text.replace(".is_none()", ".is_some()"),
            text => text
                .strip_prefix('!')
                .map_or_else(|| format!("!{text}"), str::to_owned),
        };
        let present = if when.is_empty() {
            present
        } else {
            format!("{when} && {present}")
        };
        line!(out, "        let tag_{at} = {present};");
    }
    let sum: Vec<String> = (0..tagged.len())
        .map(|at| format!("u32::from(tag_{at})"))
        .collect();
    line!(out, "        w.tag_count({});", sum.join(" + "));
    for (at, field) in tagged.iter().enumerate() {
        let put = put(field, "w");
        let body = match put.strip_suffix('?') {
            Some(fallible) => fallible.to_owned(),
            None => format!("{{ {put}; Ok(()) }}"),
        };
        let tag = field.tag.unwrap_or_default();
        guarded(
            out,
            2,
            &format!("tag_{at}"),
            &format!("w.tag({tag}, |w| {body})?;"),
        );
    }
}

/// The fewest bytes that each struct can take, over all versions in which it is used.
fn least_sizes(api: &Api, used: &BTreeMap<String, Vec<i16>>) -> BTreeMap<String, usize> {
    let sizes = api.structs.iter().map(|part| {
        let sizes = used[&part.name].iter().map(|v| least(api, part, *v));
        (part.name.clone(), sizes.min().unwrap_or_default().max(1))
    });
    sizes.collect()
}

fn least(api: &Api, part: &Struct, version: i16) -> usize {
    let flexible = api.is_flexible(version);
    let length = |plain: usize| if flexible { 1 } else { plain };
    let fields = part
        .fields
        .iter()
        .filter(|f| f.tag.is_none() && f.versions.has(version))
        .map(|field| match (&field.kind, field.array) {
            (_, true) => length(4),
            (Kind::Bool | Kind::Int8, _) => 1,
            (Kind::Int16 | Kind::Uint16, _) => 2,
            (Kind::Int32, _) => 4,
            (Kind::Int64, _) => 8,
            (Kind::Uuid, _) => 16,
            (Kind::String, _) => length(2),
            (Kind::Bytes, _) => length(4),
            // Null is one byte.
            (Kind::Struct(_), _) if field.nullable.is_some_and(|null| null.has(version)) => 1,
            (Kind::Struct(name), _) => api.get(name).map_or(0, |inner| least(api, inner, version)),
        });
    fields.sum::<usize>() + usize::from(flexible)
}

/// The file with the lists of all APIs.
pub fn index(apis: &[Api]) -> String {
    let mut out = String::new();
    line!(
        out,
        "//! @generated from `messages` by `cargo xtask kafka`: do not edit."
    );
    line!(out, "//!");
    line!(
        out,
        "//! Every API that has a table, with its key and versions, and one type over all requests and responses."
    );
    line!(out, "");
    for api in sorted(apis) {
        line!(out, "pub mod {};", api.module);
    }
    line!(
        out,
        "\nuse crate::wire::codec::{{EncodeError, Source, Wire, Writer}};"
    );
    line!(
        out,
        "\n/// A kind of request, by the name that the protocol gives it."
    );
    line!(
        out,
        "#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]"
    );
    line!(out, "pub enum ApiKey {{");
    for api in apis {
        line!(out, "    /// Key {}, {}.", api.key, words(api.versions));
        line!(out, "    {} = {},", api.name, api.key);
    }
    line!(out, "}}");
    line!(out, "\nimpl ApiKey {{");
    line!(out, "    /// All of them, by key.");
    line!(out, "    pub const ALL: &[Self] = &[");
    for api in apis {
        line!(out, "        Self::{},", api.name);
    }
    line!(out, "    ];");
    line!(out, "\n    /// The name in the protocol's documents.");
    table(&mut out, "name", "&'static str", apis, |api| {
        format!("\"{}\"", api.name)
    });
    line!(out, "\n    /// The name of its request, for errors.");
    table(&mut out, "request_name", "&'static str", apis, |api| {
        format!("\"{}Request\"", api.name)
    });
    line!(out, "\n    /// The name of its response, for errors.");
    table(&mut out, "response_name", "&'static str", apis, |api| {
        format!("\"{}Response\"", api.name)
    });
    line!(out, "\n    /// The oldest version that has a table.");
    table(&mut out, "first_version", "i16", apis, |api| {
        api.versions.first.to_string()
    });
    line!(out, "\n    /// The newest version that has a table.");
    table(&mut out, "last_version", "i16", apis, |api| {
        api.versions.last.to_string()
    });
    line!(
        out,
        "\n    /// The first version with compact lengths and tagged fields; `None`: no version has them."
    );
    table(&mut out, "flexible_from", "Option<i16>", apis, |api| {
        api.flexible
            .map_or_else(|| "None".into(), |first| format!("Some({first})"))
    });
    line!(
        out,
        "\n    /// The API of a key; `None` when there is no table for it."
    );
    line!(out, "    #[must_use]");
    line!(
        out,
        "    pub const fn from_key(key: i16) -> Option<Self> {{"
    );
    line!(out, "        Some(match key {{");
    for api in apis {
        line!(out, "            {} => Self::{},", api.key, api.name);
    }
    line!(out, "            _ => return None,");
    line!(out, "        }})");
    line!(out, "    }}");
    line!(out, "}}");
    for (message, what) in [("Request", "asks"), ("Response", "answers")] {
        messages(&mut out, apis, message, what);
    }
    out
}

fn sorted(apis: &[Api]) -> Vec<&Api> {
    let mut sorted: Vec<&Api> = apis.iter().collect();
    sorted.sort_by(|a, b| a.module.cmp(&b.module));
    sorted
}

fn table(out: &mut String, name: &str, of: &str, apis: &[Api], value: impl Fn(&Api) -> String) {
    line!(out, "    #[must_use]");
    line!(out, "    pub const fn {name}(self) -> {of} {{");
    line!(out, "        match self {{");
    for api in apis {
        line!(out, "            Self::{} => {},", api.name, value(api));
    }
    line!(out, "        }}");
    line!(out, "    }}");
}

fn messages(out: &mut String, apis: &[Api], message: &str, what: &str) {
    line!(out, "\n/// What one side {what}, whatever the API.");
    line!(out, "#[derive(Debug, Clone, PartialEq, Eq)]");
    line!(out, "pub enum {message} {{");
    for api in apis {
        line!(out, "    /// `{}`.", api.name);
        line!(out, "    {0}({1}::{0}{message}),", api.name, api.module);
    }
    line!(out, "}}");
    line!(out, "\nimpl {message} {{");
    line!(out, "    /// The API that it belongs to.");
    line!(out, "    #[must_use]");
    line!(out, "    pub const fn key(&self) -> ApiKey {{");
    line!(out, "        match self {{");
    for api in apis {
        line!(out, "            Self::{0}(_) => ApiKey::{0},", api.name);
    }
    line!(out, "        }}");
    line!(out, "    }}");
    line!(out, "\n    /// Reads the body of a message of `key`.");
    line!(out, "    ///");
    line!(out, "    /// # Errors");
    line!(out, "    /// What the source finds wrong.");
    line!(
        out,
        "    pub fn read<S: Source>(key: ApiKey, s: &mut S) -> Result<Self, S::Error> {{"
    );
    line!(out, "        Ok(match key {{");
    for api in apis {
        line!(
            out,
            "            ApiKey::{0} => Self::{0}(Wire::read(s)?),",
            api.name
        );
    }
    line!(out, "        }})");
    line!(out, "    }}");
    line!(out, "\n    /// Writes the body.");
    line!(out, "    ///");
    line!(out, "    /// # Errors");
    line!(out, "    /// What the version of the writer cannot say.");
    line!(
        out,
        "    pub fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {{"
    );
    line!(out, "        match self {{");
    for api in apis {
        line!(out, "            Self::{}(m) => m.write(w),", api.name);
    }
    line!(out, "        }}");
    line!(out, "    }}");
    line!(out, "}}");
}
