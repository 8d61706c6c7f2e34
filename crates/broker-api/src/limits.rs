//! How far the limits of a node are used: told by metrics, and by health before a limit refuses anything.
//!
//! Invariant: a limit has one name everywhere: that of the configuration key that sets it, or what it limits where
//! there is no key.

use std::fmt;
use std::sync::Arc;

use crate::UnreadBudget;

/// Part of a refusing limit, in percent, from which health warns.
const WARN_PERCENT: u64 = 80;

/// A limit and what is used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitUse {
    /// Configuration key, or the name of the limit where there is none.
    pub name: &'static str,
    /// What is used.
    pub used: u64,
    /// The limit.
    pub max: u64,
    /// At the limit, something is refused. Otherwise something gives way or gets smaller.
    pub refuses: bool,
}

impl LimitUse {
    /// Whether an operator should know: what is refused soon.
    #[must_use]
    pub const fn is_near(&self) -> bool {
        self.refuses && self.used.saturating_mul(100) >= self.max.saturating_mul(WARN_PERCENT)
    }
}

struct Watched {
    name: &'static str,
    max: usize,
    refuses: bool,
    used: Box<dyn Fn() -> usize + Send + Sync>,
}

/// Limits of a node whose use is known.
#[derive(Default)]
pub struct Limits(Vec<Watched>);

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.uses()).finish()
    }
}

impl Limits {
    /// Adds a limit beyond which something is refused.
    pub fn refusing(
        &mut self,
        name: &'static str,
        max: usize,
        used: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        self.add(name, max, true, Box::new(used));
    }

    /// Adds a limit at which something gives way.
    pub fn yielding(
        &mut self,
        name: &'static str,
        max: usize,
        used: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        self.add(name, max, false, Box::new(used));
    }

    /// Adds the memory for what is read and not taken.
    pub fn unread(&mut self, budget: &Arc<UnreadBudget>) {
        let held = Arc::clone(budget);
        self.yielding("memory.unread.max_bytes", budget.limit(), move || {
            held.held()
        });
    }

    fn add(
        &mut self,
        name: &'static str,
        max: usize,
        refuses: bool,
        used: Box<dyn Fn() -> usize + Send + Sync>,
    ) {
        self.0.push(Watched {
            name,
            max,
            refuses,
            used,
        });
    }

    /// All of them, as they are now.
    pub fn uses(&self) -> impl Iterator<Item = LimitUse> {
        let whole = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        self.0.iter().map(move |limit| LimitUse {
            name: limit.name,
            used: whole((limit.used)()),
            max: whole(limit.max),
            refuses: limit.refuses,
        })
    }

    /// Those of which health warns.
    #[must_use]
    pub fn near(&self) -> Vec<LimitUse> {
        self.uses().filter(LimitUse::is_near).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_warns_of_what_will_be_refused() {
        let mut limits = Limits::default();
        limits.refusing("a", 10, || 7);
        limits.refusing("b", 10, || 8);
        limits.yielding("c", 10, || 10);
        let budget = UnreadBudget::new(100);
        limits.unread(&budget);
        let held = budget.hold(99);
        let near: Vec<_> = limits.near().iter().map(|limit| limit.name).collect();
        assert_eq!(near, ["b"]);
        let used: Vec<_> = limits.uses().map(|limit| limit.used).collect();
        assert_eq!(used, [7, 8, 10, 99]);
        drop(held);
    }
}
