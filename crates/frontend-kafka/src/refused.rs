//! Topics whose creation was refused a moment ago. A client that asks for a topic with certain configs, and is refused,
//! often goes on to ask for the topic's metadata; creating it then, with the defaults, would give it retention and
//! compaction that nobody asked for.
//!
//! Invariants: names are forgotten after [`REMEMBERED`], and the oldest give way when there are many.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

/// How long a refusal is remembered. Mirrors create what is missing every ten minutes.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// Most names; each has at most 249 bytes.
const NAMES_MAX: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct RefusedTopics(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    /// When each was refused last.
    at: HashMap<String, Duration>,
    /// By age; entries that were refused again, or made, are out of date.
    order: VecDeque<(Duration, String)>,
}

impl RefusedTopics {
    /// Notes a refusal.
    pub(crate) fn note(&self, name: &str, now: Duration) {
        let names = &mut *self.0.lock();
        names.at.insert(name.to_owned(), now);
        names.order.push_back((now, name.to_owned()));
        while names.order.len() > NAMES_MAX
            || names
                .order
                .front()
                .is_some_and(|(at, _)| *at + REMEMBERED <= now)
        {
            let Some((at, name)) = names.order.pop_front() else {
                return;
            };
            if names.at.get(&name) == Some(&at) {
                names.at.remove(&name);
            }
        }
    }

    /// The topic was created after all.
    pub(crate) fn forget(&self, name: &str) {
        self.0.lock().at.remove(name);
    }

    /// Whether the topic was refused a moment ago.
    pub(crate) fn contains(&self, name: &str, now: Duration) -> bool {
        let names = self.0.lock();
        names.at.get(name).is_some_and(|at| now < *at + REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_remembered_for_a_while_or_until_the_topic_is_made() {
        let refused = RefusedTopics::default();
        let second = Duration::from_secs(1);
        refused.note("t", second);
        assert!(refused.contains("t", REMEMBERED) && !refused.contains("u", second));
        assert!(!refused.contains("t", REMEMBERED + second));
        refused.note("t", 2 * second);
        refused.forget("t");
        assert!(!refused.contains("t", 2 * second));
    }

    #[test]
    fn the_oldest_names_give_way() {
        let refused = RefusedTopics::default();
        for number in 0..2 * NAMES_MAX {
            refused.note(&number.to_string(), Duration::ZERO);
        }
        assert_eq!(refused.0.lock().at.len(), NAMES_MAX);
        assert!(!refused.contains("0", Duration::ZERO));
        assert!(refused.contains(&(2 * NAMES_MAX - 1).to_string(), Duration::ZERO));
    }
}
