//! HTTPS as instant-acme needs it: a connection for each request.
//!
//! An order makes a dozen requests in some seconds, every two months: keeping connections would be
//! more than it is worth. Each exchange has a deadline, and a response a bound.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use http::header::{CONNECTION, HOST, HeaderValue};
use http::{Request, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// From the lookup of the authority's name to the end of its response.
const DEADLINE: Duration = Duration::from_secs(30);

/// A chain of certificates has some 10 kB, and nothing else is larger.
const LARGEST: usize = 1024 * 1024;

type Failed = Box<dyn StdError + Send + Sync>;

/// HTTPS to an authority.
pub struct Https {
    tls: TlsConnector,
}

impl Https {
    /// To one that these vouch for.
    pub fn new(roots: Arc<RootCertStore>) -> Result<Https, rustls::Error> {
        // Named, because rustls panics when it has to choose between two providers in the tree.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Https {
            tls: TlsConnector::from(Arc::new(config)),
        })
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let exchange = exchange(self.tls.clone(), request);
        Box::pin(async move {
            match timeout(DEADLINE, exchange).await {
                Ok(outcome) => outcome.map_err(Error::Other),
                Err(late) => Err(Error::Other(late.into())),
            }
        })
    }
}

async fn exchange(
    tls: TlsConnector,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, Failed> {
    let uri = std::mem::take(request.uri_mut());
    let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("{uri} is not an https address").into());
    };
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned())?;
    let port = authority.port_u16().unwrap_or(443);
    let connected = TcpStream::connect((bare, port)).await;
    let tcp = connected.map_err(|error| format!("{authority}: {error}"))?;
    let stream = tls.connect(name, tcp).await;
    let stream = stream.map_err(|error| format!("{authority}: {error}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;

    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    *request.uri_mut() = Uri::try_from(target)?;
    let exchange = async move {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await?.to_bytes();
        Ok::<_, Failed>((parts, body))
    };
    // The connection carries the exchange, and what becomes of it afterwards is nobody's matter.
    let (exchanged, _) = join(exchange, connection).await;
    let (parts, body) = exchanged?;
    Ok(BytesResponse {
        parts,
        body: Box::new(body),
    })
}
