//! HTTP/2 without a gRPC library: any header, any bytes, and the answer as it is.

use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tonic::Status;

use crate::support::soon;

/// A connection.
#[derive(Debug, Clone)]
pub struct Raw {
    send: SendRequest<Bytes>,
    address: SocketAddr,
}

/// The two halves of a call that is open.
pub type Unread = (h2::RecvStream, h2::SendStream<Bytes>);

/// What came back.
#[derive(Debug, Default)]
pub struct Answer {
    /// HTTP status; 0: none.
    pub http: u16,
    /// Headers and trailers.
    pub headers: HeaderMap,
    /// Data.
    pub body: Vec<u8>,
    /// The stream was reset or the connection ended.
    pub reset: Option<String>,
}

impl Answer {
    /// The gRPC status, if the answer has one.
    pub fn status(&self) -> Option<Status> {
        Status::from_header_map(&self.headers)
    }
}

/// A gRPC frame.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    framed.freeze()
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(8 << 20)
            .initial_connection_window_size(8 << 20)
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(async move {
            // How it ends is seen by the calls on it.
            let _ = connection.await;
        });
        Self { send, address }
    }

    /// A call with the usual headers; `headers` come on top or replace them.
    pub async fn call(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let mut request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        soon(path, self.send(request, body)).await
    }

    /// A call that sends a message, if there is one, and then stays open: what comes until the server ends it.
    pub async fn held(&self, path: &str, time: &str, message: Option<Bytes>) -> Answer {
        let mut answer = Answer::default();
        let held = async {
            let (mut body, _open) = self.open(path, time, message, &mut answer).await?;
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                answer.body.extend_from_slice(&data);
            }
            if let Some(trailers) = body.trailers().await? {
                answer.headers.extend(trailers);
            }
            Ok::<(), h2::Error>(())
        };
        if let Err(error) = soon(path, held).await {
            answer.reset = Some(error.to_string());
        }
        answer
    }

    /// As [`Self::held`], of which nothing is read for as long as what comes with the answer's headers is kept.
    pub async fn unread(&self, path: &str, time: &str, message: Bytes) -> (Answer, Unread) {
        let mut answer = Answer::default();
        let opened = self.open(path, time, Some(message), &mut answer);
        let unread = soon(path, opened).await.unwrap();
        (answer, unread)
    }

    async fn open(
        &self,
        path: &str,
        time: &str,
        message: Option<Bytes>,
        answer: &mut Answer,
    ) -> Result<Unread, h2::Error> {
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", time)
            .body(())
            .unwrap();
        let mut ready = self.send.clone().ready().await?;
        let (response, mut stream) = ready.send_request(request, false)?;
        if let Some(message) = message {
            stream.send_data(message, false)?;
        }
        let response = response.await?;
        answer.http = response.status().as_u16();
        answer.headers.extend(response.headers().clone());
        Ok((response.into_body(), stream))
    }

    async fn send(&self, request: Request<()>, body: Bytes) -> Answer {
        let mut answer = Answer::default();
        if let Err(error) = self.exchange(request, body, &mut answer).await {
            answer.reset = Some(error.to_string());
        }
        answer
    }

    async fn exchange(
        &self,
        request: Request<()>,
        body: Bytes,
        answer: &mut Answer,
    ) -> Result<(), h2::Error> {
        let mut ready = self.send.clone().ready().await?;
        let (response, mut stream) = ready.send_request(request, false)?;
        // A server may answer and close before it has read everything.
        let _ = stream.send_data(body, true);
        let response = response.await?;
        answer.http = response.status().as_u16();
        answer.headers.extend(response.headers().clone());
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            answer.body.extend_from_slice(&data);
        }
        if let Some(trailers) = body.trailers().await? {
            answer.headers.extend(trailers);
        }
        Ok(())
    }
}
