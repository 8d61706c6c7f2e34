//! Messages to systemd (`sd_notify`): a datagram to the socket it names. Without one, nothing happens.

use std::os::unix::net::UnixDatagram;

/// Tells the service manager about a change of state.
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let send = || -> std::io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        let text = path.to_string_lossy();
        if let Some(name) = text.strip_prefix('@') {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.send_to_addr(state.as_bytes(), &address)?;
        } else {
            socket.send_to(state.as_bytes(), &path)?;
        }
        Ok(())
    };
    if let Err(error) = send() {
        tracing::debug!(%error, "could not notify the service manager");
    }
}
