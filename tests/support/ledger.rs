//! Backends that keep books: which request came to whom, when, and with which id.
//!
//! Plain HTTP/1.1 on loopback, kept alive for as long as the other side likes, served from a
//! thread of their own so that a busy test does not slow them down. They answer what they are
//! asked for by the path: `/delay/MS` waits, `/size/N` answers with N bytes, `/cut/N` promises
//! that and closes halfway. Used by the tests that count (`bind.rs`, `dns_faults.rs`,
//! `memory.rs`); they end when the [`Ledger`] is dropped.

#![allow(dead_code)] // each test file uses a part of it

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet, LocalSet};
use tokio::time::{Instant, sleep};

/// One request as a backend got it, whole.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// When its last byte had come.
    pub at: Instant,
    /// Index of the backend.
    pub backend: usize,
    /// `X-Id`, if it had one.
    pub id: Option<String>,
}

/// The books of several backends.
#[derive(Debug)]
pub struct Ledger {
    names: Vec<String>,
    ports: Vec<u16>,
    books: Arc<Mutex<Books>>,
    /// The accepting task of each backend, which owns its connections.
    lives: Arc<Mutex<Vec<AbortHandle>>>,
    /// Dropped: the thread ends.
    _stop: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Books {
    arrivals: Vec<Arrival>,
    /// Requests by backend; goes on when `arrivals` is not kept.
    counts: Vec<u64>,
    open: Vec<usize>,
    /// Requests that were not as their sender says, in words.
    damaged: Vec<String>,
    counts_only: bool,
}

/// How much is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Every arrival.
    Arrivals,
    /// Numbers only, for tests that run long.
    Counts,
}

impl Ledger {
    /// A backend on 127.0.0.1 for each name.
    pub fn start(names: &[&str], keep: Keep) -> Ledger {
        let bind = |_| {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            socket.set_nonblocking(true).expect("it is a socket");
            socket
        };
        let sockets: Vec<_> = names.iter().map(bind).collect();
        let port = |s: &std::net::TcpListener| s.local_addr().expect("bound").port();
        let ports = sockets.iter().map(port).collect();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let books = Arc::new(Mutex::new(Books {
            counts: vec![0; names.len()],
            open: vec![0; names.len()],
            counts_only: keep == Keep::Counts,
            ..Books::default()
        }));
        let (stop, stopped) = oneshot::channel::<()>();
        let (thread_names, thread_books) = (names.clone(), Arc::clone(&books));
        let lives = Arc::new(Mutex::new(Vec::new()));
        let thread_lives = Arc::clone(&lives);
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            LocalSet::new().block_on(&runtime.expect("a runtime"), async move {
                let mut accepting = JoinSet::new();
                for (backend, (socket, name)) in sockets.into_iter().zip(thread_names).enumerate() {
                    let socket = TcpListener::from_std(socket).expect("it is non-blocking");
                    let life = accept(socket, backend, name, thread_books.clone());
                    let life = accepting.spawn_local(life);
                    thread_lives.lock().expect("nobody panics").push(life);
                }
                // Err: the sender was dropped, which is what ends this.
                let _ = stopped.await;
            });
        });
        Ledger {
            names,
            ports,
            books,
            lives,
            _stop: stop,
        }
    }

    /// Port of a backend.
    pub fn port(&self, backend: usize) -> u16 {
        self.ports[backend]
    }

    /// Name of a backend.
    pub fn name(&self, backend: usize) -> &str {
        &self.names[backend]
    }

    /// Ends a backend at once: its port is closed, and so is every connection, whatever is under
    /// way on it.
    pub fn kill(&self, backend: usize) {
        self.lives.lock().expect("nobody panics")[backend].abort();
    }

    /// All arrivals so far, in the order of arrival.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.lock().arrivals.clone()
    }

    /// Requests by backend so far.
    pub fn counts(&self) -> Vec<u64> {
        self.lock().counts.clone()
    }

    /// Connections open right now, by backend.
    pub fn open(&self) -> Vec<usize> {
        self.lock().open.clone()
    }

    /// Requests whose body was not what its sender announced. Must stay empty.
    pub fn damaged(&self) -> Vec<String> {
        self.lock().damaged.clone()
    }

    /// How often each id arrived, all backends together.
    pub fn ids(&self) -> HashMap<String, usize> {
        let mut ids = HashMap::new();
        for id in self.lock().arrivals.iter().filter_map(|a| a.id.as_ref()) {
            *ids.entry(id.clone()).or_default() += 1;
        }
        ids
    }

    /// Compares the books of both sides. `confirmed`: ids whose sender got a 200; `unknown`: ids
    /// whose sender got something else, or nothing.
    pub fn audit(&self, confirmed: &[String], unknown: &[String]) -> Audit {
        let ids = self.ids();
        let count = |id: &String| ids.get(id).copied().unwrap_or(0);
        let sent = confirmed.iter().chain(unknown);
        let known: std::collections::HashSet<_> = sent.clone().collect();
        Audit {
            posts: known.len(),
            lost: confirmed
                .iter()
                .filter(|id| count(id) == 0)
                .cloned()
                .collect(),
            twice: ids
                .iter()
                .filter(|(_, n)| **n > 1)
                .map(|(id, _)| id.clone())
                .collect(),
            never_sent: ids
                .keys()
                .filter(|id| !known.contains(id))
                .cloned()
                .collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no backend panics")
    }
}

/// What the comparison found. All lists must be empty.
#[derive(Debug)]
pub struct Audit {
    /// Ids that clients sent.
    pub posts: usize,
    /// Confirmed to the client, and no backend has it.
    pub lost: Vec<String>,
    /// Arrived more than once.
    pub twice: Vec<String>,
    /// A backend has it, and no client sent it.
    pub never_sent: Vec<String>,
}

impl Audit {
    /// Panics unless both sides agree.
    pub fn expect_agreement(&self) {
        assert!(
            self.lost.is_empty() && self.twice.is_empty() && self.never_sent.is_empty(),
            "the ledgers differ: {self:#?}"
        );
    }
}

async fn accept(socket: TcpListener, backend: usize, name: String, books: Arc<Mutex<Books>>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = socket.accept().await else {
            continue;
        };
        stream.set_nodelay(true).expect("it is a TCP socket");
        let (name, books) = (name.clone(), Arc::clone(&books));
        connections.spawn_local(async move {
            let open = Open::new(books, backend);
            // A connection that ends, however it does, is the other side's business.
            let _ = serve(stream, backend, &name, &open.books).await;
        });
    }
}

/// Counts a connection as open until it is dropped.
struct Open {
    books: Arc<Mutex<Books>>,
    backend: usize,
}

impl Open {
    fn new(books: Arc<Mutex<Books>>, backend: usize) -> Open {
        books.lock().expect("no backend panics").open[backend] += 1;
        Open { books, backend }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.books.lock().expect("no backend panics").open[self.backend] -= 1;
    }
}

/// Serves one connection until the other side is done with it.
async fn serve(
    mut stream: TcpStream,
    backend: usize,
    name: &str,
    books: &Mutex<Books>,
) -> io::Result<()> {
    let mut held = Vec::new();
    loop {
        let Some(request) = read_request(&mut stream, &mut held).await? else {
            return Ok(());
        };
        {
            let mut books = books.lock().expect("no backend panics");
            books.counts[backend] += 1;
            if let Some(id) = &request.id
                && !request.body.starts_with(id.as_bytes())
            {
                let what = format!("{name}: X-Id {id}, body of {} bytes", request.body.len());
                books.damaged.push(what);
            }
            if !books.counts_only {
                books.arrivals.push(Arrival {
                    at: Instant::now(),
                    backend,
                    id: request.id.clone(),
                });
            }
        }
        let asked = request.path.trim_start_matches('/').split_once('/');
        let number = |text: &str| text.parse::<usize>().unwrap_or(0);
        let (size, whole) = match asked {
            Some(("delay", ms)) => {
                sleep(Duration::from_millis(number(ms) as u64)).await;
                (0, true)
            }
            Some(("size", n)) => (number(n), true),
            Some(("cut", n)) => (number(n), false),
            _ => (0, true),
        };
        let name_line = format!("{name}\n");
        let length = size.max(name_line.len());
        let mut response = format!(
            "HTTP/1.1 200 OK\r\nX-Backend: {name}\r\nContent-Length: {length}\r\n\r\n{name_line}"
        )
        .into_bytes();
        let padding = vec![b'.'; length - name_line.len()];
        response.extend_from_slice(if whole {
            &padding
        } else {
            &padding[..padding.len() / 2]
        });
        stream.write_all(&response).await?;
        if !whole {
            return Ok(());
        }
    }
}

struct Request {
    path: String,
    id: Option<String>,
    body: Vec<u8>,
}

/// Reads one request whole; `held` keeps what was read beyond it. `None`: there is no other one.
async fn read_request(stream: &mut TcpStream, held: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(at) = held.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(held).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&held[..end]).into_owned();
    held.drain(..end);
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let path = first.nth(1).unwrap_or_default().to_owned();
    let (mut length, mut chunked, mut id) = (0, false, None);
    for (field, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match field.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(io::Error::other)?,
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "x-id" => id = Some(value.to_owned()),
            _ => {}
        }
    }
    let body = match chunked {
        false => take(stream, held, length).await?,
        true => {
            let mut body = Vec::new();
            loop {
                let size = line(stream, held).await?;
                let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
                if size == 0 {
                    // Our clients send no trailers.
                    line(stream, held).await?;
                    break body;
                }
                body.extend(take(stream, held, size).await?);
                line(stream, held).await?;
            }
        }
    };
    Ok(Some(Request { path, id, body }))
}

async fn take(stream: &mut TcpStream, held: &mut Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    while held.len() < length {
        if stream.read_buf(held).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    // Unlike drain and collect, not byte by byte: these tests are built without optimisation.
    let rest = held.split_off(length);
    Ok(std::mem::replace(held, rest))
}

async fn line(stream: &mut TcpStream, held: &mut Vec<u8>) -> io::Result<String> {
    loop {
        if let Some(at) = held.windows(2).position(|w| w == b"\r\n") {
            let line = String::from_utf8_lossy(&held[..at]).into_owned();
            held.drain(..at + 2);
            return Ok(line);
        }
        if stream.read_buf(held).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
