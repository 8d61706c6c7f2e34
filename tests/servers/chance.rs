//! Chance that follows from the seed, and clocks that follow simulated time, also for those that ask the C library.
//! The thread of a simulation gets the system's random bytes from a generator of its own: ids, the order of hash
//! maps, election timeouts and the jitter of retries are drawn from these. Its clocks show simulated time: libraries
//! keep times of their own, and records carry one. All other threads get what they always get.

use std::cell::Cell;
use std::time::Duration;

use rustix::time::ClockId;

/// What the wall clock of a simulation shows when it begins, in milliseconds since 1970: some day in 2026.
pub const BEGIN_MS: i64 = 1_780_000_000_000;
/// What its monotonic clock shows then; away from zero, since some subtract.
const UP: Duration = Duration::from_secs(1_000_000);

thread_local! {
    /// Simulated time; `None`: this thread's clocks are the system's.
    static NOW: Cell<Option<Duration>> = const { Cell::new(None) };
    /// State of the generator (splitmix64); `None`: this thread's chance is the system's.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on this thread's random bytes follow from `seed`. It must be a fresh thread: what was drawn before stays.
pub fn follow(seed: u64) {
    STATE.with(|state| state.set(Some(seed)));
    NOW.with(|now| now.set(Some(Duration::ZERO)));
}

/// This thread's clocks show that moment of simulated time.
pub fn now(at: Duration) {
    NOW.with(|now| now.set(Some(at)));
}

fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, z ^ (z >> 31))
}

/// Stands in for the C library's function of that name, which everything here asks.
///
/// # Safety
/// `buffer` must have room for `len` bytes, as its callers promise to the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, len: usize, flags: u32) -> isize {
    // SAFETY: the caller promises that the bytes are its own to be written, and nobody reads them before.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
    let seeded = STATE.try_with(Cell::get).ok().flatten();
    let Some(mut state) = seeded else {
        let flags = rustix::rand::GetRandomFlags::from_bits_retain(flags);
        return match rustix::rand::getrandom(bytes, flags) {
            Ok(filled) => isize::try_from(filled).unwrap_or(-1),
            Err(_) => -1,
        };
    };
    for chunk in bytes.chunks_mut(8) {
        let (after, word) = next(state);
        state = after;
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    let _ = STATE.try_with(|kept| kept.set(Some(state)));
    isize::try_from(len).unwrap_or(-1)
}

/// A moment as the C library has it.
#[repr(C)]
#[derive(Debug)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// Stands in for the C library's function of that name.
///
/// # Safety
/// `at` must point to a moment that may be written, as its callers promise to the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: i32, at: *mut Timespec) -> i32 {
    let clock = match clock {
        0 => ClockId::Realtime,
        1 => ClockId::Monotonic,
        2 => ClockId::ProcessCPUTime,
        3 => ClockId::ThreadCPUTime,
        4 => ClockId::MonotonicRaw,
        5 => ClockId::RealtimeCoarse,
        6 => ClockId::MonotonicCoarse,
        7 => ClockId::Boottime,
        _ => return -1,
    };
    let simulated = NOW.try_with(Cell::get).ok().flatten();
    let base = match clock {
        ClockId::Realtime | ClockId::RealtimeCoarse => {
            Duration::from_millis(BEGIN_MS.unsigned_abs())
        }
        _ => UP,
    };
    let (seconds, nanoseconds) = match simulated {
        Some(now) => {
            let now = base + now;
            let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            (seconds, i64::from(now.subsec_nanos()))
        }
        None => {
            let now = rustix::time::clock_gettime(clock);
            (now.tv_sec, now.tv_nsec)
        }
    };
    let moment = Timespec {
        seconds,
        nanoseconds,
    };
    // SAFETY: the caller promises that it may be written.
    unsafe { at.write(moment) };
    0
}
