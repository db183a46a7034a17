//! The control listener: the page and the JSON API over TCP and over a Unix socket, on the control
//! thread.
//!
//! HTTP is hyper's. Connections, heads, bodies, streams and the time for each are bounded, so that
//! nobody who reaches it holds the control thread up; [`Guard`] says who may ask what. What there is
//! to ask is `api`'s.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue,
    REFERRER_POLICY, SERVER, TRANSFER_ENCODING, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::api::{Asker, Desk, EventStream, Found, Refusal, Reply};
use super::guard::{Forbidden, Guard, Wants};
use super::occupancy::CONTROLS;
use super::page;
use super::patient::Patient;

/// For a head, and for which a connection may be idle.
const HEAD: Duration = Duration::from_secs(10);

/// For a body.
const BODY: Duration = Duration::from_secs(5);

/// So long a client may take nothing of a response.
const STALLED: Duration = Duration::from_secs(10);

/// A browser sends less than a kilobyte. hyper wants 8 KiB at least.
const HEAD_BYTES: usize = 16 * 1024;

/// Fields of a head.
const HEAD_FIELDS: usize = 64;

/// The largest body is a name, or a number.
const BODY_BYTES: usize = 64 * 1024;

/// When there are no descriptors, the next accept would fail at once, over and over.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// What the page may do: its own files, and asking us. Nothing from elsewhere, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One way in.
#[derive(Debug)]
pub enum Door {
    /// The control listener.
    Tcp(TcpListener),
    /// The Unix socket.
    Unix(UnixListener),
}

/// Answers for as long as it is polled. Its connections end when it is dropped. To be called in a
/// `LocalRuntime`.
pub async fn serve(door: Door, guard: Guard, desk: Rc<Desk>) {
    let guard = Rc::new(guard);
    let state = Rc::clone(&desk.state);
    let tally = match &door {
        Door::Tcp(_) => &state.occupancy.controls,
        Door::Unix(_) => &state.occupancy.controls_by_socket,
    };
    let mut connections = JoinSet::new();
    loop {
        tally.set(connections.len());
        let full = connections.len() >= CONTROLS;
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (guard, desk) = (Rc::clone(&guard), Rc::clone(&desk));
        match accepted {
            Ok(_) if full => tracing::debug!("control listener: too many connections"),
            Ok(Accepted::Tcp(stream, local, asker)) => {
                connections.spawn_local(converse(stream, guard, desk, Some(local), asker));
            }
            Ok(Accepted::Unix(stream, asker)) => {
                connections.spawn_local(converse(stream, guard, desk, None, asker));
            }
            Err(error) => {
                tracing::warn!(%error, "control listener: accept failed");
                sleep(AFTER_FAILED_ACCEPT).await;
            }
        }
    }
}

enum Accepted {
    Tcp(tokio::net::TcpStream, IpAddr, Asker),
    Unix(tokio::net::UnixStream, Asker),
}

impl Door {
    /// Cancel-safe.
    async fn accept(&self) -> std::io::Result<Accepted> {
        Ok(match self {
            Door::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let local = stream.local_addr()?.ip();
                Accepted::Tcp(stream, local, Asker(peer.ip().to_string().into()))
            }
            Door::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred()?.uid();
                let words = format!("user {user} at the control socket");
                Accepted::Unix(stream, Asker(words.into()))
            }
        })
    }
}

async fn converse<S>(
    stream: S,
    guard: Rc<Guard>,
    desk: Rc<Desk>,
    local: Option<IpAddr>,
    asker: Asker,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(asker.clone());
        let (guard, desk) = (Rc::clone(&guard), Rc::clone(&desk));
        async move { Ok::<_, Infallible>(respond(request, &guard, &desk, local).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(HEAD_FIELDS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Patient::new(stream, STALLED)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "control listener");
    }
}

async fn respond(
    request: Request<Incoming>,
    guard: &Guard,
    desk: &Desk,
    local: Option<IpAddr>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut response = match exchange(&parts, body, guard, desk, local).await {
        Ok(response) => response,
        Err(refusal) => refused(&refusal),
    };
    let fields = response.headers_mut();
    fields.insert(SERVER, HeaderValue::from_static("evenkeel"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    fields.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    for (name, value) in [
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn exchange(
    parts: &Parts,
    body: Incoming,
    guard: &Guard,
    desk: &Desk,
    local: Option<IpAddr>,
) -> Result<Response<Body>, Refusal> {
    let path = parts.uri.path();
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    let page = page::find(path);
    let wants = match (is_read, page) {
        (true, Some(_)) => Wants::Page,
        (true, None) => Wants::Read,
        (false, _) => Wants::Change,
    };
    guard.admit(parts, wants, local).map_err(forbidden)?;
    if let (true, Some(asset)) = (is_read, page) {
        return Ok(response(
            StatusCode::OK,
            asset.content_type,
            Bytes::from_static(asset.bytes),
        ));
    }
    let found = Found::by(&parts.method, path)?;
    let body = match is_read {
        true => Bytes::new(),
        false => taken(parts, body).await?,
    };
    Ok(match desk.answer(found, parts, &body).await? {
        Reply::Json(status, bytes) => response(status, JSON, bytes),
        Reply::Stream(stream) => {
            let mut response = Response::new(Body::Stream(stream));
            let fields = response.headers_mut();
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            response
        }
    })
}

/// The body of a change.
async fn taken(parts: &Parts, body: Incoming) -> Result<Bytes, Refusal> {
    let length = parts.headers.get(CONTENT_LENGTH);
    let none =
        length.is_none_or(|length| length == "0") && !parts.headers.contains_key(TRANSFER_ENCODING);
    if none {
        return Ok(Bytes::new());
    }
    let kind = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default();
    // A form of another site could send anything else without being asked first.
    if !kind.trim().eq_ignore_ascii_case(JSON) {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Refusal::new(
            status,
            "unsupported_media_type",
            "the body is application/json",
        ));
    }
    match timeout(BODY, collected(body)).await {
        Ok(body) => body,
        Err(_) => {
            let status = StatusCode::REQUEST_TIMEOUT;
            Err(Refusal::new(status, "timeout", "the body did not come"))
        }
    }
}

async fn collected(body: Incoming) -> Result<Bytes, Refusal> {
    let (mut bytes, mut body) = (BytesMut::new(), pin!(body));
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(|_| Refusal::bad("the body broke off"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > BODY_BYTES {
            let message = format!("{BODY_BYTES} bytes at most");
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                message,
            ));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn forbidden(why: Forbidden) -> Refusal {
    let forbidden = StatusCode::FORBIDDEN;
    match why {
        Forbidden::BadHost => Refusal::bad("one `Host`, please"),
        Forbidden::Host => Refusal::new(
            forbidden,
            "forbidden_host",
            "`Host` is not a name of this listener; `[admin] hosts` lists more",
        ),
        Forbidden::Origin => Refusal::new(forbidden, "forbidden_origin", "from another origin"),
        Forbidden::Token => Refusal::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "`Authorization: Bearer TOKEN`: the token is in the file that the log names at the start",
        ),
    }
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = response(refusal.status, JSON, refusal.body());
    let fields = response.headers_mut();
    if refusal.status == StatusCode::UNAUTHORIZED {
        fields.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(method) = refusal.allow {
        fields.insert(ALLOW, HeaderValue::from_static(method));
    }
    response
}

fn response(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Some(bytes)));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

const JSON: &str = "application/json";

/// A response's body.
#[derive(Debug)]
enum Body {
    /// All of it.
    Whole(Option<Bytes>),
    /// It goes on.
    Stream(EventStream),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match self.get_mut() {
            Body::Whole(bytes) => Poll::Ready(bytes.take()),
            Body::Stream(stream) => stream.poll_next(cx),
        };
        bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Body::Stream(_) => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(None))
    }
}
