//! The machines that simulated servers stand on: a clock that follows simulated time, a network of turmoil's
//! sockets, a disk in memory that may be slow, fail, or lose what was not synced.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use varve_server::Machine;
use varve_tests::chaos::Random;
use varve_tls::net::{Accept, Later, Listener, Network, Socket};
use varve_vfs::fault::Op;
use varve_vfs::mem::{Answer, MemVfs};
use varve_vfs::{Clock, Pace, Tick, Workers};

use crate::dials;

/// turmoil's network, as the host of that name sees it.
#[derive(Debug, Clone)]
pub struct Wires(pub String);

impl Network for Wires {
    fn listen<'a>(&'a self, address: &'a str) -> Later<'a, Listener> {
        Box::pin(async move {
            let listener = turmoil::net::TcpListener::bind(address).await?;
            Ok(Listener::Other(Box::new(Ear(listener))))
        })
    }

    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Later<'a, Socket> {
        Box::pin(async move {
            dials::count(&self.0, host, port);
            turmoil::net::TcpStream::connect((host, port))
                .await
                .map(socket)
        })
    }
}

fn socket(stream: turmoil::net::TcpStream) -> Socket {
    Socket::Other {
        local: stream.local_addr().ok(),
        remote: stream.peer_addr().ok(),
        wire: Box::new(stream),
    }
}

struct Ear(turmoil::net::TcpListener);

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ear")
    }
}

impl Accept for Ear {
    fn accept(&self) -> Later<'_, (Socket, SocketAddr)> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            Ok((socket(stream), peer))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Simulated time, with a wall clock that is a little off.
#[derive(Debug)]
pub struct HostClock {
    wall_ms: i64,
    /// The latest time that was shown, in nanoseconds: while a host is taken apart there is none.
    last: AtomicU64,
}

impl HostClock {
    /// A clock whose wall clock shows `wall_ms` when the simulation starts.
    pub const fn new(wall_ms: i64) -> Self {
        Self {
            wall_ms,
            last: AtomicU64::new(0),
        }
    }
}

impl Clock for HostClock {
    fn now(&self) -> Tick {
        let last = Duration::from_nanos(self.last.load(Ordering::Relaxed));
        let now = turmoil::sim_elapsed().map_or(last, |now| now.max(last));
        let ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.last.store(ns, Ordering::Relaxed);
        Tick::from_start(now)
    }

    fn wall_ms(&self) -> i64 {
        let since = self.now().since_start().as_millis();
        self.wall_ms
            .saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }
}

#[derive(Debug)]
struct Mood {
    random: Random,
    /// Longest time of one piece of work while nothing is wrong, in microseconds.
    usual_us: u64,
    /// No work begins before, in simulated time.
    stands_until: Duration,
    /// Syncs from now on until one fails; `None`: none does.
    fails_in: Option<u64>,
}

/// A node's disk and what is wrong with it. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct Disk {
    /// What is on it.
    pub files: MemVfs,
    mood: Arc<Mutex<Mood>>,
}

impl Disk {
    /// An empty one, on which a piece of work takes up to `usual`.
    pub fn new(seed: u64, usual: Duration) -> Self {
        let mood = Mood {
            random: Random::new(seed),
            usual_us: u64::try_from(usual.as_micros()).unwrap_or(u64::MAX),
            stands_until: Duration::ZERO,
            fails_in: None,
        };
        Self {
            files: MemVfs::new(),
            mood: Arc::new(Mutex::new(mood)),
        }
    }

    fn mood(&self) -> std::sync::MutexGuard<'_, Mood> {
        self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins no work before that moment of simulated time.
    pub fn stand_still(&self, until: Duration) {
        self.mood().stands_until = until;
    }

    /// The `n`-th sync from now on fails, once.
    pub fn fail_sync(&self, n: u64) {
        self.mood().fails_in = Some(n.max(1));
        let disk = self.clone();
        let hook = move |call: &varve_vfs::mem::Call<'_>| {
            if call.op != Op::Sync {
                return Answer::Go;
            }
            let mut mood = disk.mood();
            match &mut mood.fails_in {
                Some(1) => {
                    mood.fails_in = None;
                    Answer::Fail(Errno::IO)
                }
                Some(left) => {
                    *left -= 1;
                    Answer::Go
                }
                None => Answer::Go,
            }
        };
        self.files.set_hook(Some(Arc::new(hook)));
    }

    /// Nothing is wrong with it any more.
    pub fn heal(&self) {
        let mut mood = self.mood();
        mood.stands_until = Duration::ZERO;
        mood.fails_in = None;
    }
}

impl Pace for Disk {
    fn before(&self, worker: &str) -> Duration {
        // A lane only hands over; its writes go to memory, as a page cache takes them.
        if worker.starts_with("varve-lane") {
            return Duration::ZERO;
        }
        let mut mood = self.mood();
        let usual = mood.usual_us;
        let usual = Duration::from_micros(mood.random.below(usual + 1));
        let now = turmoil::sim_elapsed().unwrap_or_default();
        usual.max(mood.stands_until.saturating_sub(now))
    }
}

/// The machine of that name, with that disk.
pub fn machine(name: String, disk: &Disk, wall_ms: i64) -> Machine {
    Machine {
        vfs: Arc::new(disk.files.clone()),
        clock: Arc::new(HostClock::new(wall_ms)),
        network: Arc::new(Wires(name)),
        workers: Workers::Tasks(Arc::new(disk.clone())),
    }
}
