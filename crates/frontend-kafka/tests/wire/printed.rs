//! Two implementations' values compared by what `Debug` prints, field by field and by name. Fields that one of
//! them does not have, because it has no version with them, are left out of the comparison.

use std::collections::BTreeMap;

/// What `Debug` printed, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Printed {
    Fields(BTreeMap<String, Printed>),
    List(Vec<Printed>),
    Word(String),
}

impl Printed {
    pub fn parse(text: &str) -> Self {
        let mut parser = Parser(text);
        let value = parser.value();
        assert_eq!(parser.0, "", "all of it is understood");
        value
    }

    /// Where two values differ in a field that both have.
    pub fn difference(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::Fields(a), Self::Fields(b)) => {
                let both = a.iter().filter_map(|(k, v)| Some((k, v, b.get(k)?)));
                both.filter_map(|(k, v, w)| Some(format!("{k}: {}", v.difference(w)?)))
                    .next()
            }
            (Self::List(a), Self::List(b)) if a.len() == b.len() => {
                a.iter().zip(b).find_map(|(a, b)| a.difference(b))
            }
            _ if self == other => None,
            // A field that the version does not have is null here and empty there.
            (Self::Word(word), other) if word == "None" && other.is_empty() => None,
            _ => Some(format!("{self:?} is not {other:?}")),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Fields(_) => false,
            Self::List(values) => values.is_empty(),
            Self::Word(word) => word == "\"\"" || word == "b\"\"",
        }
    }

    /// Fields in this value and all within.
    pub fn count(&self) -> usize {
        match self {
            Self::Fields(fields) => fields.values().map(|v| 1 + v.count()).sum(),
            Self::List(values) => values.iter().map(Self::count).sum(),
            Self::Word(_) => 0,
        }
    }
}

struct Parser<'a>(&'a str);

impl Parser<'_> {
    fn eat(&mut self, token: &str) -> bool {
        let rest = self.0.strip_prefix(token);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn until(&mut self, end: impl Fn(char) -> bool) -> String {
        let at = self.0.find(end).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(at);
        self.0 = rest;
        word.to_owned()
    }

    fn value(&mut self) -> Printed {
        if self.eat("[") {
            let mut values = Vec::new();
            while !self.eat("]") {
                values.push(self.value());
                self.eat(", ");
            }
            return Printed::List(values);
        }
        if self.0.starts_with('"') || self.0.starts_with("b\"") {
            return Printed::Word(self.quoted());
        }
        if self.eat("{}") {
            return Printed::Fields(BTreeMap::new());
        }
        let word = self.until(|c| " ,()[]{}".contains(c));
        if self.eat("(") {
            let value = self.value();
            assert!(self.eat(")"), "one value in {word}");
            return value;
        }
        if !self.eat(" { ") {
            return Printed::Word(word);
        }
        let mut fields = BTreeMap::new();
        while !self.eat(" }") {
            let name = self.until(|c| c == ':');
            assert!(self.eat(": "), "{name} has a value");
            let value = self.value();
            if name != "unknown_tagged_fields" {
                fields.insert(name, value);
            }
            self.eat(", ");
        }
        Printed::Fields(fields)
    }

    fn quoted(&mut self) -> String {
        let open = self.0.find('"').unwrap() + 1;
        let mut escaped = false;
        let end = self.0[open..].find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let (word, rest) = self.0.split_at(open + end.unwrap() + 1);
        self.0 = rest;
        word.to_owned()
    }
}

#[test]
fn values_are_compared_by_name() {
    let parse = Printed::parse;
    let a = parse("Kind(A { x: 1, y: Some(\"q\\\" }\"), z: [B { n: -1 }], old: 3 })");
    let b = parse("C { z: [D { n: -1, unknown_tagged_fields: {} }], y: Some(\"q\\\" }\"), x: 1 }");
    assert_eq!(a.difference(&b), None);
    assert_eq!(a.count(), 5);
    let c = parse("C { z: [D { n: 2 }], x: 1 }");
    assert!(a.difference(&c).unwrap().starts_with("z: n: "));
    assert!(parse("[1]").difference(&parse("[]")).is_some());
    assert!(parse("None").difference(&parse("Some(1)")).is_some());
}
