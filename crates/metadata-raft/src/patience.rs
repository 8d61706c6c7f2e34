//! What to do on a full disk: wait. Nothing was written, so the same step can be made again, and a node that is
//! merely full comes back by itself when there is space.
//!
//! Invariant: only a step that has changed nothing is made again. Every other failure is passed on at once.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::StoreError;

/// Time between attempts.
const RETRY: Duration = Duration::from_millis(200);

/// See the module. Shared by whoever writes and whoever ends the node.
#[derive(Debug, Default)]
pub struct Patience {
    given_up: Mutex<bool>,
    changed: Condvar,
}

impl Patience {
    /// Makes a step again until it does not fail for want of space, or nobody waits for it any more. Blocks.
    ///
    /// # Errors
    /// What the step said.
    pub fn insist<T>(
        &self,
        mut step: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut told = false;
        loop {
            let result = step();
            match &result {
                Err(error) if error.is_no_space() => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(
                            %error,
                            "the disk is full: this node takes no part in metadata decisions until \
                             there is space"
                        );
                    }
                }
                _ => {
                    if told && result.is_ok() {
                        tracing::info!("there is disk space for the metadata again");
                    }
                    return result;
                }
            }
            let mut given_up = self.given_up.lock();
            if !*given_up {
                self.changed.wait_for(&mut given_up, RETRY);
            }
            if *given_up {
                return result;
            }
        }
    }

    /// From now on a full disk is a failure as any other.
    pub fn give_up(&self) {
        *self.given_up.lock() = true;
        self.changed.notify_all();
    }
}
