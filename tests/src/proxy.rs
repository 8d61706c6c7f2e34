//! A TCP proxy that misbehaves on demand: late, slow, one-way deaf, in slivers, cut off, half closed.
//!
//! Bytes are never lost or changed inside a connection, as TCP would not: a direction that is held keeps what it
//! has, and goes on with it when it is let go, like a network that comes back. Connections made meanwhile are
//! taken and hang. Rules hold for connections that exist and for those to come, from the moment they are set.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;
/// Chunks on their way in one direction of one connection.
const CHUNKS_UNDER_WAY: usize = 256;

/// What happens to one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way {
    /// Nothing goes through.
    pub held: bool,
    /// Everything comes this much later.
    pub delay: Duration,
    /// At most so many bytes a second; 0: no limit.
    pub bytes_per_second: u32,
    /// Bytes go in pieces of at most so many; 0: as they come.
    pub sliver: usize,
}

impl Way {
    /// Nothing goes through.
    #[must_use]
    pub fn held() -> Self {
        Self {
            held: true,
            ..Self::default()
        }
    }

    /// Everything comes later.
    #[must_use]
    pub fn late(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }
}

/// What happens to both directions, and to new connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// From whoever connects to the server behind.
    pub up: Way,
    /// Back.
    pub down: Way,
    /// New connections are reset at once.
    pub refuse: bool,
}

impl Rules {
    /// The same in both directions.
    #[must_use]
    pub fn both(way: Way) -> Self {
        Self {
            up: way,
            down: way,
            refuse: false,
        }
    }
}

/// Rules, and how often connections were cut: a change of a number is an order.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    rules: Rules,
    resets: u64,
    half_closes: u64,
}

/// A running proxy; its connections end with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    // Dropped last: everything runs on it.
    runtime: Option<Runtime>,
}

impl Proxy {
    /// Listens at `listen` (port 0: any) and forwards to `target`.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    #[allow(clippy::expect_used, reason = "test harness")]
    pub fn start(listen: &str, target: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind(listen))
            .expect("the proxy listens");
        let address = listener.local_addr().expect("an address");
        let (state, seen) = watch::channel(State::default());
        runtime.spawn(accept(listener, target.to_owned(), seen));
        Self {
            address,
            state,
            runtime: Some(runtime),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Sets the rules from now on.
    pub fn set(&self, rules: Rules) {
        self.state.send_modify(|state| state.rules = rules);
    }

    /// Everything goes through again.
    pub fn heal(&self) {
        self.set(Rules::default());
    }

    /// Resets every connection.
    pub fn reset_all(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }

    /// Tells the server of every connection that no more will come; answers still go back.
    pub fn half_close_all(&self) {
        self.state.send_modify(|state| state.half_closes += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

async fn accept(listener: TcpListener, target: String, state: watch::Receiver<State>) {
    while let Ok((client, _)) = listener.accept().await {
        if state.borrow().rules.refuse {
            reset(&client);
            continue;
        }
        tokio::spawn(connection(client, target.clone(), state.clone()));
    }
}

/// Resolves when all connections are to be cut.
async fn cut(mut state: watch::Receiver<State>, before: u64) {
    let _ = state.wait_for(|state| state.resets != before).await;
}

async fn connection(client: TcpStream, target: String, state: watch::Receiver<State>) {
    let resets = state.borrow().resets;
    let mut held = state.clone();
    let opened = async {
        // Whoever is cut off from the server does not reach it by connecting.
        let _ = held.wait_for(|state| !state.rules.up.held).await;
        TcpStream::connect(&target).await
    };
    let server = tokio::select! {
        opened = opened => opened,
        () = cut(state.clone(), resets) => return reset(&client),
    };
    let Ok(server) = server else {
        return reset(&client);
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = pump(
        from_client,
        to_server,
        state.clone(),
        |rules| rules.up,
        true,
    );
    let down = pump(
        from_server,
        to_client,
        state.clone(),
        |rules| rules.down,
        false,
    );
    // Each cuts the socket that it writes to.
    tokio::join!(up, down);
}

/// Moves bytes one way until there are no more.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: watch::Receiver<State>,
    way: fn(&Rules) -> Way,
    half_closes: bool,
) {
    let resets = state.borrow().resets;
    let (send, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_UNDER_WAY);
    let mut seen = state.clone();
    let mut closing = state.clone();
    let closes = state.borrow().half_closes;
    let read = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let _ = seen.wait_for(|state| !way(&state.rules).held).await;
            match from.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    // As the rules are now: it may have waited long.
                    let due = Instant::now() + way(&seen.borrow().rules).delay;
                    if send.send((due, buffer[..count].to_vec())).await.is_err() {
                        break;
                    }
                }
            }
        }
        // Dropped here, so that the writer comes to an end.
        drop(send);
        from
    };
    let mut seen = state.clone();
    let write = async {
        while let Some((due, chunk)) = chunks.recv().await {
            tokio::time::sleep_until(due).await;
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let _ = seen.wait_for(|state| !way(&state.rules).held).await;
                let rules = way(&seen.borrow().rules);
                let most = match rules.sliver {
                    0 => rest.len(),
                    few => few.min(rest.len()),
                };
                if to.write_all(&rest[..most]).await.is_err() {
                    return;
                }
                rest = &rest[most..];
                if rules.bytes_per_second > 0 {
                    let share = most as f64 / f64::from(rules.bytes_per_second);
                    tokio::time::sleep(Duration::from_secs(1).mul_f64(share)).await;
                }
            }
        }
        // An end is news like any other.
        let _ = seen.wait_for(|state| !way(&state.rules).held).await;
    };
    let half_closed = async {
        let asked = closing.wait_for(|state| half_closes && state.half_closes != closes);
        let gone = asked.await.is_err();
        if gone {
            std::future::pending::<()>().await;
        }
    };
    tokio::pin!(read, half_closed);
    {
        let both = async {
            let (from, ()) = tokio::join!(&mut read, write);
            from
        };
        tokio::select! {
            from = both => drop(from),
            () = half_closed => {}
            () = cut(state.clone(), resets) => {
                reset(to.as_ref());
                // Dropped, it would say that it ends in order.
                to.forget();
                return;
            }
        }
    }
    let _ = to.shutdown().await;
}
