//! TLS of listeners and connections: certificates from PEM files, read again when they change, and what a
//! failed handshake means in words.
//!
//! [`ServerTls`] and [`ClientTls`] hold the present configuration; [`Accepted`] and [`Connector`] are a
//! listener's and a caller's connection, with TLS or without; [`Explained`] says why one failed; [`watch`] reads
//! files again; [`net`] is the seam to the network below them; [`speech`] tells what the other side of a connection
//! speaks, [`quiet`] keeps strangers from filling the log, and [`Admission`] counts connections. Between nodes the
//! certificate names the node ([`names`]). Invariants: TLS 1.3 with the provider chosen here, whatever else
//! a program has installed; a new file that is not sound never replaces a sound one; nothing is decided from
//! what the other side says of itself, only from its certificate; private keys are never printed.

pub mod accepted;
mod admission;
pub mod connector;
pub mod explained;
mod material;
pub mod names;
pub mod net;
pub mod quiet;
mod reload;
pub mod speech;

pub use accepted::{Accepted, Caller};
pub use admission::{Admission, Admitted, ConnectionLimits, Refused};
pub use connector::{ConnectError, Connector};
pub use explained::{Explained, Fault};
pub use material::{Callers, ClientFiles, ClientTls, ServerFiles, ServerTls, TlsError};
pub use net::{Listener, Network, Socket, Tcp};
pub use quiet::LogLimit;
pub use reload::{Reload, watch};
