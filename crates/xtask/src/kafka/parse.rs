//! Reads the message tables of `crates/frontend-kafka/messages`, whose `README.md` describes the notation.
//! A table that is not understood is an error with its line; nothing is guessed.

use std::collections::BTreeMap;

/// Versions from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    pub first: i16,
    pub last: i16,
}

impl Versions {
    pub fn has(self, version: i16) -> bool {
        self.first <= version && version <= self.last
    }

    pub fn all(self) -> impl Iterator<Item = i16> {
        self.first..=self.last
    }
}

/// What a field holds, without array and null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Int64,
    Uuid,
    String,
    /// `bytes` and `records` look the same on the wire.
    Bytes,
    Struct(String),
}

#[derive(Debug, Clone)]
pub struct Field {
    pub name: String,
    pub kind: Kind,
    pub array: bool,
    /// Versions in which null is allowed.
    pub nullable: Option<Versions>,
    pub versions: Versions,
    pub tag: Option<u32>,
    /// May be left out silently where the version does not have it.
    pub ignorable: bool,
    pub default: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Struct {
    pub name: String,
    pub fields: Vec<Field>,
    /// What it is, for its documentation.
    pub role: String,
}

#[derive(Debug)]
pub struct Api {
    pub key: i16,
    pub name: String,
    /// File name without extension, and name of the Rust module.
    pub module: String,
    pub versions: Versions,
    /// First version with compact lengths and tagged fields.
    pub flexible: Option<i16>,
    /// The request first, then the response, each followed by what it contains.
    pub structs: Vec<Struct>,
}

impl Api {
    pub fn is_flexible(&self, version: i16) -> bool {
        self.flexible.is_some_and(|first| version >= first)
    }

    pub fn get(&self, name: &str) -> Option<&Struct> {
        self.structs.iter().find(|s| s.name == name)
    }
}

/// Reads one table.
///
/// # Errors
/// What is wrong, with the line's number.
pub fn parse(module: &str, text: &str) -> Result<Api, String> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.split('#').next().unwrap_or_default()))
        .filter(|(_, line)| !line.trim().is_empty());
    let (at, first) = lines.next().ok_or("an empty table")?;
    let mut api = header(module, first).map_err(|e| format!("{module}:{at}: {e}"))?;
    // The open structs by depth: index into `api.structs`.
    let mut open: Vec<usize> = Vec::new();
    for (at, line) in lines {
        let indent = line.len() - line.trim_start().len();
        let result = if indent == 0 {
            open.clear();
            top(&mut api, line.trim()).map(|index| open.push(index))
        } else {
            nested(&mut api, &mut open, indent / 2, line.trim())
        };
        result.map_err(|e| format!("{module}:{at}: {e}"))?;
    }
    check(&api).map_err(|e| format!("{module}: {e}"))?;
    Ok(api)
}

fn header(module: &str, line: &str) -> Result<Api, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (["api", key, name, range], rest) = words
        .split_at_checked(4)
        .ok_or("expected: api KEY NAME FIRST-LAST")?
    else {
        return Err("expected: api KEY NAME FIRST-LAST".into());
    };
    let open = Versions {
        first: 0,
        last: i16::MAX,
    };
    let flexible = match rest {
        [] => None,
        ["flexible", from] => Some(versions(from, open)?.first),
        _ => return Err(format!("unknown words {rest:?}")),
    };
    Ok(Api {
        key: key.parse().map_err(|_| format!("key {key}"))?,
        name: (*name).to_owned(),
        module: module.to_owned(),
        versions: versions(range, open)?,
        flexible,
        structs: Vec::new(),
    })
}

fn top(api: &mut Api, line: &str) -> Result<usize, String> {
    let (name, role) = match line.split_once(' ') {
        None if line == "request" => (format!("{}Request", api.name), "Request".to_owned()),
        None if line == "response" => (format!("{}Response", api.name), "Response".to_owned()),
        Some(("struct", name)) => (name.to_owned(), "Part".to_owned()),
        _ => {
            return Err(format!(
                "{line:?} is none of request, response, struct NAME"
            ));
        }
    };
    add(api, name, role)
}

fn add(api: &mut Api, name: String, role: String) -> Result<usize, String> {
    if api.get(&name).is_some() {
        return Err(format!("{name} is there twice"));
    }
    api.structs.push(Struct {
        name,
        fields: Vec::new(),
        role,
    });
    Ok(api.structs.len() - 1)
}

fn nested(api: &mut Api, open: &mut Vec<usize>, depth: usize, line: &str) -> Result<(), String> {
    if depth > open.len() {
        // Deeper than the last struct: the fields of the type of the field above.
        let parent = *open.last().ok_or("a field outside of a struct")?;
        let field = api.structs[parent]
            .fields
            .last()
            .ok_or("nothing above to belong to")?;
        let (Kind::Struct(name), of) = (field.kind.clone(), field.name.clone()) else {
            return Err(format!("{} has no fields", field.name));
        };
        let index = add(api, name, format!("Part `{of}`"))?;
        open.push(index);
    }
    if depth > open.len() {
        return Err("indented too far".into());
    }
    open.truncate(depth);
    let field = field(line, api.versions)?;
    let fields = &mut api.structs[open[depth - 1]].fields;
    if fields.iter().any(|f| f.name == field.name) {
        return Err(format!("{} is there twice", field.name));
    }
    fields.push(field);
    Ok(())
}

fn field(line: &str, api: Versions) -> Result<Field, String> {
    let (line, default) = match line.split_once(" = ") {
        Some((line, default)) => (line, Some(default.trim().to_owned())),
        None => (line, None),
    };
    let mut words = line.split_whitespace();
    let (Some(name), Some(spelled)) = (words.next(), words.next()) else {
        return Err("expected: NAME TYPE".into());
    };
    let mut field = Field {
        name: name.to_owned(),
        kind: Kind::Bool,
        array: false,
        nullable: None,
        versions: api,
        tag: None,
        ignorable: false,
        default,
    };
    while let Some(word) = words.next() {
        match word {
            "ignorable" => field.ignorable = true,
            "tag" => {
                let tag = words.next().ok_or("tag of which number?")?;
                field.tag = Some(tag.parse().map_err(|_| format!("tag {tag}"))?);
            }
            range => field.versions = versions(range, api)?,
        }
    }
    let (spelled, null) = match spelled.split_once('?') {
        Some((spelled, null)) => (spelled, Some(null)),
        None => (spelled, None),
    };
    field.nullable = match null {
        None => None,
        Some("") => Some(field.versions),
        Some(range) => Some(versions(range, field.versions)?),
    };
    let inner = spelled.strip_prefix('[').and_then(|s| s.strip_suffix(']'));
    field.array = inner.is_some();
    field.kind = match inner.unwrap_or(spelled) {
        "bool" => Kind::Bool,
        "int8" => Kind::Int8,
        "int16" => Kind::Int16,
        "uint16" => Kind::Uint16,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "uuid" => Kind::Uuid,
        "string" => Kind::String,
        "bytes" | "records" => Kind::Bytes,
        name if name.starts_with(|c: char| c.is_ascii_uppercase()) => Kind::Struct(name.to_owned()),
        other => return Err(format!("unknown type {other}")),
    };
    Ok(field)
}

/// `3`, `3+` or `3-5`, cut to `within`.
fn versions(text: &str, within: Versions) -> Result<Versions, String> {
    let number = |text: &str| text.parse::<i16>().map_err(|_| format!("versions {text}"));
    let (first, last) = match (text.strip_suffix('+'), text.split_once('-')) {
        (Some(first), _) => (number(first)?, within.last),
        (None, Some((first, last))) => (number(first)?, number(last)?),
        (None, None) => (number(text)?, number(text)?),
    };
    let found = Versions {
        first: first.max(within.first),
        last: last.min(within.last),
    };
    if found.first > found.last {
        return Err(format!("versions {text} are none of the message's"));
    }
    Ok(found)
}

/// What a table must fulfil as a whole.
fn check(api: &Api) -> Result<(), String> {
    for message in ["Request", "Response"] {
        let name = format!("{}{message}", api.name);
        api.get(&name).ok_or(format!("{name} is missing"))?;
    }
    for part in &api.structs {
        let mut tags = part.fields.iter().filter_map(|f| f.tag);
        let mut last = None;
        if tags.any(|tag| last.replace(tag).is_some_and(|before| before >= tag)) {
            return Err(format!("tags of {} are not in ascending order", part.name));
        }
        for field in &part.fields {
            let place = format!("{}.{}", part.name, field.name);
            if let Kind::Struct(name) = &field.kind {
                api.get(name)
                    .ok_or(format!("{place}: no struct {name} in this table"))?;
            }
            if field.tag.is_some() && !api.is_flexible(field.versions.first) {
                return Err(format!("{place} has a tag in a version without tags"));
            }
            if field.tag.is_some() && field.versions.last != api.versions.last {
                return Err(format!(
                    "{place} is tagged and ends before the message does"
                ));
            }
        }
    }
    used(api).map(|_| ())
}

/// The versions in which each struct is on the wire.
///
/// # Errors
/// When a struct is never used or contains itself.
pub fn used(api: &Api) -> Result<BTreeMap<String, Vec<i16>>, String> {
    let mut found: BTreeMap<String, Vec<i16>> = BTreeMap::new();
    for message in ["Request", "Response"] {
        for version in api.versions.all() {
            visit(
                api,
                &format!("{}{message}", api.name),
                version,
                0,
                &mut found,
            )?;
        }
    }
    match api.structs.iter().find(|s| !found.contains_key(&s.name)) {
        Some(unused) => Err(format!("{} is never used", unused.name)),
        None => Ok(found),
    }
}

fn visit(
    api: &Api,
    name: &str,
    version: i16,
    depth: usize,
    found: &mut BTreeMap<String, Vec<i16>>,
) -> Result<(), String> {
    if depth > 8 {
        return Err(format!("{name} contains itself"));
    }
    found.entry(name.to_owned()).or_default().push(version);
    let part = api.get(name).ok_or(format!("no struct {name}"))?;
    for field in part.fields.iter().filter(|f| f.versions.has(version)) {
        if let Kind::Struct(inner) = &field.kind {
            visit(api, inner, version, depth + 1, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "api 7 Greet 0-3 flexible 2+\nrequest\n  id int32\nresponse\n  id int32\n";

    #[test]
    fn a_table_is_read_as_written() {
        let text = "api 7 Greet 0-3 flexible 2+ # why\nrequest\n  who [Person]? 1+\n    name string?2+ ignorable\n\
                    \n  at int64 = -1\nresponse\n  code int16 2+ tag 0\n";
        let api = parse("greet", text).unwrap();
        assert_eq!((api.key, api.flexible, api.structs.len()), (7, Some(2), 3));
        let who = &api.get("GreetRequest").unwrap().fields[0];
        assert_eq!((who.versions.first, who.versions.last), (1, 3));
        assert_eq!(who.kind, Kind::Struct("Person".into()));
        let name = &api.get("Person").unwrap().fields[0];
        assert_eq!(name.nullable.map(|v| v.first), Some(2));
        assert!(name.ignorable && !name.array && who.array);
        let request = api.get("GreetRequest").unwrap();
        assert_eq!(request.fields[1].default.as_deref(), Some("-1"));
        assert_eq!(used(&api).unwrap()["Person"], [1, 2, 3]);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        assert!(parse("greet", HEAD).is_ok());
        for (line, expected) in [
            ("  x int33", "greet:6: unknown type int33"),
            ("  id int32", "greet:6: id is there twice"),
            (
                "  x int8 4+",
                "greet:6: versions 4+ are none of the message's",
            ),
            ("      x int8", "greet:6: id has no fields"),
            ("  x Nobody", "greet: GreetResponse.x: no struct Nobody"),
            (
                "  x int8 tag 1",
                "GreetResponse.x has a tag in a version without",
            ),
            (
                "  x int8 2+ tag 1\n  y int8 2+ tag 1",
                "not in ascending order",
            ),
            ("  x int8 2 tag 1", "is tagged and ends before"),
            ("struct Idle\n  x int8", "Idle is never used"),
            ("struct A\n  a A", "A is never used"),
            ("response", "GreetResponse is there twice"),
            ("answer", "is none of request, response"),
        ] {
            let error = parse("greet", &format!("{HEAD}{line}\n")).unwrap_err();
            assert!(error.contains(expected), "{line:?}: {error}");
        }
        let own = HEAD.replace("id int32\nresponse", "a A\n    a A\nresponse");
        assert!(
            parse("greet", &own)
                .unwrap_err()
                .contains("contains itself")
        );
    }
}
