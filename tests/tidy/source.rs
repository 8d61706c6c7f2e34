//! Source text as the rules see it: comments and the insides of literals blanked, test modules known.
//! A small scanner, not a parser: it is right for code that `rustfmt` has formatted.

use std::path::Path;

/// One file.
pub struct Source {
    /// Path from the root of the repository.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Lines of code, comments and literals blanked.
    code: Vec<String>,
    /// By line: inside an item that only tests compile.
    in_test: Vec<bool>,
    /// Another file includes this one for tests only.
    pub is_test_file: bool,
}

impl Source {
    /// Reads a file.
    pub fn read(root: &Path, path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let code: Vec<String> = blank(&text).lines().map(str::to_owned).collect();
        let in_test = test_lines(&code);
        let relative = path
            .strip_prefix(root)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        Self {
            path: relative,
            is_test_file: is_test_file(path),
            text,
            code,
            in_test,
        }
    }

    /// Made by a program.
    pub fn is_generated(&self) -> bool {
        self.text
            .lines()
            .take(3)
            .any(|line| line.contains("@generated"))
    }

    /// Numbers of the lines outside tests whose code has `text`.
    pub fn lines_with(&self, text: &str) -> Vec<usize> {
        self.find(text, |index| !self.in_test[index])
    }

    /// Numbers of all lines whose code has `text`.
    pub fn all_lines_with(&self, text: &str) -> Vec<usize> {
        self.find(text, |_| true)
    }

    /// String literals outside tests, with the numbers of their first lines.
    pub fn product_literals(&self) -> Vec<(usize, String)> {
        string_literals(&self.text)
            .into_iter()
            .filter(|(line, _)| !self.in_test[line - 1])
            .collect()
    }

    fn find(&self, text: &str, keep: impl Fn(usize) -> bool) -> Vec<usize> {
        let begins_word = text.starts_with(|c: char| c.is_alphanumeric());
        let hit = |line: &str| {
            line.match_indices(text).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !begins_word || !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            })
        };
        (0..self.code.len())
            .filter(|i| hit(&self.code[*i]) && keep(*i))
            .map(|i| i + 1)
            .collect()
    }
}

/// Whether a neighbour declares this file as a module under `#[cfg(test)]`.
fn is_test_file(path: &Path) -> bool {
    let (Some(folder), Some(file), Some(stem)) =
        (path.parent(), path.file_name(), path.file_stem())
    else {
        return false;
    };
    let (file, stem) = (file.to_string_lossy(), stem.to_string_lossy());
    let parents = [
        folder.to_owned(),
        folder.parent().unwrap_or(folder).to_owned(),
    ];
    parents
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .any(|text| declares_test_module(&text, &file, &stem))
}

fn declares_test_module(text: &str, file: &str, stem: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.starts_with("#[cfg(test)]"))
        .any(|(at, _)| {
            let mut path = None;
            for line in lines.iter().skip(at + 1).take(3) {
                if let Some(rest) = line.strip_prefix("#[path = \"") {
                    path = rest.split('"').next();
                } else if let Some(name) =
                    line.strip_prefix("mod ").and_then(|n| n.strip_suffix(';'))
                {
                    return path.map_or(name == stem, |path| path == file);
                }
            }
            false
        })
}

/// Marks the items behind `#[cfg(test)]`, up to the brace that closes them.
fn test_lines(code: &[String]) -> Vec<bool> {
    let mut marks = vec![false; code.len()];
    let mut line = 0;
    while line < code.len() {
        if !code[line].trim().starts_with("#[cfg(test)]") {
            line += 1;
            continue;
        }
        let mut depth = 0_i32;
        let mut opened = false;
        while line < code.len() {
            marks[line] = true;
            for c in code[line].chars() {
                match c {
                    '{' => {
                        depth += 1;
                        opened = true;
                    }
                    '}' => depth -= 1,
                    _ => {}
                }
            }
            let ends = code[line].trim_end().ends_with(';');
            line += 1;
            if (opened && depth == 0) || (!opened && ends) {
                break;
            }
        }
    }
    marks
}

/// The text with comments and the insides of string and character literals replaced by blanks.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = piece_end(&chars, at);
        if end == at + 1 {
            out.push(chars[at]);
        } else {
            out.extend(
                chars[at..end]
                    .iter()
                    .map(|c| if *c == '\n' { '\n' } else { ' ' }),
            );
        }
        at = end;
    }
    out
}

/// Where the comment, the literal or the character at `at` ends.
fn piece_end(chars: &[char], at: usize) -> usize {
    match chars[at] {
        '/' if chars.get(at + 1) == Some(&'/') => line_end(chars, at),
        '/' if chars.get(at + 1) == Some(&'*') => block_end(chars, at),
        '"' => string_end(chars, at),
        'r' if !follows_word(chars, at) && raw_hashes(chars, at).is_some() => raw_end(chars, at),
        '\'' => char_end(chars, at),
        _ => at + 1,
    }
}

/// The string literals of a text with the numbers of their first lines, without quotes. Lines that a backslash
/// continues are joined, as the compiler joins them.
fn string_literals(text: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = text.chars().collect();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let end = piece_end(&chars, at);
        let piece: String = chars[at..end].iter().collect();
        if end > at + 1 && matches!(chars[at], '"' | 'r') {
            let quotes = |c: char| matches!(c, 'r' | '#' | '"');
            let inner = piece
                .trim_start_matches(quotes)
                .trim_end_matches(['#', '"']);
            let joined: Vec<&str> = inner.split("\\\n").collect();
            let tail = joined.iter().skip(1).map(|part| part.trim_start());
            found.push((line, joined[0].to_owned() + &tail.collect::<String>()));
        }
        line += piece.matches('\n').count();
        at = end;
    }
    found
}

fn follows_word(chars: &[char], at: usize) -> bool {
    // `br"..."` is a raw string too; any other letter before means an identifier.
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') && chars[at - 1] != 'b'
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..]
        .iter()
        .position(|c| *c == '\n')
        .map_or(chars.len(), |n| at + n)
}

fn block_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => {
                depth += 1;
                i += 2;
            }
            ('*', '/') => {
                depth -= 1;
                i += 2;
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

fn raw_hashes(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

fn raw_end(chars: &[char], at: usize) -> usize {
    let hashes = raw_hashes(chars, at).unwrap_or(0);
    let mut i = at + 2 + hashes;
    while i < chars.len() {
        let closes = chars[i] == '"'
            && chars.len() >= i + 1 + hashes
            && chars[i + 1..i + 1 + hashes].iter().all(|c| *c == '#');
        if closes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    chars.len()
}

/// A character literal ends at its quote; a lifetime is left as it is.
fn char_end(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let close = chars[at + 2..].iter().skip(1).position(|c| *c == '\'');
            close.map_or(at + 1, |n| at + 4 + n)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

#[test]
fn comments_and_literals_are_blanked() {
    let text =
        "a /* b /* c */ d */ e // f\n\"g \\\" h\" i r#\"j \" k\"# l 'm' '\\n' '\\u{1}' &'n o";
    assert_eq!(
        blank(text).split_whitespace().collect::<Vec<_>>(),
        ["a", "e", "i", "l", "&'n", "o"]
    );
}

#[test]
fn test_modules_are_marked_to_their_end() {
    let code = [
        "fn a() {}",
        "#[cfg(test)]",
        "mod tests {",
        "    fn b() {}",
        "}",
        "fn c() {}",
    ];
    let marks = test_lines(&code.map(str::to_owned));
    assert_eq!(marks, [false, true, true, true, true, false]);
    assert!(declares_test_module(
        "#[cfg(test)]\n#[path = \"x_t.rs\"]\nmod tests;",
        "x_t.rs",
        "x_t"
    ));
    assert!(!declares_test_module(
        "#[cfg(test)]\nmod tests {",
        "tests.rs",
        "tests"
    ));
}

#[test]
fn literals_are_read_as_the_compiler_joins_them() {
    let text = "a(\"one \\\n     two\", b);\n// \"no\"\nlet c = r#\"three\"#;\n'\"'; \"four\"";
    let found = string_literals(text);
    let expected = [(1, "one two"), (4, "three"), (5, "four")];
    assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
}
