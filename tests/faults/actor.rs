//! A backend that plays a part, and can be given another one while it plays. It keeps books of the
//! requests that came whole.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::support::{PATIENCE, lock};

/// What it does with whoever comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Answers with 200.
    Good,
    /// Nobody listens; what is open is closed.
    Gone,
    /// Takes the request and says nothing.
    Hangs,
    /// Sends half of a head, then a reset.
    ResetsInHead,
    /// Sends a head and half of the body, then a reset.
    ResetsInBody,
    /// Closes after each response, without having said so.
    ClosesAfterEach,
    /// Answers with 500.
    Fails,
    /// Answers with 500 for 200 ms of every 400.
    FailsInBursts,
    /// Answers after that time.
    Slow(Duration),
    /// Sends something after each response.
    Stray,
    /// Answers with what is no HTTP: a TLS alert.
    SpeaksTls,
}

/// The actor. Its port is its own until it is dropped.
pub struct Actor {
    pub address: SocketAddr,
    part: watch::Sender<Part>,
    books: Arc<Books>,
    /// It ends with its sender.
    _end: watch::Sender<()>,
}

#[derive(Default)]
struct Books {
    /// How often each `X-Id` came whole.
    ids: Mutex<HashMap<String, usize>>,
    /// Nobody listens.
    gone: AtomicBool,
}

impl Actor {
    /// Begins as a good one, on the present runtime.
    pub fn start(name: &str) -> Actor {
        let (part, parts) = watch::channel(Part::Good);
        let (end, ended) = watch::channel(());
        let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let books = Arc::new(Books::default());
        tokio::spawn(accept(
            listener,
            name.to_owned(),
            parts,
            Arc::clone(&books),
            ended,
        ));
        Actor {
            address,
            part,
            books,
            _end: end,
        }
    }

    /// From now on it plays this part; connections that are open follow.
    pub async fn play(&self, part: Part) {
        self.part.send_replace(part);
        let gone = part == Part::Gone;
        let begun = Instant::now();
        while self.books.gone.load(Ordering::SeqCst) != gone {
            assert!(begun.elapsed() < PATIENCE, "{} does not play", self.address);
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// How often each `X-Id` came whole.
    pub fn ids(&self) -> HashMap<String, usize> {
        lock(&self.books.ids).clone()
    }
}

/// With SO_REUSEADDR, so that one who went can come back at once.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// Somebody else may have got the port meanwhile, for a connection of his own.
async fn bind_again(address: SocketAddr) -> TcpListener {
    let begun = Instant::now();
    loop {
        match bind(address) {
            Ok(listener) => return listener,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{address}: {error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn accept(
    listener: TcpListener,
    name: String,
    mut parts: watch::Receiver<Part>,
    books: Arc<Books>,
    mut ended: watch::Receiver<()>,
) {
    let address = listener.local_addr().expect("it is bound");
    let mut listener = Some(listener);
    loop {
        let gone = *parts.borrow_and_update() == Part::Gone;
        match (&listener, gone) {
            (Some(_), true) => listener = None,
            (None, false) => listener = Some(bind_again(address).await),
            _ => {}
        }
        books.gone.store(gone, Ordering::SeqCst);
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accepted => {
                let Ok((stream, _)) = accepted else { continue };
                let served = serve(stream, name.clone(), parts.clone(), Arc::clone(&books));
                let mut ended = ended.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = served => {}
                        _ = ended.changed() => {}
                    }
                });
            }
            changed = parts.changed() => if changed.is_err() { return },
            _ = ended.changed() => return,
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    name: String,
    mut parts: watch::Receiver<Part>,
    books: Arc<Books>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut held = Vec::new();
    loop {
        let request = tokio::select! {
            biased;
            _ = parts.wait_for(|part| *part == Part::Gone) => return Ok(()),
            request = read_request(&mut stream, &mut held) => request?,
        };
        let Some(request) = request else {
            return Ok(());
        };
        if let Some(id) = request {
            *lock(&books.ids).entry(id).or_default() += 1;
        }
        let answer = |status: &str| {
            let body = format!("{name}\n{}", ".".repeat(500));
            format!(
                "HTTP/1.1 {status}\r\nX-Backend: {name}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let good = answer("200 OK");
        let part = *parts.borrow();
        match part {
            Part::Good => stream.write_all(good.as_bytes()).await?,
            Part::Gone => return Ok(()),
            Part::Hangs => {
                // Until it plays another part; what it was asked is never answered.
                let _ = parts.wait_for(|part| *part != Part::Hangs).await;
                return Ok(());
            }
            Part::ResetsInHead => return cut(stream, &good.as_bytes()[..30]).await,
            Part::ResetsInBody => return cut(stream, &good.as_bytes()[..300]).await,
            Part::ClosesAfterEach => {
                stream.write_all(good.as_bytes()).await?;
                return Ok(());
            }
            Part::Fails => stream.write_all(answer("500 No").as_bytes()).await?,
            Part::FailsInBursts => {
                let burst = started().elapsed().as_millis() % 400 < 200;
                let status = if burst { "500 No" } else { "200 OK" };
                stream.write_all(answer(status).as_bytes()).await?;
            }
            Part::Slow(time) => {
                sleep(time).await;
                stream.write_all(good.as_bytes()).await?;
            }
            Part::Stray => {
                stream.write_all(good.as_bytes()).await?;
                stream.write_all(good.as_bytes()).await?;
            }
            Part::SpeaksTls => {
                stream.write_all(b"\x15\x03\x03\x00\x02\x02\x28").await?;
                return Ok(());
            }
        }
    }
}

/// Sends that, and then a reset.
async fn cut(mut stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    // What was written shall be read before the reset overtakes it.
    sleep(Duration::from_millis(5)).await;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(())
}

fn started() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Reads one request whole, and gives its `X-Id`, if it has one. `None`: there is no other one.
async fn read_request(
    stream: &mut TcpStream,
    held: &mut Vec<u8>,
) -> io::Result<Option<Option<String>>> {
    let end = loop {
        if let Some(at) = held.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(held).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&held[..end]).into_owned();
    let field = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let length = field("content-length").map_or(0, |text| text.parse().expect("a number"));
    while held.len() < end + length {
        if stream.read_buf(held).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    *held = held.split_off(end + length);
    Ok(Some(field("x-id")))
}
