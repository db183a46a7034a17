//! Clients and backends that keep to HTTP/2, by the h2 crate, on one thread for each test or backend.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::support::{PATIENCE, lock};

/// Runs a client, or several, to its end.
pub fn block<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("there are descriptors");
    let limited = async { tokio::time::timeout(3 * PATIENCE, work).await };
    let outcome = LocalSet::new().block_on(&runtime, limited);
    outcome.expect("it does not take for ever")
}

/// The end of a client's connection.
pub type Ended = JoinHandle<Result<(), h2::Error>>;

/// A client's connection.
pub async fn connect(address: SocketAddr) -> (SendRequest<Bytes>, Ended) {
    connect_with(&h2::client::Builder::new(), address).await
}

/// The same with settings of its own.
pub async fn connect_with(
    builder: &h2::client::Builder,
    address: SocketAddr,
) -> (SendRequest<Bytes>, Ended) {
    let tcp = TcpStream::connect(address).await;
    let tcp = tcp.expect("the server listens");
    tcp.set_nodelay(true).expect("it is a TCP socket");
    let (send, connection) = builder.handshake(tcp).await.expect("it speaks HTTP/2");
    (send, spawn_local(connection))
}

/// A request.
pub fn request(method: &str, path: &str) -> Request<()> {
    let request = Request::builder().method(method);
    let request = request.uri(format!("http://a.test{path}"));
    request.body(()).expect("it is one")
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

/// Sends a request without a body and reads the whole answer.
pub async fn ask(send: &SendRequest<Bytes>, method: &str, path: &str) -> Result<Answer, h2::Error> {
    say(send, request(method, path), None).await
}

/// Sends a request with this body and reads the whole answer meanwhile.
pub async fn say(
    send: &SendRequest<Bytes>,
    request: Request<()>,
    body: Option<(Vec<u8>, Option<HeaderMap>)>,
) -> Result<Answer, h2::Error> {
    let mut send = send.clone().ready().await?;
    let (response, mut stream) = send.send_request(request, body.is_none())?;
    let sending = spawn_local(async move {
        match body {
            Some((body, trailers)) => write(&mut stream, body, trailers).await,
            None => Ok(()),
        }
    });
    let (head, mut body) = response.await?.into_parts();
    let (body, trailers) = read(&mut body).await?;
    // An answer may come before all of it is sent.
    sending.abort();
    Ok(Answer {
        status: head.status.as_u16(),
        body,
        trailers: trailers.unwrap_or_default(),
    })
}

/// Reads a body to its end.
pub async fn read(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok((all, body.trailers().await?))
}

/// Writes a body as the windows open, and ends it.
pub async fn write(
    stream: &mut SendStream<Bytes>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
) -> Result<(), h2::Error> {
    write_some(stream, body.into()).await?;
    match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    }
}

/// Writes a part of a body.
pub async fn write_some(stream: &mut SendStream<Bytes>, mut body: Bytes) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        while stream.capacity() == 0 {
            match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(more) => drop(more?),
                None => return Err(h2::Reason::STREAM_CLOSED.into()),
            }
        }
        let part = body.split_to(stream.capacity().min(body.len()));
        stream.send_data(part, false)?;
    }
    Ok(())
}

/// A request that came to a backend.
pub struct Call {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
}

impl Call {
    /// Answers without a body.
    pub fn answer(&mut self, status: u16) {
        let response = Response::builder().status(status).body(());
        let _ = (self.respond).send_response(response.expect("it is one"), true);
    }

    /// Answers with this body.
    pub async fn answer_with(&mut self, body: impl Into<Vec<u8>>) {
        let response = Response::new(());
        if let Ok(mut stream) = self.respond.send_response(response, false) {
            let _ = write(&mut stream, body.into(), None).await;
        }
    }
}

/// What a backend does with a request.
type Handler = Box<dyn Fn(Call) -> Pin<Box<dyn Future<Output = ()>>> + Send + Sync>;

/// A backend that speaks HTTP/2; it ends with its value.
pub struct Backend {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    handler: Handler,
    connections: AtomicUsize,
    heads: Mutex<Vec<Request<()>>>,
    stop: Notify,
    /// Every connection is to end, as RFC 9113 §6.8 wants it.
    leave: Notify,
}

impl Backend {
    /// Every request is given to `handler`.
    pub fn start<F>(handler: impl Fn(Call) -> F + Send + Sync + 'static) -> Backend
    where
        F: Future<Output = ()> + 'static,
    {
        Backend::with(|_| {}, handler)
    }

    /// The same with settings of its own.
    pub fn with<F>(
        settings: impl Fn(&mut h2::server::Builder) + Send + 'static,
        handler: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Backend
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        listener.set_nonblocking(true).expect("it is a socket");
        let shared = Arc::new(Shared {
            handler: Box::new(move |call| Box::pin(handler(call))),
            connections: AtomicUsize::new(0),
            heads: Mutex::default(),
            stop: Notify::new(),
            leave: Notify::new(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("there are descriptors");
            LocalSet::new().block_on(&runtime, async move {
                let listener = TcpListener::from_std(listener).expect("it does not block");
                let mut builder = h2::server::Builder::new();
                settings(&mut builder);
                tokio::select! {
                    () = own.stop.notified() => {}
                    () = accept(listener, builder, Arc::clone(&own)) => {}
                }
            });
        });
        Backend {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The heads that came since the last call.
    pub fn take(&self) -> Vec<Request<()>> {
        std::mem::take(&mut *lock(&self.shared.heads))
    }

    /// Ends the connections that are open, as it should be done.
    pub fn leave(&self) {
        self.shared.leave.notify_waiters();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, builder: h2::server::Builder, shared: Arc<Shared>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let _ = tcp.set_nodelay(true);
        let (builder, shared) = (builder.clone(), Arc::clone(&shared));
        shared.connections.fetch_add(1, Ordering::SeqCst);
        spawn_local(async move {
            // Whoever it serves goes when it likes.
            let _ = serve(tcp, builder, &shared).await;
        });
    }
}

async fn serve(
    tcp: TcpStream,
    builder: h2::server::Builder,
    shared: &Arc<Shared>,
) -> Result<(), h2::Error> {
    let mut wire = builder.handshake(tcp).await?;
    let mut leave = Box::pin(shared.leave.notified());
    leave.as_mut().enable();
    let mut leaving = false;
    loop {
        let accepted = tokio::select! {
            accepted = wire.accept() => accepted,
            () = &mut leave, if !leaving => {
                wire.graceful_shutdown();
                leaving = true;
                continue;
            }
        };
        let Some(accepted) = accepted else {
            return Ok(());
        };
        let (request, respond) = accepted?;
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        lock(&shared.heads).push(head);
        let call = Call { request, respond };
        spawn_local((shared.handler)(call));
    }
}

/// Reads the request and answers with its method, target and body.
pub async fn echo(mut call: Call) {
    let target = call.request.uri().path_and_query().cloned();
    let mut text = format!(
        "{} {} ",
        call.request.method(),
        target.map_or(String::new(), |t| t.to_string())
    )
    .into_bytes();
    if let Ok((body, _)) = read(call.request.body_mut()).await {
        text.extend(body);
        call.answer_with(text).await;
    }
}
