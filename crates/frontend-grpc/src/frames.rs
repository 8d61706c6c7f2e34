//! FetchStream without copying payloads. The generated service encodes each message into one buffer,
//! which copies every stored byte once more; here a message that carries one large run of batches is sent
//! as two frames, the encoded fields and then the broker's own bytes. The wire format is the same.
//!
//! Small messages are encoded as usual and packed together while more of them are ready.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use prost::Message;
use tonic::body::Body;
use tonic::codec::{Codec, Streaming};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::Service;
use varve_broker_api::Broker;
use varve_proto::v1;
use varve_proto::v1::fetch_stream_response::Event;
use varve_types::limits;

use crate::context::CallContext;
use crate::shared::Shared;
use crate::streams::{Outbound, Parked, fetch_stream};

const PATH: &str = "/varve.v1.ConsumerService/FetchStream";
/// Runs of batches from this size on are sent as they are. Below, copying is cheaper than a frame.
const APART_BYTES: usize = 16 * 1024;
/// Small messages are packed up to this size.
const PACK_BYTES: usize = 32 * 1024;
/// Flag and length in front of each message.
const HEADER_BYTES: usize = 5;

/// A ConsumerService whose FetchStream is served here, and everything else by `inner`.
#[derive(Debug)]
pub struct Uncopied<B, S> {
    shared: Arc<Shared<B>>,
    inner: S,
}

impl<B, S> Uncopied<B, S> {
    /// Serves FetchStream for `inner`.
    pub const fn new(shared: Arc<Shared<B>>, inner: S) -> Self {
        Self { shared, inner }
    }
}

impl<B, S: Clone> Clone for Uncopied<B, S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner: self.inner.clone(),
        }
    }
}

impl<B, S: NamedService> NamedService for Uncopied<B, S> {
    const NAME: &'static str = S::NAME;
}

impl<B, S> Service<Request<Body>> for Uncopied<B, S>
where
    B: Broker,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Parked<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            return Box::pin(self.inner.call(request));
        }
        let answer = open(&self.shared, request);
        Box::pin(async move { Ok(answer) })
    }
}

fn open<B: Broker>(shared: &Arc<Shared<B>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let peer = parts
        .extensions
        .get::<TcpConnectInfo>()
        .and_then(TcpConnectInfo::remote_addr);
    let metadata = MetadataMap::from_headers(parts.headers);
    let ctx = match CallContext::read(&metadata, peer, || shared.broker.node()) {
        Ok(ctx) => ctx.without_deadline(),
        Err(error) => return shared.fail(&error).into_http(),
    };
    let decoder =
        ProstCodec::<v1::FetchStreamResponse, v1::FetchStreamRequest>::default().decoder();
    let max = Some(limits::CONTROL_REQUEST_MAX_BYTES);
    let inbound = Streaming::new_request(decoder, body, None, max);
    let messages = fetch_stream::open(shared, ctx, inbound);
    let pace = messages.pace().clone();
    let mut response = Response::new(Body::new(Frames::new(messages)));
    response.extensions_mut().insert(pace);
    let kind = HeaderValue::from_static("application/grpc");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}

/// The body of a FetchStream.
#[derive(Debug)]
struct Frames {
    messages: Outbound<v1::FetchStreamResponse>,
    packed: BytesMut,
    ready: VecDeque<Bytes>,
    end: Option<HeaderMap>,
    ended: bool,
}

impl Frames {
    fn new(messages: Outbound<v1::FetchStreamResponse>) -> Self {
        Self {
            messages,
            packed: BytesMut::new(),
            ready: VecDeque::new(),
            end: None,
            ended: false,
        }
    }

    /// Takes messages while there are some, until something is worth sending.
    fn fill(&mut self, cx: &mut Context<'_>) {
        while self.ready.is_empty() && self.end.is_none() && self.packed.len() < PACK_BYTES {
            match Pin::new(&mut self.messages).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => self.take(message),
                Poll::Ready(Some(Err(status))) => self.end = Some(trailers(&status)),
                Poll::Ready(None) => self.end = Some(trailers(&Status::new(Code::Ok, ""))),
            }
        }
        if !self.packed.is_empty() {
            self.ready.push_front(self.packed.split().freeze());
        }
    }

    fn take(&mut self, mut message: v1::FetchStreamResponse) {
        let payload = match &mut message.event {
            Some(Event::Records(records)) => large_run(records),
            _ => None,
        };
        let Some((batch, records)) = payload else {
            put_message(&mut self.packed, &message);
            return;
        };
        put_split(&mut self.packed, &records, &batch);
        self.ready.push_back(batch.data);
    }
}

/// Takes the batches out of a message that has one large run of them and nothing else.
fn large_run(
    records: &mut v1::FetchStreamRecords,
) -> Option<(v1::EncodedBatch, v1::FetchStreamRecords)> {
    let alone = records.records.is_empty() && records.batches.len() == 1;
    if !alone || records.batches.first()?.data.len() < APART_BYTES {
        return None;
    }
    let batch = records.batches.pop()?;
    Some((batch, std::mem::take(records)))
}

fn put_header(out: &mut BytesMut, length: usize) {
    out.put_u8(0);
    // Messages are bounded far below this by `max_message_bytes`.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

fn put_message(out: &mut BytesMut, message: &v1::FetchStreamResponse) {
    let length = message.encoded_len();
    out.reserve(HEADER_BYTES + length);
    put_header(out, length);
    // There is room for it: nothing can fail.
    let _ = message.encode(out);
}

/// Everything of a message up to the bytes of its run of batches, which come last in it. Field numbers:
/// FetchStreamResponse.records 2, FetchStreamRecords.batches 3, EncodedBatch.format 1 and .data 2.
fn put_split(out: &mut BytesMut, records: &v1::FetchStreamRecords, batch: &v1::EncodedBatch) {
    const LENGTH_DELIMITED: u8 = 2;
    let format = v1::EncodedBatch {
        format: batch.format,
        data: Bytes::new(),
    };
    let sized = |n: usize| 1 + varint_size(n) + n;
    let batch_length = format.encoded_len() + sized(batch.data.len());
    let records_length = records.encoded_len() + sized(batch_length);
    put_header(out, sized(records_length));
    out.put_u8(2 << 3 | LENGTH_DELIMITED);
    put_varint(out, records_length);
    out.reserve(records.encoded_len() + format.encoded_len() + 32);
    // There is room for both: nothing can fail.
    let _ = records.encode(out);
    out.put_u8(3 << 3 | LENGTH_DELIMITED);
    put_varint(out, batch_length);
    let _ = format.encode(out);
    out.put_u8(2 << 3 | LENGTH_DELIMITED);
    put_varint(out, batch.data.len());
}

fn varint_size(n: usize) -> usize {
    prost::encoding::encoded_len_varint(n as u64)
}

fn put_varint(out: &mut BytesMut, n: usize) {
    prost::encoding::encode_varint(n as u64, out);
}

/// The end of a body with a status.
pub fn trailers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Our statuses have messages and details that fit into headers.
    if status.add_header(&mut headers).is_err() {
        headers.insert("grpc-status", HeaderValue::from(Code::Internal as i32));
    }
    headers
}

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ready.is_empty() {
            self.fill(cx);
        }
        if let Some(bytes) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(end) = self.end.take() {
            self.ended = true;
            return Poll::Ready(Some(Ok(Frame::trailers(end))));
        }
        if self.ended {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize, id: i64) -> v1::FetchStreamResponse {
        let data = Bytes::from(vec![7; bytes]);
        v1::FetchStreamResponse {
            event: Some(Event::Records(v1::FetchStreamRecords {
                subscription_id: id,
                batches: vec![v1::EncodedBatch { format: 2, data }],
                next_offset: 1 << 40,
                high_watermark: 1 << 41,
                credit_used: i64::try_from(bytes).unwrap(),
                ..Default::default()
            })),
        }
    }

    fn split(message: &v1::FetchStreamResponse) -> (BytesMut, Bytes) {
        let mut message = message.clone();
        let Some(Event::Records(records)) = &mut message.event else {
            panic!("records")
        };
        let (batch, records) = large_run(records).unwrap();
        let mut out = BytesMut::new();
        put_split(&mut out, &records, &batch);
        (out, batch.data)
    }

    #[test]
    fn split_messages_decode_to_what_they_were() {
        for (bytes, id) in [
            (APART_BYTES, 0),
            (APART_BYTES + 1, 1),
            (1 << 21, -5),
            (3 << 20, i64::MAX),
        ] {
            let sent = message(bytes, id);
            let (mut wire, data) = split(&sent);
            wire.extend_from_slice(&data);
            let length = u32::from_be_bytes([wire[1], wire[2], wire[3], wire[4]]) as usize;
            assert_eq!((wire[0], length), (0, wire.len() - HEADER_BYTES));
            let read = v1::FetchStreamResponse::decode(&wire[HEADER_BYTES..]).unwrap();
            assert_eq!(read, sent);
        }
    }

    #[test]
    fn the_payload_is_the_same_memory() {
        let sent = message(APART_BYTES, 1);
        let Some(Event::Records(records)) = &sent.event else {
            panic!("records")
        };
        let (_, data) = split(&sent);
        assert_eq!(data.as_ptr(), records.batches[0].data.as_ptr());
    }

    #[test]
    fn small_runs_and_records_are_not_split() {
        let mut small = v1::FetchStreamRecords {
            batches: vec![v1::EncodedBatch {
                format: 2,
                data: Bytes::from_static(b"x"),
            }],
            ..Default::default()
        };
        assert!(large_run(&mut small).is_none());
        assert!(large_run(&mut v1::FetchStreamRecords::default()).is_none());
        assert_eq!(small.batches.len(), 1, "nothing was taken");
    }
}
