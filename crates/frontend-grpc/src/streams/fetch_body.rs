//! The response body of FetchStream: the bytes any gRPC server would send, without the copy that a codec
//! makes. A message that carries a large run of batches becomes two frames: the message's beginning, and
//! the run itself as the broker read it.
//!
//! Invariants: what a client decodes is exactly the messages of the stream, in order, then the status;
//! small messages share a frame; nothing is taken from the stream before the transport asks for more.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use prost::{Message, encode_length_delimiter, length_delimiter_len};
use tonic::body::Body as TonicBody;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;
use varve_broker_api::Broker;
use varve_proto::v1;
use varve_proto::v1::consumer_service_server::{ConsumerService, ConsumerServiceServer};

use super::Outbound;
use crate::services::consumer::Consumer;

/// Path of the method whose answers go out this way.
const PATH: &str = "/varve.v1.ConsumerService/FetchStream";
/// Payloads below this many bytes are copied: a frame of their own would cost more.
const DIRECT_MIN_BYTES: usize = 16 * 1024;
/// Small messages are gathered up to this many bytes.
const GATHER_BYTES: usize = 32 * 1024;
/// gRPC's prefix of a message: a compression flag and its length.
const PREFIX_BYTES: usize = 5;
/// `FetchStreamResponse.records`, length-delimited.
const KEY_RECORDS: u8 = 2 << 3 | 2;
/// `FetchStreamRecords.batches`, length-delimited.
const KEY_BATCHES: u8 = 3 << 3 | 2;
/// `EncodedBatch.data`, length-delimited.
const KEY_DATA: u8 = 2 << 3 | 2;

/// ConsumerService with FetchStream's answers written by [`FetchBody`], and everything else as generated.
#[derive(Debug)]
pub struct FetchService<B: Broker> {
    consumer: Consumer<B>,
    generated: ConsumerServiceServer<Consumer<B>>,
    request_bytes: usize,
}

impl<B: Broker> FetchService<B> {
    /// The service with requests of at most `request_bytes` and answers of at most `answer_bytes`.
    #[must_use]
    pub fn new(consumer: Consumer<B>, request_bytes: usize, answer_bytes: usize) -> Self {
        let generated = ConsumerServiceServer::new(consumer.clone())
            .max_decoding_message_size(request_bytes)
            .max_encoding_message_size(answer_bytes);
        Self {
            consumer,
            generated,
            request_bytes,
        }
    }
}

impl<B: Broker> Clone for FetchService<B> {
    fn clone(&self) -> Self {
        Self {
            consumer: self.consumer.clone(),
            generated: self.generated.clone(),
            request_bytes: self.request_bytes,
        }
    }
}

impl<B: Broker> NamedService for FetchService<B> {
    const NAME: &'static str = <ConsumerServiceServer<Consumer<B>> as NamedService>::NAME;
}

impl<B: Broker> Service<http::Request<TonicBody>> for FetchService<B> {
    type Response = http::Response<TonicBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<TonicBody>>::poll_ready(&mut self.generated, cx)
    }

    fn call(&mut self, request: http::Request<TonicBody>) -> Self::Future {
        if request.uri().path() != PATH {
            return self.generated.call(request);
        }
        let opened = Arc::default();
        let opener = Opener {
            consumer: self.consumer.clone(),
            opened: Arc::clone(&opened),
        };
        let mut grpc = Grpc::new(ProstCodec::default())
            .apply_max_message_size_config(Some(self.request_bytes), None);
        Box::pin(async move {
            // The library reads the request and writes the head of the answer; its body is replaced.
            let answer = grpc.streaming(opener, request).await;
            let opened = opened.lock().take();
            Ok(match opened {
                Some(outbound) => answer.map(|_| TonicBody::new(FetchBody::new(outbound))),
                None => answer,
            })
        })
    }
}

type Opened = Arc<Mutex<Option<Outbound<v1::FetchStreamResponse>>>>;

/// Opens the stream and keeps its messages aside.
struct Opener<B> {
    consumer: Consumer<B>,
    opened: Opened,
}

impl<B: Broker> StreamingService<v1::FetchStreamRequest> for Opener<B> {
    type Response = v1::FetchStreamResponse;
    type ResponseStream = tokio_stream::Empty<Result<v1::FetchStreamResponse, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<v1::FetchStreamRequest>>) -> Self::Future {
        let (consumer, opened) = (self.consumer.clone(), Arc::clone(&self.opened));
        Box::pin(async move {
            let response = consumer.fetch_stream(request).await?;
            let (metadata, outbound, extensions) = response.into_parts();
            *opened.lock() = Some(outbound);
            Ok(Response::from_parts(
                metadata,
                tokio_stream::empty(),
                extensions,
            ))
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct FetchBody<S> {
    messages: S,
    /// What goes out before the payload.
    head: BytesMut,
    payload: Option<Bytes>,
    status: Option<Status>,
    ended: bool,
}

impl<S> FetchBody<S> {
    /// The body that carries `messages`.
    #[must_use]
    pub fn new(messages: S) -> Self {
        Self {
            messages,
            head: BytesMut::new(),
            payload: None,
            status: None,
            ended: false,
        }
    }

    fn put(&mut self, mut message: v1::FetchStreamResponse) {
        use v1::fetch_stream_response::Event;
        if let Some(Event::Records(records)) = &mut message.event
            && let [batch] = records.batches.as_mut_slice()
            && batch.data.len() >= DIRECT_MIN_BYTES
        {
            let data = std::mem::take(&mut batch.data);
            let batch = std::mem::take(batch);
            records.batches.clear();
            begin(records, &batch, data.len(), &mut self.head);
            self.payload = Some(data);
            return;
        }
        put_prefix(message.encoded_len(), &mut self.head);
        put_message(&message, &mut self.head);
    }

    fn trailers(status: &Status) -> http::HeaderMap {
        let mut trailers = http::HeaderMap::new();
        if let Err(unsendable) = status.add_header(&mut trailers) {
            trailers = http::HeaderMap::new();
            // Only a text that is no header value can be refused, and this one has none.
            let plain = Status::new(unsendable.code(), "");
            let _ = plain.add_header(&mut trailers);
        }
        trailers
    }
}

fn put_prefix(message_bytes: usize, head: &mut BytesMut) {
    let len = u32::try_from(message_bytes).unwrap_or(u32::MAX);
    assert!(
        len < u32::MAX,
        "a message of {message_bytes} bytes has no length in gRPC"
    );
    head.reserve(PREFIX_BYTES + message_bytes.min(GATHER_BYTES));
    head.put_u8(0);
    head.put_u32(len);
}

fn put_message(message: &impl Message, head: &mut BytesMut) {
    let encoded = message.encode(head);
    assert!(
        encoded.is_ok(),
        "a growing buffer has room for every message"
    );
}

fn put_field(key: u8, len: usize, head: &mut BytesMut) {
    head.put_u8(key);
    let encoded = encode_length_delimiter(len, head);
    assert!(encoded.is_ok(), "a growing buffer has room for a length");
}

/// Bytes of a length-delimited field of a one-byte key.
fn field_bytes(len: usize) -> usize {
    1 + length_delimiter_len(len) + len
}

/// Everything of a message that carries one batch entry up to that entry's data, which is its last field.
/// `records` and `batch` come without it.
fn begin(
    records: &v1::FetchStreamRecords,
    batch: &v1::EncodedBatch,
    data: usize,
    head: &mut BytesMut,
) {
    let in_batch = batch.encoded_len() + field_bytes(data);
    let in_records = records.encoded_len() + field_bytes(in_batch);
    put_prefix(field_bytes(in_records), head);
    put_field(KEY_RECORDS, in_records, head);
    put_message(records, head);
    put_field(KEY_BATCHES, in_batch, head);
    put_message(batch, head);
    put_field(KEY_DATA, data, head);
}

impl<S> Body for FetchBody<S>
where
    S: Stream<Item = Result<v1::FetchStreamResponse, Status>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        while this.payload.is_none() && this.status.is_none() && this.head.len() < GATHER_BYTES {
            match Pin::new(&mut this.messages).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => this.put(message),
                Poll::Ready(Some(Err(status))) => this.status = Some(status),
                Poll::Ready(None) => this.status = Some(Status::ok("")),
                Poll::Pending if this.head.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if !this.head.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(this.head.split().freeze()))));
        }
        if let Some(payload) = this.payload.take() {
            return Poll::Ready(Some(Ok(Frame::data(payload))));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        this.ended = true;
        let ok = Status::ok("");
        let trailers = Self::trailers(this.status.as_ref().unwrap_or(&ok));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use v1::fetch_stream_response::Event;

    fn records(id: i64, data: &[usize]) -> v1::FetchStreamResponse {
        let batches = data.iter().map(|len| v1::EncodedBatch {
            format: 2,
            data: vec![0x5a; *len].into(),
        });
        v1::FetchStreamResponse {
            event: Some(Event::Records(v1::FetchStreamRecords {
                subscription_id: id,
                records: Vec::new(),
                batches: batches.collect(),
                next_offset: 1 << 40,
                high_watermark: 1 << 41,
                credit_used: data.iter().sum::<usize>() as i64,
            })),
        }
    }

    fn closed(id: i64) -> v1::FetchStreamResponse {
        let closed = v1::FetchStreamClosed {
            subscription_id: id,
            ..Default::default()
        };
        v1::FetchStreamResponse {
            event: Some(Event::Closed(closed)),
        }
    }

    async fn collect(
        messages: Vec<Result<v1::FetchStreamResponse, Status>>,
    ) -> (Vec<Bytes>, http::HeaderMap) {
        let mut body = FetchBody::new(tokio_stream::iter(messages));
        let (mut frames, mut trailers) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            match frame.unwrap().into_data() {
                Ok(data) => frames.push(data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        assert!(body.is_end_stream());
        (frames, trailers.unwrap())
    }

    fn decode(frames: &[Bytes]) -> Vec<v1::FetchStreamResponse> {
        let all = frames.concat();
        let (mut rest, mut messages) = (all.as_slice(), Vec::new());
        while !rest.is_empty() {
            assert_eq!(rest[0], 0, "not compressed");
            let len = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
            messages.push(v1::FetchStreamResponse::decode(&rest[5..5 + len]).unwrap());
            rest = &rest[5 + len..];
        }
        messages
    }

    #[tokio::test]
    async fn what_is_decoded_is_what_was_sent() {
        let large = DIRECT_MIN_BYTES;
        let sent = vec![
            closed(1),
            records(0, &[large - 1]),
            records(i64::MAX, &[large]),
            records(7, &[3 << 20]),
            records(7, &[1 << 20, 1 << 20]),
            records(-1, &[]),
            v1::FetchStreamResponse { event: None },
            records(2, &[large]),
            closed(2),
        ];
        let (frames, trailers) = collect(sent.iter().cloned().map(Ok).collect()).await;
        assert_eq!(decode(&frames), sent);
        assert_eq!(trailers["grpc-status"], "0");
    }

    #[tokio::test]
    async fn a_large_payload_is_a_frame_of_its_own_and_is_not_copied() {
        let message = records(1, &[1 << 20]);
        let Some(Event::Records(inside)) = &message.event else {
            panic!("records")
        };
        let data = inside.batches[0].data.clone();
        let (frames, _) = collect(vec![Ok(closed(1)), Ok(message)]).await;
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[1].as_ptr(), data.as_ptr());
    }

    #[tokio::test]
    async fn small_messages_share_a_frame() {
        // The runtime interrupts a long run of ready messages now and then.
        let (frames, _) = collect((0..100).map(|id| Ok(closed(id))).collect()).await;
        assert!(frames.len() <= 5, "{} frames", frames.len());
        let many = (0..100).map(|id| Ok(records(id, &[1000]))).collect();
        let (frames, _) = collect(many).await;
        assert!((2..=10).contains(&frames.len()), "{} frames", frames.len());
    }

    #[tokio::test]
    async fn a_status_follows_what_was_sent_before_it() {
        let status = Status::unavailable("later");
        let (frames, trailers) = collect(vec![Ok(records(3, &[1 << 16])), Err(status)]).await;
        assert_eq!(decode(&frames), [records(3, &[1 << 16])]);
        assert_eq!(trailers["grpc-status"], "14");
        assert_eq!(trailers["grpc-message"], "later");
    }
}
