//! Deadlines, kept by the server for every call of every service: a unary call is answered at its deadline, and
//! a stream ends at it, whatever its client does. What the call held is let go at that moment, a membership of a
//! group too, also where the client reads nothing and the end cannot be sent.
//!
//! Invariants: a malformed `grpc-timeout` is an error and never taken for none; a call without one has no
//! deadline here (services bound what they wait for by themselves). It never reads or changes a message.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use varve_broker_api::Error;
use varve_types::ErrorKind;

use crate::frames::trailers;
use crate::metrics::Metrics;
use crate::status;

/// Request metadata with the time that a call has.
pub const GRPC_TIMEOUT: &str = "grpc-timeout";
/// Longest deadline that is told apart from none: beyond a year no clock arithmetic is at risk.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads the time that a call has; `None`: its client waits without end.
///
/// # Errors
/// `InvalidRequest` for a value that the gRPC protocol does not know, and for more than one.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    let mut values = headers.get_all(GRPC_TIMEOUT).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        let text = format!("{GRPC_TIMEOUT} may be given once; nothing was done");
        return Err(Error::invalid(GRPC_TIMEOUT, text));
    }
    span(value.as_bytes())
        .map(|span| Some(span.min(TIMEOUT_MAX)))
        .ok_or_else(|| {
            let found = String::from_utf8_lossy(value.as_bytes());
            let text = format!(
                "{GRPC_TIMEOUT} must be 1 to 8 digits and one of H M S m u n; found {found:?}; nothing was done"
            );
            Error::invalid(GRPC_TIMEOUT, text)
        })
}

/// `TimeoutValue TimeoutUnit` of the gRPC protocol: at most 8 digits and a unit.
fn span(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.trim_ascii().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// The error that ends a call at its deadline.
#[must_use]
pub fn over() -> Error {
    Error::new(
        ErrorKind::CommitTimeout,
        "the deadline of the call has passed, and the node ended the call; requests of it without an answer may or \
         may not have been carried out",
    )
}

/// What a body gives.
type FrameOf<B> = Result<Frame<<B as Body>::Data>, <B as Body>::Error>;

/// The body of an answer that ends at the deadline of its call, if it has one.
#[derive(Debug)]
pub enum Limited<B> {
    /// It ends by itself.
    Free(B),
    /// It ends at a time.
    Until(Watch<B>),
}

impl<B: Send + 'static> Limited<B> {
    /// Ends `body` at `deadline` with DEADLINE_EXCEEDED, unless it has ended by then.
    pub fn until(body: B, deadline: Instant, metrics: Metrics) -> Self {
        let state = State {
            body: Some(body),
            waker: None,
            ended: false,
        };
        let state = Arc::new(Mutex::new(state));
        let watched = Arc::clone(&state);
        let watch = tokio::spawn(async move {
            tokio::time::sleep_until(deadline.into()).await;
            let (body, waker) = {
                let mut state = watched.lock();
                (state.body.take(), state.waker.take())
            };
            if body.is_some() {
                metrics.error(ErrorKind::CommitTimeout.reason());
            }
            // Not under the lock: what the body holds ends here, with all that follows from it.
            drop(body);
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        Self::Until(Watch {
            state,
            task: watch.abort_handle(),
        })
    }
}

/// A body and the task that takes it away at a deadline.
#[derive(Debug)]
pub struct Watch<B> {
    state: Arc<Mutex<State<B>>>,
    task: AbortHandle,
}

impl<B> Drop for Watch<B> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct State<B> {
    /// `None`: it has ended, or the deadline has taken it.
    body: Option<B>,
    waker: Option<Waker>,
    /// The end of the answer has been given to the transport.
    ended: bool,
}

impl<B: Body + Unpin> State<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<FrameOf<B>>> {
        let Some(body) = self.body.as_mut() else {
            if std::mem::replace(&mut self.ended, true) {
                return Poll::Ready(None);
            }
            let status = status::to_status(&over());
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
        };
        let polled = Pin::new(body).poll_frame(cx);
        match &polled {
            Poll::Pending => self.waker = Some(cx.waker().clone()),
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {}
            Poll::Ready(_) => {
                self.ended = true;
                self.body = None;
            }
        }
        polled
    }
}

impl<B: Body + Unpin> Body for Limited<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.get_mut() {
            Self::Free(body) => Pin::new(body).poll_frame(cx),
            Self::Until(watch) => watch.state.lock().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Free(body) => body.is_end_stream(),
            Self::Until(watch) => watch.state.lock().ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Free(body) => body.size_hint(),
            Self::Until(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(GRPC_TIMEOUT, http::HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    #[test]
    fn every_form_of_a_timeout_is_taken_or_refused() {
        assert_eq!(timeout(&headers(&[])).unwrap(), None);
        let good: [(&[u8], Duration); 8] = [
            (b"0m", Duration::ZERO),
            (b"0n", Duration::ZERO),
            (b"1S", Duration::from_secs(1)),
            (b"00000001S", Duration::from_secs(1)),
            (b"2M", Duration::from_secs(120)),
            (b" 1500u ", Duration::from_micros(1_500)),
            (b"99999999n", Duration::from_nanos(99_999_999)),
            (b"99999999H", TIMEOUT_MAX),
        ];
        for (value, span) in good {
            assert_eq!(timeout(&headers(&[value])).unwrap(), Some(span));
        }
        let bad: [&[u8]; 15] = [
            b"",
            b" ",
            b"S",
            b"1",
            b"abc",
            b"-1S",
            b"+1S",
            b"1.5S",
            b"1e3m",
            b"1X",
            b"1s",
            b"1 S",
            b"S1",
            b"999999999S",
            b"\xff1S",
        ];
        for value in bad {
            let error = timeout(&headers(&[value])).unwrap_err();
            assert_eq!(error.field, Some(GRPC_TIMEOUT), "{value:?}");
        }
        assert!(timeout(&headers(&[b"1S", b"2S"])).is_err());
    }
}
