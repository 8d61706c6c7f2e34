//! Kafka's clients, unmodified, as a process of their own: what they write down comes into the history line by line.
//!
//! There is one pipe, and they write to it under one lock: the order of their lines is the order in which they saw
//! things. Whatever else writes into the history while they send writes notes only.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use varve_check::Event;
use varve_workload::{Config, Recorder};

use crate::python;

/// What the clients need.
const MODULES: &str = "kafka, confluent_kafka";
/// Longer than every wait of the clients together.
const ANSWER_WITHIN: Duration = Duration::from_secs(900);

/// The running clients.
#[derive(Debug)]
pub struct KafkaClients {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<()>,
    pump: Option<JoinHandle<()>>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl KafkaClients {
    /// Starts them; what they complain of goes to a file in `dir`.
    ///
    /// # Errors
    /// When there is no Python that has them.
    pub fn start(
        config: &Config,
        servers: &[String],
        recorder: Arc<Recorder>,
        dir: &Path,
    ) -> Result<Self, String> {
        let python = python::python(MODULES).ok_or(python::MISSING)?;
        let options = json!({
            "servers": servers.join(","),
            "topic": config.topic.to_string(),
            "partitions": config.partitions,
            "run": config.run,
            "seed": config.seed,
            "rate": config.rate,
            "life": config.life.as_secs_f64(),
        });
        let text = |error: std::io::Error| format!("Kafka's clients: {error}");
        let log = File::create(dir.join("kafka-clients.log")).map_err(text)?;
        let mut child = Command::new(python)
            .arg("-B")
            .arg(python::scripts().join("chaos/main.py"))
            .arg(options.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(text)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (sender, answers) = channel();
        let wrong = Arc::new(Mutex::new(Vec::new()));
        let found = wrong.clone();
        let pump = stdout
            .map(|stdout| std::thread::spawn(move || pump(stdout, &recorder, &found, &sender)));
        Ok(Self {
            child,
            stdin,
            answers,
            pump,
            wrong,
        })
    }

    /// Producers end, everything is read, groups come to their end. To be called when nothing is broken any more.
    pub fn stop(&mut self) {
        self.ask("stop");
    }

    /// Sends that must succeed, and everything is read again; then the clients end. What was wrong.
    pub fn finish(mut self) -> Vec<String> {
        self.ask("finish");
        drop(self.stdin.take());
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&mut self, word: &str) {
        let sent = self
            .stdin
            .as_mut()
            .map(|stdin| writeln!(stdin, "{word}").and_then(|()| stdin.flush()));
        let answer = match sent {
            Some(Ok(())) => self.answers.recv_timeout(ANSWER_WITHIN),
            _ => Err(RecvTimeoutError::Disconnected),
        };
        let why = match answer {
            Ok(()) => return,
            Err(RecvTimeoutError::Timeout) => format!("did not answer in {ANSWER_WITHIN:?}"),
            Err(RecvTimeoutError::Disconnected) => "ended".to_owned(),
        };
        // What hangs would keep the pipe open for ever.
        let _ = self.child.kill();
        self.lock()
            .push(format!("told to {word}, Kafka's clients {why}"));
    }
}

impl Drop for KafkaClients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes their lines until they end.
fn pump(
    stdout: ChildStdout,
    recorder: &Recorder,
    wrong: &Mutex<Vec<String>>,
    answers: &Sender<()>,
) {
    let add = |what: String| {
        recorder.note(what.clone());
        wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(what);
    };
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match read(&line, recorder.ns()) {
            Ok(Line::Event(event)) => recorder.event(event),
            Ok(Line::Wrong(what)) => add(what),
            Ok(Line::Done) => {
                let _ = answers.send(());
            }
            Err(why) => add(format!("Kafka's clients wrote {line:?}: {why}")),
        }
    }
}

/// One line of theirs.
#[derive(Debug, PartialEq)]
enum Line {
    Event(Event),
    Wrong(String),
    Done,
}

/// Reads a line; the time is when it came.
fn read(line: &str, ns: u64) -> Result<Line, serde_json::Error> {
    let mut value: Value = serde_json::from_str(line)?;
    match value["type"].as_str() {
        Some("done") => return Ok(Line::Done),
        Some("wrong") => {
            let what = value["what"].as_str().unwrap_or(line);
            return Ok(Line::Wrong(what.to_owned()));
        }
        _ => {}
    }
    if let Some(fields) = value.as_object_mut() {
        fields.insert("ns".to_owned(), ns.into());
    }
    serde_json::from_value(value).map(Line::Event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_events_and_others_are_told() {
        let event = read(r#"{"type":"ok","op":3,"offset":7}"#, 5).unwrap();
        let ok = Event::Ok {
            op: 3,
            ns: 5,
            offset: Some(7),
        };
        assert_eq!(event, Line::Event(ok));
        assert_eq!(read(r#"{"type":"done"}"#, 5).unwrap(), Line::Done);
        let wrong = read(r#"{"type":"wrong","what":"it"}"#, 5).unwrap();
        assert_eq!(wrong, Line::Wrong("it".to_owned()));
        for line in ["", "7", r#"{"type":"ok"}"#, r#"{"type":"what"}"#] {
            assert!(read(line, 5).is_err(), "{line}");
        }
    }
}
