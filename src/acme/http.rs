//! HTTPS as instant-acme needs it: a connection for each request.
//!
//! An order makes a dozen requests in some seconds, every two months. Each exchange has a deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::RootCertStore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::errand;

/// From the lookup of the authority's name to the end of its response.
const DEADLINE: Duration = Duration::from_secs(30);

/// HTTPS to an authority.
pub struct Https {
    tls: TlsConnector,
}

impl Https {
    /// To one that these vouch for.
    pub fn new(roots: Arc<RootCertStore>) -> Result<Https, rustls::Error> {
        Ok(Https {
            tls: errand::connector(roots)?,
        })
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let tls = self.tls.clone();
        Box::pin(async move {
            let exchanged = timeout(DEADLINE, errand::run(Some(&tls), request)).await;
            let exchanged = exchanged.map_err(|late| Error::Other(late.into()))?;
            let (parts, body) = exchanged.map_err(Error::Other)?;
            Ok(BytesResponse {
                parts,
                body: Box::new(body),
            })
        })
    }
}
