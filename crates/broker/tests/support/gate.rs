//! A disk on which what was a topic's or a replica's is not removed before a gate is opened, as if that took for ever.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use varve_vfs::fault::Op;
use varve_vfs::mem::{Answer, Call, MemVfs};

#[derive(Default)]
struct State {
    open: bool,
    waiting: usize,
}

/// Opens when it is dropped: a test must not wait for what it holds up.
#[derive(Default)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

impl Gate {
    /// Removals on this disk wait from now on.
    pub fn shut(&self, disk: &MemVfs) {
        let shared = Arc::clone(&self.0);
        disk.set_hook(Some(Arc::new(move |call: &Call<'_>| {
            let aside = call.path.extension().is_some_and(|e| e == "replaced");
            let below = call.path.parent() == Some(Path::new("/data/topics"));
            if call.op == Op::Remove && (below || aside) {
                let (state, opened) = &*shared;
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.waiting += 1;
                while !state.open {
                    state = opened.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.waiting -= 1;
            }
            Answer::Go
        })));
    }

    /// Removals that wait.
    pub fn waiting(&self) -> usize {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting
    }

    pub fn open(&self) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = true;
        self.0.1.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}
