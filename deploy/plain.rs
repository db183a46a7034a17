//! A small HTTP/1.1 server that knows nothing of Evenkeel: what stands behind `--synth` in
//! docker-compose.yml, where people have nginx, traefik/whoami or something of their own.
//!
//! It answers everything with its host name, keeps connections, and writes a line for each request
//! that may change something. It registers nowhere, and when it is told to stop it is gone, as many
//! images are. `plain health` is its own health check, for there is no curl in its image. It is not
//! part of the crate: static.sh compiles this one file.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const PORT: u16 = 8080;
/// For a peer to send or to take something.
const PATIENCE: Duration = Duration::from_secs(75);
/// A whole request head, in bytes.
const LONGEST_HEAD: u64 = 32 << 10;
/// Connections, and so threads, at once; further ones are closed.
const MOST: usize = 256;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("health") {
        return match healthy() {
            Ok(true) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        };
    }
    let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "plain".into());
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("the port is free");
    println!("{name} listens on port {PORT}");
    let name: Arc<str> = name.into();
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        // Only this thread adds; the others take away. A count that is a moment old does no harm.
        if open.load(Ordering::Relaxed) >= MOST {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (name, open) = (Arc::clone(&name), Arc::clone(&open));
        thread::spawn(move || {
            // What goes wrong on a connection ends that connection.
            let _ = converse(&stream, &name);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    ExitCode::FAILURE
}

/// One connection, request after request, until the peer closes in front of one.
fn converse(stream: &TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut input = BufReader::new(stream);
    while let Some(request) = read_head(&mut input)? {
        let sent = io::copy(&mut (&mut input).take(request.length), &mut io::sink())?;
        if sent < request.length {
            break;
        }
        if !matches!(&*request.method, "GET" | "HEAD") {
            println!("{} {}", request.method, request.path);
        }
        let body = match &*request.method {
            "HEAD" => String::new(),
            _ => format!("hello from {name}\n"),
        };
        let length = "hello from \n".len() + name.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Backend: {name}\r\nContent-Length: {length}\r\n\r\n"
        );
        (&mut &*stream).write_all((head + &body).as_bytes())?;
    }
    Ok(())
}

/// What it wants to know of a request.
struct Request {
    method: String,
    path: String,
    length: u64,
}

/// The next head; none when the peer has closed. What it does not understand, chunked bodies
/// included, is an error and ends the connection.
fn read_head(input: &mut impl BufRead) -> io::Result<Option<Request>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut head = input.take(LONGEST_HEAD);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(invalid());
    };
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut length = 0;
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(invalid());
        }
        let field = line.trim_end().to_ascii_lowercase();
        match field.split_once(':') {
            None if field.is_empty() => break,
            None | Some(("transfer-encoding", _)) => return Err(invalid()),
            Some(("content-length", value)) => {
                length = value.trim().parse().map_err(|_| invalid())?;
            }
            Some(_) => {}
        }
    }
    Ok(Some(Request {
        method,
        path,
        length,
    }))
}

/// Does a server on this machine answer with 200?
fn healthy() -> io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(&status == b"HTTP/1.1 200")
}
