//! How often hosts make connections. A server that is away must not be called without a pause: here that costs nothing,
//! in the field it is what keeps it away. Also, turmoil keeps the port of every connection that did not come about,
//! until the host that made it starts again.
//!
//! Counts are of this thread's simulation.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// Connections that one host may make to one port of another within a simulated second.
pub const MOST_IN_A_SECOND: u32 = 100;

/// From where and where to.
type Way = (String, String, u16);

#[derive(Debug, Default)]
struct Dials {
    /// The second, and the count in it.
    now: BTreeMap<Way, (u64, u32)>,
    /// The second with the most.
    most: Option<(Way, u64, u32)>,
}

thread_local! {
    static DIALS: RefCell<Dials> = RefCell::default();
}

/// Counts one.
pub fn count(from: &str, to: &str, port: u16) {
    let second = turmoil::sim_elapsed().unwrap_or_default().as_secs();
    DIALS.with_borrow_mut(|dials| {
        let way = (from.to_owned(), to.to_owned(), port);
        let now = dials.now.entry(way.clone()).or_default();
        *now = if now.0 == second {
            (second, now.1 + 1)
        } else {
            (second, 1)
        };
        let count = now.1;
        if count == MOST_IN_A_SECOND + 1 {
            tracing::warn!(from, to, port, "connections are made without a pause");
        }
        if dials.most.as_ref().is_none_or(|most| most.2 < count) {
            dials.most = Some((way, second, count));
        }
    });
}

/// The most connections within a second, and whose, for people; nobody made any: 0.
pub fn most() -> (u32, String) {
    DIALS.with_borrow(|dials| {
        dials.most.as_ref().map_or_else(
            || (0, String::new()),
            |((from, to, port), second, count)| {
                let text = format!(
                    "{from} made {count} connections to {to}:{port} within second {second}"
                );
                (*count, text)
            },
        )
    })
}
