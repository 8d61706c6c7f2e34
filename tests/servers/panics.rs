//! Panics of a simulation are kept for its report instead of being printed; all others are printed as ever.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static KEPT: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Keeps the panics of this thread from now on.
pub fn keep() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let printed = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let kept = KEPT.try_with(|kept| match &mut *kept.borrow_mut() {
                Some(kept) => {
                    kept.push(panic.to_string());
                    true
                }
                None => false,
            });
            if !kept.unwrap_or(false) {
                printed(panic);
            }
        }));
    });
    KEPT.with(|kept| *kept.borrow_mut() = Some(Vec::new()));
}

/// The panics since the last call.
pub fn taken() -> Vec<String> {
    KEPT.with(|kept| kept.borrow_mut().as_mut().map(std::mem::take))
        .unwrap_or_default()
}
