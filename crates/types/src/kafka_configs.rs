//! Every config that Kafka 4.x knows, and what becomes of it here. Other programs set configs that mean nothing to this
//! server and expect to read them back, so a name that Kafka knows is either obeyed, or kept and shown, or refused with
//! a reason, never ignored in silence.
//!
//! Invariants: one row for each name and scope, ordered by name; a kept value is of its type and range. Nothing here
//! says what an obeyed config does: [`crate::config`] has those.

mod brokers;
mod reasons;
mod topics;

/// What a config belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A topic.
    Topic,
    /// A broker, or all brokers.
    Broker,
    /// A group.
    Group,
    /// A subscription to metrics of clients.
    ClientMetrics,
}

/// Type of a value, in Kafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// Name of a Java class.
    Class,
    /// A number with a fraction.
    Double,
    /// 32 bits.
    Int,
    /// Texts, separated by commas.
    List,
    /// 64 bits.
    Long,
    /// A secret.
    Password,
    /// 16 bits.
    Short,
    /// Any text.
    Text,
}

impl Kind {
    /// The type's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Class => "class",
            Self::Double => "double",
            Self::Int => "int",
            Self::List => "list",
            Self::Long => "long",
            Self::Password => "password",
            Self::Short => "short",
            Self::Text => "string",
        }
    }
}

/// What becomes of a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has its effect, by this config or key of ours.
    Obeyed(&'static str),
    /// It has no effect; its value is kept and shown.
    Kept,
    /// It is kept and shown with this value; any other would promise what is not there, for this reason.
    KeptAt(&'static str, &'static str),
    /// It is set by this key of the node's configuration file; a change by a client is refused.
    Node(&'static str),
    /// A change is refused for this reason.
    Refused(&'static str),
}

/// Name, type, default, fate.
type Row = (&'static str, Kind, Option<&'static str>, Fate);

/// One config of Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KafkaConfig {
    /// What it belongs to.
    pub scope: Scope,
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Kafka's default; `None`: there is none.
    pub default: Option<&'static str>,
    /// What becomes of it here.
    pub fate: Fate,
}

/// Longest kept text, in bytes: the longest string of Kafka's protocol, or nobody could read it back.
pub const KEPT_MAX_BYTES: usize = 32_767;
/// Longest kept text that is not a list, in bytes.
const WORD_MAX_BYTES: usize = 256;

impl Scope {
    const fn rows(self) -> &'static [Row] {
        match self {
            Self::Topic => topics::TOPICS,
            Self::Broker => brokers::BROKERS,
            Self::Group => topics::GROUPS,
            Self::ClientMetrics => topics::CLIENT_METRICS,
        }
    }

    /// Every config of that scope, ordered by name.
    pub fn configs(self) -> impl Iterator<Item = KafkaConfig> {
        self.rows().iter().map(move |row| self.config(row))
    }

    /// The config of that name.
    #[must_use]
    pub fn find(self, name: &str) -> Option<KafkaConfig> {
        let rows = self.rows();
        let at = rows.binary_search_by(|row| row.0.cmp(name)).ok()?;
        Some(self.config(&rows[at]))
    }

    const fn config(self, row: &Row) -> KafkaConfig {
        KafkaConfig {
            scope: self,
            name: row.0,
            kind: row.1,
            default: row.2,
            fate: row.3,
        }
    }
}

/// Whether Kafka knows a config of that name, in any scope.
#[must_use]
pub fn is_known(name: &str) -> bool {
    let scopes = [
        Scope::Topic,
        Scope::Broker,
        Scope::Group,
        Scope::ClientMetrics,
    ];
    scopes.iter().any(|scope| scope.find(name).is_some())
}

impl KafkaConfig {
    /// Whether Kafka 4.x shows the config of every topic, set or not.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        // An internal one is only for Kafka's own tests.
        !topics::UNTIL_3_9.contains(&self.name) && self.name != "internal.segment.bytes"
    }

    /// The value as it is kept; `None`: it is not of the config's type or range.
    #[must_use]
    pub fn kept(&self, value: &str) -> Option<String> {
        let value = value.trim();
        let number = |least: i64, most: i64| {
            let ranges = topics::RANGES.iter();
            let range = ranges.clone().find(|range| range.0 == self.name);
            let (least, most) = range.map_or((least, most), |range| (range.1, range.2));
            let number: i64 = value.parse().ok()?;
            (least..=most).contains(&number).then(|| value.to_owned())
        };
        match self.kind {
            Kind::Boolean => boolean(value).map(|b| b.to_string()),
            Kind::Short => number(i16::MIN.into(), i16::MAX.into()),
            Kind::Int => number(i32::MIN.into(), i32::MAX.into()),
            Kind::Long => number(i64::MIN, i64::MAX),
            Kind::Double => value
                .parse()
                .ok()
                .filter(|n: &f64| n.is_finite())
                .map(|_| value.to_owned()),
            Kind::List if self.name.ends_with(".throttled.replicas") => replicas(value),
            Kind::List => is_text(value, KEPT_MAX_BYTES).then(|| value.to_owned()),
            Kind::Class | Kind::Password | Kind::Text => {
                is_text(value, WORD_MAX_BYTES).then(|| value.to_owned())
            }
        }
    }

    /// What is accepted, for error messages.
    #[must_use]
    pub const fn expected(&self) -> &'static str {
        match self.kind {
            Kind::Boolean => "true or false",
            Kind::Double | Kind::Int | Kind::Long | Kind::Short => {
                "a number in Kafka's range for this config"
            }
            Kind::List => "PARTITION:NODE,PARTITION:NODE,... or *",
            Kind::Class | Kind::Password | Kind::Text => "a text without control characters",
        }
    }
}

/// A boolean as people write it.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    match (is("true"), is("false")) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

fn is_text(text: &str, max: usize) -> bool {
    text.len() <= max && !text.chars().any(char::is_control)
}

/// A list of throttled replicas: `*` for all of them, or partition and node of each.
fn replicas(text: &str) -> Option<String> {
    if text.len() > KEPT_MAX_BYTES {
        return None;
    }
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let pair = |part: &str| {
        let (partition, node) = part.split_once(':')?;
        Some(format!("{}:{}", number(partition)?, number(node)?))
    };
    if text.is_empty() || text == "*" {
        return Some(text.to_owned());
    }
    let pairs: Option<Vec<String>> = text.split(',').map(pair).collect();
    pairs.map(|pairs| pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_is_in_order_and_names_what_is_ours() {
        for (scope, least) in [
            (Scope::Topic, 36),
            (Scope::Broker, 360),
            (Scope::Group, 17),
            (Scope::ClientMetrics, 3),
        ] {
            let all: Vec<_> = scope.configs().collect();
            assert!(all.len() >= least, "{scope:?} has {}", all.len());
            assert!(all.windows(2).all(|w| w[0].name < w[1].name), "{scope:?}");
        }
        for config in Scope::Topic.configs() {
            let ours = crate::config::KEYS
                .iter()
                .any(|key| key.name == config.name);
            let same = config.fate == Fate::Obeyed(config.name);
            assert_eq!(ours, same, "{}", config.name);
        }
    }

    #[test]
    fn a_kept_default_is_a_legal_value() {
        for config in Scope::Topic.configs() {
            if let (Fate::Kept | Fate::KeptAt(..), Some(default)) = (config.fate, config.default) {
                assert_eq!(
                    config.kept(default).as_deref(),
                    Some(default),
                    "{}",
                    config.name
                );
            }
        }
    }

    #[test]
    fn kept_values_are_trimmed_and_checked() {
        let kept = |name, value| Scope::Topic.find(name).unwrap().kept(value);
        assert_eq!(kept("preallocate", " TRUE ").unwrap(), "true");
        assert_eq!(kept("segment.jitter.ms", " 12 ").unwrap(), "12");
        let throttled = "leader.replication.throttled.replicas";
        assert_eq!(kept(throttled, "0:1, 1:2").unwrap(), "0:1,1:2");
        assert_eq!(kept(throttled, "*").unwrap(), "*");
        for (name, bad) in [
            ("preallocate", "yes"),
            ("segment.jitter.ms", "-1"),
            ("segment.jitter.ms", "١٢"),
            ("segment.index.bytes", "3"),
            ("segment.index.bytes", "2147483648"),
            (throttled, "0:1,"),
            (throttled, "0-1"),
            ("message.format.version", "2\0"),
        ] {
            assert_eq!(kept(name, bad), None, "{name}={bad:?}");
        }
        assert_eq!(kept(throttled, &"0:1,".repeat(KEPT_MAX_BYTES)), None);
    }

    #[test]
    fn names_are_known_in_every_scope() {
        assert!(is_known("segment.jitter.ms") && is_known("num.io.threads"));
        assert!(is_known("consumer.session.timeout.ms") && is_known("interval.ms"));
        assert!(!is_known("durability") && !is_known("retention.mss"));
    }
}
