//! One HTTP request of this process to somebody else, over a connection of its own.
//!
//! For what happens now and then (orders of certificates, batches of traces), where keeping connections
//! would be more than it is worth. The response has a bound; the deadline is the caller's.

use std::error::Error as StdError;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join;
use http::header::{CONNECTION, HOST, HeaderValue};
use http::response::Parts;
use http::uri::Scheme;
use http::{Request, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A chain of certificates has some 10 kB, and nothing else is larger.
const LARGEST: usize = 1024 * 1024;

/// Why there is no response.
pub type Failed = Box<dyn StdError + Send + Sync>;

/// TLS to a server that these vouch for.
pub fn connector(roots: Arc<RootCertStore>) -> Result<TlsConnector, rustls::Error> {
    // Named, because rustls panics when it has to choose between two providers in the tree.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Sends a request to where its address says, and reads the response. `tls`: `None`, and it goes over
/// plain TCP. Dropped, it leaves nothing behind.
pub async fn run<B>(
    tls: Option<&TlsConnector>,
    mut request: Request<B>,
) -> Result<(Parts, Bytes), Failed>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Failed>,
{
    let uri = std::mem::take(request.uri_mut());
    let (scheme, usual_port) = match tls {
        Some(_) => (Scheme::HTTPS, 443),
        None => (Scheme::HTTP, 80),
    };
    let Some(authority) = uri.authority().filter(|_| uri.scheme() == Some(&scheme)) else {
        return Err(format!("{uri} is not an {scheme} address").into());
    };
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(usual_port);
    let connected = TcpStream::connect((bare, port)).await;
    let tcp = connected.map_err(|error| format!("{authority}: {error}"))?;

    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    *request.uri_mut() = Uri::try_from(target)?;
    match tls {
        None => exchange(tcp, request).await,
        Some(tls) => {
            let name = ServerName::try_from(bare.to_owned())?;
            let stream = tls.connect(name, tcp).await;
            let stream = stream.map_err(|error| format!("{authority}: {error}"))?;
            exchange(stream, request).await
        }
    }
}

async fn exchange<S, B>(stream: S, request: Request<B>) -> Result<(Parts, Bytes), Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Failed>,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await?.to_bytes();
        Ok::<_, Failed>((parts, body))
    };
    // The connection carries the exchange, and what becomes of it afterwards is nobody's matter.
    let (exchanged, _) = join(exchange, connection).await;
    exchanged
}
