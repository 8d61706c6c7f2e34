//! A client that says exactly what a test wants said.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use varve_frontend_kafka::wire::generated::create_topics::{CreatableTopic, CreateTopicsRequest};
use varve_frontend_kafka::wire::generated::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponseTopic,
};
use varve_frontend_kafka::wire::{
    ApiKey, FrameReader, Request, Response, Text, decode_response, encode_request,
};

/// Asks, and takes the response of the same API.
macro_rules! ask {
    ($client:expr, $version:expr, $api:ident, $request:expr) => {
        match $client
            .ask(
                $version,
                varve_frontend_kafka::wire::Request::$api($request),
            )
            .await
        {
            varve_frontend_kafka::wire::Response::$api(response) => response,
            other => panic!("{other:?}"),
        }
    };
}
pub(crate) use ask;

/// Only a failure waits so long for anything.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How long somebody has been asking for what is not there yet.
pub struct Patience(Instant);

impl Patience {
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// A pause before it is asked for again. Ends the test that has waited too long, with what it saw instead; it is
    /// the caller's line that is told.
    #[track_caller]
    pub fn again(&self, seen: impl Debug) -> tokio::time::Sleep {
        let waited = self.0.elapsed();
        assert!(waited < PATIENCE, "after {waited:?} still {seen:?}");
        tokio::time::sleep(Duration::from_millis(10))
    }
}

/// What bytes go over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub struct Client {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    next: i32,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// Over a connection that is there.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: BytesMut::new(),
            next: 1,
        }
    }

    /// Whether a request is answered; the connection may end instead.
    pub async fn is_answered(&mut self, version: i16, request: &Request) -> bool {
        let id = self.next;
        self.next += 1;
        let frame = encode_request(id, Some(Text::from_static("test")), version, request).unwrap();
        if self.stream.write_all(&frame.into_bytes()).await.is_err() {
            return false;
        }
        self.frame().await.is_some()
    }

    /// Sends a request and does not wait. The correlation id.
    pub async fn send(&mut self, version: i16, request: &Request) -> i32 {
        let id = self.next;
        self.next += 1;
        let name = Some(Text::from_static("test"));
        let frame = encode_request(id, name, version, request).unwrap();
        self.raw(&frame.into_bytes()).await;
        id
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None`: the server has closed the connection.
    pub async fn frame(&mut self) -> Option<Bytes> {
        let reader = FrameReader::new(64 << 20);
        loop {
            if let Some(frame) = reader_next(&reader, &mut self.buffer) {
                return Some(frame);
            }
            let read = self.stream.read_buf(&mut self.buffer);
            let read = tokio::time::timeout(Duration::from_secs(20), read).await;
            match read.expect("an answer in time") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Whether the server ends the connection with nothing but an alert of TLS.
    pub async fn frame_or_alert(&mut self) -> bool {
        let mut rest = Vec::new();
        let read = self.stream.read_to_end(&mut rest);
        let ended = tokio::time::timeout(Duration::from_secs(20), read).await;
        ended.is_ok() && rest.first().is_none_or(|kind| *kind == 0x15)
    }

    pub async fn receive(&mut self, key: ApiKey, version: i16) -> (i32, Response) {
        let frame = self.frame().await.expect("the connection is open");
        decode_response(key, version, frame).unwrap()
    }

    pub async fn ask(&mut self, version: i16, request: Request) -> Response {
        let key = request.key();
        let id = self.send(version, &request).await;
        let (answered, response) = self.receive(key, version).await;
        assert_eq!(answered, id);
        response
    }

    /// Creates a topic of so many partitions.
    pub async fn create(&mut self, name: &'static str, partitions: i32) {
        let topic = CreatableTopic {
            name: Text::from_static(name),
            num_partitions: partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..CreateTopicsRequest::default()
        };
        let response = ask!(self, 7, CreateTopics, request);
        assert_eq!(response.topics[0].error_code, 0, "{response:?}");
    }

    /// What is known of a topic.
    pub async fn describe(&mut self, name: &str) -> MetadataResponseTopic {
        let topic = MetadataRequestTopic {
            name: Some(Text::from(name)),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        ask!(self, 12, Metadata, request).topics.remove(0)
    }
}

/// The reader refuses frames that are shorter than a request; a response may be.
fn reader_next(reader: &FrameReader, buffer: &mut BytesMut) -> Option<Bytes> {
    let length = buffer.first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    if length >= 8 {
        return reader.next(buffer).unwrap();
    }
    if buffer.len() < 4 + length {
        return None;
    }
    let _ = buffer.split_to(4);
    Some(buffer.split_to(length).freeze())
}
