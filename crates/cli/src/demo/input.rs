//! What the demo sends: the lines of a file or of standard input, or its own sample records. Everything is read and
//! checked before a node is started.

use std::io::{BufRead, Read as _};
use std::path::Path;

use super::sample;
use crate::failure::{FAILED, Failure};

/// Longest line in bytes. With key and framing it fits into a batch of the default `max.message.bytes`, 1 MiB.
const LINE_MAX: usize = 1_000_000;
/// A first word that is longer is not taken as a key.
const WORD_MAX: usize = 1024;
/// All lines are held in memory, to be compared with what comes back.
const INPUT_MAX: u64 = 512 * 1024 * 1024;

/// One record to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Records with the same key are kept in order; one without a key goes to any partition.
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
}

impl Line {
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.len()
    }
}

/// The records with the name of where they come from.
///
/// # Errors
/// A sentence about what cannot be read or sent.
pub(super) fn read(
    file: Option<&Path>,
    delim: Option<&str>,
) -> Result<(String, Vec<Line>), Failure> {
    let Some(path) = file else {
        let lines = sample::orders(sample::SEED, sample::RECORDS);
        return Ok(("sample orders of a web shop".to_owned(), lines));
    };
    let (name, lines) = if path == Path::new("-") {
        let name = "standard input".to_owned();
        let lines = split_lines(&name, std::io::stdin().lock(), delim)?;
        (name, lines)
    } else {
        let name = path.display().to_string();
        let cannot = |error: std::io::Error| {
            let text = format!(
                "{name} cannot be read: {error}; give another file, or - for standard input; nothing was started"
            );
            Failure::new(FAILED, text)
        };
        let opened = std::fs::File::open(path).map_err(cannot)?;
        if opened.metadata().map_err(cannot)?.is_dir() {
            return Err(Failure::usage(format!(
                "{name} is a directory; give a file, or - for standard input; nothing was started"
            )));
        }
        let lines = split_lines(&name, std::io::BufReader::new(opened), delim)?;
        (name, lines)
    };
    if lines.is_empty() {
        return Err(Failure::usage(format!(
            "{name} is empty; the demo needs at least one line, or no file at all for sample records; nothing was \
             started"
        )));
    }
    Ok((name, lines))
}

fn split_lines(
    name: &str,
    mut input: impl BufRead,
    delim: Option<&str>,
) -> Result<Vec<Line>, Failure> {
    let (mut lines, mut buffer, mut bytes) = (Vec::new(), Vec::new(), 0_u64);
    loop {
        buffer.clear();
        // One byte for the newline, and one that tells a line that is too long.
        let most = LINE_MAX as u64 + 2;
        let read = (&mut input).take(most).read_until(b'\n', &mut buffer);
        let read = read.map_err(|error| {
            let text = format!("{name} cannot be read: {error}; nothing was started");
            Failure::new(FAILED, text)
        })?;
        if read == 0 {
            return Ok(lines);
        }
        if buffer.last() == Some(&b'\n') {
            buffer.pop();
        }
        bytes += buffer.len() as u64;
        if buffer.len() > LINE_MAX {
            return Err(Failure::usage(format!(
                "line {} of {name} is longer than {LINE_MAX} bytes, the most that the demo sends as one record; \
                 nothing was started",
                lines.len() + 1
            )));
        }
        if bytes > INPUT_MAX {
            return Err(Failure::usage(format!(
                "{name} is larger than 512 MiB, the most that the demo takes; nothing was started"
            )));
        }
        lines.push(split(&buffer, delim));
    }
}

fn split(line: &[u8], delim: Option<&str>) -> Line {
    let (end, skip) = match delim.map(str::as_bytes) {
        Some([]) => (None, 0),
        Some(delim) => (memchr::memmem::find(line, delim), delim.len()),
        None => {
            let word = line.iter().position(u8::is_ascii_whitespace);
            let end = word.unwrap_or(line.len());
            return Line {
                key: (1..=WORD_MAX).contains(&end).then(|| line[..end].to_vec()),
                value: line.to_vec(),
            };
        }
    };
    match end {
        Some(end) => Line {
            key: Some(line[..end].to_vec()),
            value: line[end + skip..].to_vec(),
        },
        None => Line {
            key: None,
            value: line.to_vec(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(key: Option<&str>, value: &str) -> Line {
        Line {
            key: key.map(Into::into),
            value: value.into(),
        }
    }

    fn by(text: &[u8], delim: Option<&str>) -> Result<Vec<Line>, Failure> {
        split_lines("input", text, delim)
    }

    #[test]
    fn lines_are_keyed_by_delimiter_or_first_word() {
        assert_eq!(
            by(b"a\tb c\nd", Some("\t")).unwrap(),
            [line(Some("a"), "b c"), line(None, "d")]
        );
        assert_eq!(
            by(b"x y\nz\n", None).unwrap(),
            [line(Some("x"), "x y"), line(Some("z"), "z")]
        );
        assert_eq!(by(b"k::v\n", Some("::")).unwrap(), [line(Some("k"), "v")]);
        assert_eq!(by(b"k v\n", Some("")).unwrap(), [line(None, "k v")]);
        assert_eq!(
            by(b"\n x\n", None).unwrap(),
            [line(None, ""), line(None, " x")]
        );
        assert!(by(b"", None).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_word_is_no_key() {
        let zeros = vec![0; 100_000];
        let lines = by(&zeros, None).unwrap();
        assert_eq!((lines.len(), &lines[0].key), (1, &None));
        assert_eq!(lines[0].value, zeros);
    }

    #[test]
    fn the_longest_line_is_taken_and_a_longer_one_is_named() {
        let mut text = vec![b'x'; LINE_MAX];
        text.push(b'\n');
        assert_eq!(by(&text, None).unwrap().len(), 1);
        let mut long = b"first\n".to_vec();
        long.extend(vec![b'x'; LINE_MAX + 1]);
        let failure = by(&long, None).unwrap_err();
        assert_eq!(failure.code, crate::failure::USAGE);
        assert_eq!(
            failure.message,
            "line 2 of input is longer than 1000000 bytes, the most that the demo sends as one record; nothing was \
             started"
        );
    }
}
