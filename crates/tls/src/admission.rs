//! How many connections a listener holds: in all, and from one address, so that no single client takes all of them.
//!
//! Invariants: what was admitted is counted until its [`Admitted`] is dropped; an address without connections costs no
//! memory. Addresses of IPv6 count by their network of 64 bits, which one host has to itself. Nothing here reads or
//! writes a connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use varve_types::limits;

/// Bounds of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Most open connections.
    pub all: usize,
    /// Most open connections from one address.
    pub per_address: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            all: limits::CONNECTIONS_DEFAULT_MAX,
            per_address: limits::CONNECTIONS_PER_ADDRESS_DEFAULT_MAX,
        }
    }
}

impl ConnectionLimits {
    /// So many, all of which may come from one address.
    #[must_use]
    pub const fn of(all: usize) -> Self {
        Self {
            all,
            per_address: all,
        }
    }
}

/// The open connections of one listener.
#[derive(Debug)]
pub struct Admission {
    listener: &'static str,
    limits: ConnectionLimits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    from: HashMap<IpAddr, usize>,
}

impl Admission {
    /// For the listener whose configuration keys begin with `listener`.
    #[must_use]
    pub fn new(listener: &'static str, limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            listener,
            limits,
            open: Mutex::default(),
        })
    }

    /// Counts a connection from `peer`.
    ///
    /// # Errors
    /// Which limit is reached. Nothing is counted then.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Admitted, Refused> {
        let from = host(peer);
        let refused = |count, address| Refused {
            listener: self.listener,
            count,
            address,
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= self.limits.all {
            return Err(refused(open.all, None));
        }
        let count = open.from.get(&from).copied().unwrap_or_default();
        if count >= self.limits.per_address {
            return Err(refused(count, Some(from)));
        }
        open.from.insert(from, count + 1);
        open.all += 1;
        Ok(Admitted {
            admission: Arc::clone(self),
            from,
        })
    }

    /// Open connections, and how many there may be.
    #[must_use]
    pub fn open(&self) -> (usize, usize) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        (open.all, self.limits.all)
    }

    fn release(&self, from: IpAddr) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        if let Entry::Occupied(mut count) = open.from.entry(from) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// What stands for the host behind an address.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address => address,
    }
}

/// A connection that counts.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    from: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.release(self.from);
    }
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    listener: &'static str,
    count: usize,
    address: Option<IpAddr>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, listener) = (self.count, self.listener);
        match self.address {
            None => write!(
                f,
                "{count} are open, the limit that {listener}.max_connections sets"
            ),
            Some(address) => write!(
                f,
                "{count} from {address} are open, the limit that \
                 {listener}.max_connections_per_address sets"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(all: usize, per_address: usize) -> Arc<Admission> {
        Admission::new("listeners.client", ConnectionLimits { all, per_address })
    }

    #[test]
    fn one_address_cannot_take_all_places_and_gives_its_own_back() {
        let admission = admission(5, 3);
        let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let held: Vec<_> = (0..3).map(|_| admission.admit(a).unwrap()).collect();
        let refused = admission.admit(a).unwrap_err().to_string();
        assert_eq!(
            refused,
            "3 from 10.0.0.1 are open, the limit that listeners.client.max_connections_per_address \
             sets"
        );
        let others = [admission.admit(b).unwrap(), admission.admit(b).unwrap()];
        assert_eq!(
            admission.admit(b).unwrap_err().to_string(),
            "5 are open, the limit that listeners.client.max_connections sets"
        );
        drop(held);
        assert_eq!(admission.open(), (2, 5));
        assert!(admission.admit(a).is_ok());
        drop(others);
        assert_eq!(admission.open().0, 0);
        assert!(admission.open.lock().unwrap().from.is_empty());
    }

    #[test]
    fn a_host_does_not_multiply_by_its_addresses() {
        let admission = admission(9, 1);
        let _v4 = admission.admit("10.0.0.1".parse().unwrap()).unwrap();
        assert!(admission.admit("::ffff:10.0.0.1".parse().unwrap()).is_err());
        let _v6 = admission.admit("2001:db8::1".parse().unwrap()).unwrap();
        assert!(admission.admit("2001:db8::2:1".parse().unwrap()).is_err());
        assert!(admission.admit("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }
}
