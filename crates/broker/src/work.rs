//! Workers: loops that take what is in an [`Inbox`] and may block over it. They are threads, and in a simulation
//! of whole servers tasks; what they do is the same.
//!
//! Invariants: a worker ends once its inbox is closed and empty, and then drops what it owns; nothing of one
//! worker runs twice at a time.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;

use varve_vfs::Workers;

use crate::inbox::Inbox;

/// What a worker takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// One item: others may take the next at the same time.
    One,
    /// Whatever waits.
    All,
}

/// A running worker.
#[derive(Debug)]
pub(crate) enum Worker {
    Thread(JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Worker {
    /// Starts a worker that does `work` with what it takes from `inbox`; `name` is for people, and has at most
    /// 15 characters.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start<T: Send + 'static>(
        workers: &Workers,
        name: &str,
        inbox: Arc<Inbox<T>>,
        take: Take,
        mut work: impl FnMut(&mut VecDeque<T>) + Send + 'static,
    ) -> io::Result<Self> {
        let pace = match workers {
            Workers::Threads => {
                let thread = std::thread::Builder::new().name(name.to_owned());
                let run = move || {
                    let mut taken = VecDeque::new();
                    let wait = match take {
                        Take::One => Inbox::take_one,
                        Take::All => Inbox::take_all,
                    };
                    while wait(&inbox, &mut taken) {
                        work(&mut taken);
                        taken.clear();
                    }
                };
                return thread.spawn(run).map(Self::Thread);
            }
            Workers::Tasks(pace) => Arc::clone(pace),
        };
        let name = name.to_owned();
        let run = async move {
            let mut taken = VecDeque::new();
            loop {
                inbox.ready().await;
                let pause = pace.before(&name);
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                if !inbox.try_take(take == Take::One, &mut taken) {
                    return;
                }
                if !taken.is_empty() {
                    work(&mut taken);
                    taken.clear();
                }
            }
        };
        Ok(Self::Task(spawn(run)))
    }

    /// Waits for the end of a worker whose inbox is closed. Returns whether it ended in order.
    pub(crate) async fn ended(self) -> bool {
        match self {
            Self::Thread(thread) => {
                let joined = tokio::task::spawn_blocking(move || thread.join().is_ok());
                joined.await.unwrap_or(false)
            }
            Self::Task(task) => task.await.is_ok(),
        }
    }
}

/// Starts a task. Boxed, so that the runtime's part of a task is compiled once and not for each place that starts one.
pub(crate) fn spawn(
    work: impl Future<Output = ()> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    fn boxed(work: Pin<Box<dyn Future<Output = ()> + Send>>) -> tokio::task::JoinHandle<()> {
        tokio::spawn(work)
    }
    boxed(Box::pin(work))
}

/// Runs what may block: on a thread for such work, or at once where workers are tasks.
pub(crate) async fn blocking<T: Send + 'static>(
    workers: &Workers,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    match workers {
        Workers::Threads => tokio::task::spawn_blocking(work).await,
        Workers::Tasks(_) => Ok(work()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use varve_vfs::Pace;

    use super::*;

    #[derive(Debug)]
    struct Slow;

    impl Pace for Slow {
        fn before(&self, worker: &str) -> Duration {
            assert_eq!(worker, "test");
            Duration::from_millis(2)
        }
    }

    async fn works(workers: &Workers, take: Take) -> Vec<Vec<u32>> {
        let (inbox, seen) = (Inbox::new(), Arc::new(Mutex::new(Vec::new())));
        let kept = Arc::clone(&seen);
        for n in 0..3 {
            inbox.push(n).unwrap();
        }
        let worker = Worker::start(workers, "test", Arc::clone(&inbox), take, move |taken| {
            kept.lock().unwrap().push(Vec::from_iter(taken.drain(..)));
        });
        let worker = worker.unwrap();
        while seen.lock().unwrap().iter().flatten().count() < 3 {
            tokio::task::yield_now().await;
        }
        inbox.push(3).unwrap();
        inbox.close();
        assert!(worker.ended().await, "it ends once the inbox is closed");
        let seen = seen.lock().unwrap();
        seen.clone()
    }

    #[tokio::test]
    async fn threads_and_tasks_do_the_same() {
        let tasks = Workers::Tasks(Arc::new(Slow));
        for workers in [Workers::Threads, tasks] {
            let one = works(&workers, Take::One).await;
            assert_eq!(one, [[0], [1], [2], [3]], "{workers:?}");
            let all = works(&workers, Take::All).await;
            assert_eq!(all, [vec![0, 1, 2], vec![3]], "{workers:?}");
            assert_eq!(blocking(&workers, || 7).await.unwrap(), 7);
        }
    }
}
