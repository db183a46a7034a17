//! TLS in front of a backend that speaks none, with a certificate that can be exchanged.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::lock;

/// It ends with its value.
pub struct Terminator {
    pub address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    _tasks: JoinSet<()>,
}

impl Terminator {
    /// In front of that address, on the present runtime.
    pub async fn start(to: SocketAddr, config: ServerConfig) -> Terminator {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let config = Arc::new(Mutex::new(Arc::new(config)));
        let current = Arc::clone(&config);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(Arc::clone(&lock(&current)));
                connections.spawn(async move {
                    let Ok(mut tls) = acceptor.accept(tcp).await else {
                        return;
                    };
                    if let Ok(mut plain) = TcpStream::connect(to).await {
                        let _ = copy_bidirectional(&mut tls, &mut plain).await;
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Terminator {
            address,
            config,
            _tasks: tasks,
        }
    }

    /// New connections have another certificate from now on.
    pub fn present(&self, config: ServerConfig) {
        *lock(&self.config) = Arc::new(config);
    }
}
