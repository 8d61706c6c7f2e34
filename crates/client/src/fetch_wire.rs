//! FetchStream without the copy that the library's decoder makes: a message is read off the frames as they
//! came from the connection. A run of batches that came in one frame is used where it lies; one that came
//! in several is put together, once.
//!
//! Invariants: the bytes are gRPC's and nothing else; a message is given whole or not at all; no more than
//! one message and one frame beyond it are held; a stream ends with the server's status, or with the reason
//! why there is none.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt as _;
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::GrpcService;
use tonic::{Code, Status};
use varve_proto::v1;

use crate::connect::{MAX_DECODE_BYTES, Rpc};

/// Path of the method.
const PATH: &str = "/varve.v1.ConsumerService/FetchStream";
/// gRPC's prefix of a message: a compression flag and its length.
const PREFIX_BYTES: usize = 5;

type Incoming = <Rpc as GrpcService<tonic::body::Body>>::ResponseBody;

/// Opens the stream and gives its answers.
///
/// # Errors
/// The status of a server that refuses, or of a connection that fails.
pub(crate) async fn open(
    mut rpc: Rpc,
    requests: mpsc::UnboundedReceiver<v1::FetchStreamRequest>,
) -> Result<Answers<Incoming>, Status> {
    let isolation = rpc.isolation();
    let frames = UnboundedReceiverStream::new(requests).map(move |mut request| {
        see_as(isolation, &mut request);
        frame(&request)
    });
    let body = tonic::body::Body::new(StreamBody::new(frames));
    let request = http::Request::post(PATH)
        .version(http::Version::HTTP_2)
        .header(http::header::TE, "trailers")
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .body(body)
        .map_err(|error| Status::internal(error.to_string()))?;
    std::future::poll_fn(|cx| GrpcService::<tonic::body::Body>::poll_ready(&mut rpc, cx))
        .await
        .map_err(Status::from_error)?;
    let response = GrpcService::call(&mut rpc, request)
        .await
        .map_err(Status::from_error)?;
    // A refusal has no body: its status stands in the headers.
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Err(status);
    }
    if response.status() != http::StatusCode::OK {
        let text = format!("the server answered with HTTP status {}", response.status());
        return Err(Status::new(code_of(response.status()), text));
    }
    Ok(Answers::new(response.into_body()))
}

/// What the reader does not choose is chosen by its client.
fn see_as(isolation: v1::Isolation, request: &mut v1::FetchStreamRequest) {
    use v1::fetch_stream_request::Command;
    if let Some(Command::Open(open)) = &mut request.command
        && open.isolation() == v1::Isolation::Unspecified
    {
        open.set_isolation(isolation);
    }
}

/// gRPC's reading of an HTTP status that comes without one of its own.
fn code_of(status: http::StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

fn frame(request: &v1::FetchStreamRequest) -> Result<Frame<Bytes>, Status> {
    let len = request.encoded_len();
    let prefix = u32::try_from(len)
        .map_err(|_| Status::internal(format!("a request of {len} bytes is too long for gRPC")))?;
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + len);
    bytes.put_u8(0);
    bytes.put_u32(prefix);
    request
        .encode(&mut bytes)
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(Frame::data(bytes.freeze()))
}

/// The answers of a stream.
pub(crate) struct Answers<B> {
    body: B,
    arrived: Segments,
    /// Length of the message that is arriving.
    expected: Option<usize>,
}

impl<B> Answers<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn new(body: B) -> Self {
        Self {
            body,
            arrived: Segments::default(),
            expected: None,
        }
    }

    /// The next answer; `None`: the server ended the stream in good order.
    ///
    /// # Errors
    /// The server's status, the connection's failure, or bytes that are no messages.
    pub async fn next(&mut self) -> Result<Option<v1::FetchStreamResponse>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.arrived.push(data),
                    Err(frame) => return self.end(frame.trailers_ref()),
                },
                Some(Err(error)) => return Err(Status::from_error(error.into())),
                None => return self.end(None),
            }
        }
    }

    fn end(
        &self,
        trailers: Option<&http::HeaderMap>,
    ) -> Result<Option<v1::FetchStreamResponse>, Status> {
        match trailers.and_then(Status::from_header_map) {
            Some(status) if status.code() != Code::Ok => Err(status),
            Some(_) if self.expected.is_none() && !self.arrived.has_remaining() => Ok(None),
            Some(_) => Err(Status::internal(
                "the stream ended in the middle of a message",
            )),
            None => Err(Status::unknown("the stream ended without a status")),
        }
    }

    /// A message, if all of it has arrived.
    fn take(&mut self) -> Result<Option<v1::FetchStreamResponse>, Status> {
        let expected = match self.expected {
            Some(expected) => expected,
            None if self.arrived.remaining() < PREFIX_BYTES => return Ok(None),
            None => {
                if self.arrived.get_u8() != 0 {
                    let text = "the server compressed a stream although the client did not ask for \
                        it";
                    return Err(Status::internal(text));
                }
                let len = self.arrived.get_u32() as usize;
                if len > MAX_DECODE_BYTES {
                    let text = format!(
                        "a message of {len} bytes is too long; at most {MAX_DECODE_BYTES} are read"
                    );
                    return Err(Status::out_of_range(text));
                }
                *self.expected.insert(len)
            }
        };
        if self.arrived.remaining() < expected {
            return Ok(None);
        }
        self.expected = None;
        v1::FetchStreamResponse::decode((&mut self.arrived).take(expected))
            .map(Some)
            .map_err(|error| Status::internal(format!("a message cannot be decoded: {error}")))
    }
}

/// Bytes in the pieces in which they came. Taking bytes that lie in one piece copies nothing.
#[derive(Debug, Default)]
struct Segments {
    pieces: VecDeque<Bytes>,
    remaining: usize,
}

impl Segments {
    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.remaining += piece.len();
            self.pieces.push_back(piece);
        }
    }
}

impl Buf for Segments {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece.as_ref())
    }

    fn advance(&mut self, mut count: usize) {
        assert!(
            count <= self.remaining,
            "{count} bytes of {}",
            self.remaining
        );
        self.remaining -= count;
        while let Some(front) = self.pieces.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        assert!(len <= self.remaining, "{len} bytes of {}", self.remaining);
        let whole = match self.pieces.front_mut() {
            Some(front) if front.len() > len => front.split_to(len),
            Some(front) if front.len() == len => {
                let front = std::mem::take(front);
                self.pieces.pop_front();
                front
            }
            _ => {
                let mut gathered = BytesMut::with_capacity(len);
                gathered.put((&mut *self).take(len));
                return gathered.freeze();
            }
        };
        self.remaining -= len;
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::fetch_stream_response::Event;

    fn records(len: usize) -> v1::FetchStreamResponse {
        let batch = v1::EncodedBatch {
            format: 2,
            data: vec![0x3c; len].into(),
        };
        let records = v1::FetchStreamRecords {
            subscription_id: 5,
            batches: vec![batch],
            next_offset: 77,
            ..Default::default()
        };
        v1::FetchStreamResponse {
            event: Some(Event::Records(records)),
        }
    }

    fn wire(messages: &[v1::FetchStreamResponse]) -> Bytes {
        let mut bytes = BytesMut::new();
        for message in messages {
            bytes.put_u8(0);
            bytes.put_u32(message.encoded_len() as u32);
            message.encode(&mut bytes).unwrap();
        }
        bytes.freeze()
    }

    type Body = StreamBody<tokio_stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Status>>>>;

    fn answers(data: Vec<Bytes>, trailers: Option<&'static str>) -> Answers<Body> {
        let mut frames: Vec<_> = data.into_iter().map(|d| Ok(Frame::data(d))).collect();
        if let Some(code) = trailers {
            let mut map = http::HeaderMap::new();
            map.insert("grpc-status", http::HeaderValue::from_static(code));
            frames.push(Ok(Frame::trailers(map)));
        }
        Answers::new(StreamBody::new(tokio_stream::iter(frames)))
    }

    #[tokio::test]
    async fn messages_arrive_whole_however_they_are_cut() {
        let sent = [
            records(0),
            records(1),
            records(5000),
            v1::FetchStreamResponse::default(),
        ];
        let bytes = wire(&sent);
        for cut in [1, 2, 3, 7, 100, 4096, bytes.len()] {
            let pieces = bytes.chunks(cut).map(Bytes::copy_from_slice).collect();
            let mut answers = answers(pieces, Some("0"));
            for message in &sent {
                assert_eq!(
                    answers.next().await.unwrap().as_ref(),
                    Some(message),
                    "{cut}"
                );
            }
            assert_eq!(answers.next().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn batches_in_one_piece_are_not_copied() {
        let bytes = wire(&[records(10_000)]);
        let from = bytes.as_ptr() as usize;
        // As our servers send it: what stands before the batches, then the rest.
        let head = bytes.windows(4).position(|w| w == [0x3c; 4]).unwrap();
        let mut answers = answers(vec![bytes.slice(..head), bytes.slice(head..)], Some("0"));
        let Some(Event::Records(records)) = answers.next().await.unwrap().unwrap().event else {
            panic!("records");
        };
        let at = records.batches[0].data.as_ptr() as usize;
        assert!((from..from + bytes.len()).contains(&at));
    }

    #[tokio::test]
    async fn an_end_is_never_silent() {
        let bytes = wire(&[records(10)]);
        let whole = || vec![bytes.clone()];
        let mut refused = answers(whole(), Some("14"));
        assert!(refused.next().await.unwrap().is_some());
        assert_eq!(refused.next().await.unwrap_err().code(), Code::Unavailable);
        let mut lost = answers(whole(), None);
        assert!(lost.next().await.unwrap().is_some());
        assert_eq!(lost.next().await.unwrap_err().code(), Code::Unknown);
        for half in [3, 12] {
            let mut half = answers(vec![bytes.slice(..half)], Some("0"));
            assert_eq!(half.next().await.unwrap_err().code(), Code::Internal);
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_an_error() {
        for (bytes, code) in [
            (&[1, 0, 0, 0, 0][..], Code::Internal),
            (&[0, 255, 255, 255, 255], Code::OutOfRange),
            (&[0, 0, 0, 0, 1, 255], Code::Internal),
        ] {
            let mut answers = answers(vec![Bytes::copy_from_slice(bytes)], Some("0"));
            assert_eq!(answers.next().await.unwrap_err().code(), code, "{bytes:?}");
        }
    }
}
