//! A request on connections that are kept allocates nothing: heads, bodies, log lines and counters
//! have their room already.
//!
//! The server runs in this process with one worker, under an allocator that counts. The client and
//! the backend are threads of the test and are left out of the count; everybody else is in it: the
//! worker, the control thread, the writer of the access log. What a failing row says first is
//! where the allocations come from.

mod support;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use counting::{Count, counted, leave_out, sites};
use support::server::{Folder, Server};
use support::wait_until;

/// Requests before the count: every buffer has grown, every combination has its counter.
const WARM_UP: u32 = 500;
/// Requests that are counted.
const REQUESTS: u32 = 2_000;
/// Requests whose allocations are traced in a row that fails; slow.
const LOOKED_AT: u32 = 10;
/// What the control thread and ticks may allocate meanwhile, whatever the number of requests.
const BESIDES: u64 = 20;

/// One kind of traffic.
#[derive(Debug, Clone, Copy)]
struct Row {
    name: &'static str,
    /// The version, over TLS.
    tls: Option<&'static rustls::SupportedProtocolVersion>,
    access: &'static str,
    /// Bytes of the request's body, if it has one.
    request: Option<usize>,
    response: Response,
    /// More lines of the service, which then has two backends.
    service: &'static str,
    /// Allocations for each request, in thousandths, and why they are right.
    bound: (u64, &'static str),
}

#[derive(Debug, Clone, Copy)]
enum Response {
    /// Of so many bytes.
    Length(usize),
    /// Of so many chunks of 1 KiB.
    Chunks(usize),
}

const NOTHING: (u64, &str) = (0, "everything has its room");
/// rustls' own buffers, one record each way.
const RUSTLS: (u64, &str) = (
    2_000,
    "rustls makes a record to send, and a copy of what a record held that came",
);

const SMALL: Row = Row {
    name: "plain, access log off",
    tls: None,
    access: "off",
    request: None,
    response: Response::Length(128),
    service: "",
    bound: NOTHING,
};

#[test]
fn a_request_allocates_nothing() {
    let rows = [
        SMALL,
        Row {
            name: "JSON access log",
            access: "json",
            ..SMALL
        },
        Row {
            name: "combined access log",
            access: "combined",
            ..SMALL
        },
        Row {
            name: "limited by address",
            service: "rate_limit = { requests = 1000000 }",
            ..SMALL
        },
        Row {
            name: "limited by a field",
            service: "rate_limit = { requests = 1000000, by = \"header:User-Agent\" }",
            ..SMALL
        },
        Row {
            name: "POST of 1 KiB",
            request: Some(1024),
            ..SMALL
        },
        Row {
            name: "POST of 100 KiB",
            request: Some(100 * 1024),
            ..SMALL
        },
        Row {
            name: "10 KiB response",
            response: Response::Length(10 * 1024),
            ..SMALL
        },
        Row {
            name: "100 KiB response",
            response: Response::Length(100 * 1024),
            ..SMALL
        },
        Row {
            name: "response of 10 chunks",
            response: Response::Chunks(10),
            ..SMALL
        },
        Row {
            name: "TLS 1.3",
            tls: Some(&rustls::version::TLS13),
            bound: RUSTLS,
            ..SMALL
        },
        Row {
            name: "TLS 1.2",
            tls: Some(&rustls::version::TLS12),
            bound: RUSTLS,
            ..SMALL
        },
        Row {
            name: "TLS 1.3, 10 KiB response, JSON access log",
            tls: Some(&rustls::version::TLS13),
            bound: RUSTLS,
            access: "json",
            response: Response::Length(10 * 1024),
            ..SMALL
        },
        Row {
            name: "TLS 1.3, POST of 1 KiB",
            tls: Some(&rustls::version::TLS13),
            bound: RUSTLS,
            request: Some(1024),
            ..SMALL
        },
        Row {
            name: "least_connections",
            service: "strategy = \"least_connections\"",
            ..SMALL
        },
        Row {
            name: "random",
            service: "strategy = \"random\"",
            ..SMALL
        },
        Row {
            name: "two_choices",
            service: "strategy = \"two_choices\"",
            ..SMALL
        },
        Row {
            name: "hash by a header, with spill",
            service: "strategy = \"hash\"\nhash_by = \"header:User-Agent\"\nspill = true",
            ..SMALL
        },
        Row {
            name: "sticky, a client without a cookie",
            service: "sticky = \"cookie\"",
            bound: (3_000, "a cookie is put together for whoever has none"),
            ..SMALL
        },
    ];
    leave_out();
    let failures: Vec<String> = rows.iter().filter_map(failure).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What is wrong with a row, and where that comes from.
fn failure(row: &Row) -> Option<String> {
    let (thousandths, reason) = row.bound;
    let allowed = u64::from(REQUESTS) * thousandths / 1_000 + BESIDES;
    let (count, found) = measure(row, allowed);
    let each = |n: u64| n as f64 / f64::from(REQUESTS);
    let (allocations, bytes) = (each(count.allocations), each(count.bytes));
    let text = format!(
        "{}: {allocations:.3} allocations and {bytes:.0} bytes a request, \
         at most {allowed} allocations in all: {reason}",
        row.name,
    );
    println!("{text}");
    found.map(|found| format!("{text}\n{found}"))
}

/// Boots, warms up and counts. If that is more than allowed, looks who allocates.
fn measure(row: &Row, allowed: u64) -> (Count, Option<String>) {
    let (request, response) = (request(row), response(row));
    let body = row.request.unwrap_or(0);
    let backends = if row.service.is_empty() { 1 } else { 2 };
    let backends: Vec<_> = (0..backends)
        .map(|_| backend(body, response.clone()).to_string())
        .collect();
    let folder = Folder::new();
    let certificate = folder.certificate("localhost", &["localhost"]);
    let protocol = match row.tls {
        Some(_) => format!(
            "protocol = \"https\"\ncertificates = [{}]",
            certificate.entry()
        ),
        None => "protocol = \"http\"".to_owned(),
    };
    let written = Written::default();
    let server = Server::logging(
        &format!(
            r#"
            workers = 1
            log.access = "{}"
            [[listener]]
            address = "127.0.0.1:0"
            {protocol}
            [[service]]
            name = "web"
            discover = {{ static = {backends:?} }}
            {}
            [[route]]
            service = "web"
            "#,
            row.access, row.service
        ),
        written.clone(),
    );
    let tcp = TcpStream::connect(server.address()).expect("the server listens");
    tcp.set_nodelay(true).expect("it is a socket");
    let mut tcp_only;
    let mut over_tls;
    let stream: &mut dyn Stream = match row.tls {
        None => {
            tcp_only = tcp;
            &mut tcp_only
        }
        Some(version) => {
            let config = support::client::tls_config(&certificate.ca, &[version]);
            let name = "localhost".try_into().expect("it is a name");
            let client = rustls::ClientConnection::new(config, name);
            over_tls = rustls::StreamOwned::new(client.expect("it is complete"), tcp);
            &mut over_tls
        }
    };
    let mut exchange = |times: u32| {
        let mut buffer = vec![0; 256 * 1024];
        let mut length = None;
        for _ in 0..times {
            stream.write_all(&request).expect("the server reads");
            // What differs between two responses has the same length: a date, a number.
            let read = whole(stream, &mut buffer, row.response);
            let expected = *length.get_or_insert(read);
            assert_eq!(read, expected, "responses of one kind");
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200 "));
    };
    exchange(WARM_UP);
    let ((), count) = counted(|| exchange(REQUESTS));
    let too_many = count.allocations > allowed;
    let found = too_many.then(|| sites(|| exchange(LOOKED_AT)));
    drop(server);
    let looked_at = if too_many { LOOKED_AT } else { 0 };
    let lines = u64::from(WARM_UP + REQUESTS + looked_at);
    let expected = if row.access == "off" { 0 } else { lines };
    wait_until("the access log is written", || written.lines() == expected);
    (count, found)
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Reads one response; returns its length, head and all.
fn whole(stream: &mut dyn Stream, buffer: &mut [u8], kind: Response) -> usize {
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..]).expect("a response");
        assert_ne!(n, 0, "the connection ended");
        filled += n;
        let Some(head) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") else {
            continue;
        };
        let done = match kind {
            Response::Length(length) => filled == head + 4 + length,
            Response::Chunks(_) => buffer[..filled].ends_with(b"0\r\n\r\n"),
        };
        if done {
            return filled;
        }
    }
}

fn request(row: &Row) -> Vec<u8> {
    let fields = "Host: localhost\r\nUser-Agent: allocation/1\r\nAccept: */*\r\n";
    match row.request {
        None => format!("GET /a/b?c=d HTTP/1.1\r\n{fields}\r\n").into(),
        Some(length) => {
            let head = format!("POST /a HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n");
            [head.into_bytes(), vec![b'x'; length]].concat()
        }
    }
}

fn response(row: &Row) -> Vec<u8> {
    let start = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
    match row.response {
        Response::Length(length) => {
            let head = format!("{start}Content-Length: {length}\r\n\r\n");
            [head.into_bytes(), vec![b'x'; length]].concat()
        }
        Response::Chunks(chunks) => {
            let head = format!("{start}Transfer-Encoding: chunked\r\n\r\n");
            let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
            format!("{head}{}0\r\n\r\n", chunk.repeat(chunks)).into()
        }
    }
}

/// A backend that answers every request with `response`; ends when the server does.
fn backend(body: usize, response: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        leave_out();
        let (mut stream, _) = listener.accept().expect("the server connects");
        stream.set_nodelay(true).expect("it is a socket");
        let mut buffer = vec![0; 256 * 1024];
        let mut filled = 0;
        // An error is the server's end.
        while let Ok(n @ 1..) = stream.read(&mut buffer[filled..]) {
            filled += n;
            let head = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n");
            if head.is_some_and(|head| filled == head + 4 + body) {
                filled = 0;
                stream.write_all(&response).expect("the server reads");
            }
        }
    });
    address
}

/// Counts the lines that are written to it.
#[derive(Debug, Clone, Default)]
struct Written(Arc<AtomicU64>);

impl Written {
    fn lines(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Write for Written {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let lines = memchr::memchr_iter(b'\n', text).count() as u64;
        self.0.fetch_add(lines, Ordering::Relaxed);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The allocator that counts.
#[allow(unsafe_code, reason = "an allocator can be had in no other way")]
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::backtrace::Backtrace;
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    /// What was allocated.
    #[derive(Debug, Clone, Copy)]
    pub struct Count {
        pub allocations: u64,
        pub bytes: u64,
    }

    struct Counting;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    // Relaxed all of them: whoever asks has waited for the requests whose allocations it wants.
    static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
    static BYTES: AtomicU64 = AtomicU64::new(0);
    static LOOKING: AtomicBool = AtomicBool::new(false);
    static SITES: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

    thread_local! {
        static LEFT_OUT: Cell<bool> = const { Cell::new(false) };
    }

    /// From now on this thread's allocations are not counted.
    pub fn leave_out() {
        LEFT_OUT.set(true);
    }

    /// Does something and counts what the other threads allocate meanwhile.
    pub fn counted<T>(work: impl FnOnce() -> T) -> (T, Count) {
        let now = || {
            (
                ALLOCATIONS.load(Ordering::Relaxed),
                BYTES.load(Ordering::Relaxed),
            )
        };
        let before = now();
        let done = work();
        let after = now();
        let count = Count {
            allocations: after.0 - before.0,
            bytes: after.1 - before.1,
        };
        (done, count)
    }

    /// Does something and says which code allocates meanwhile, how often, most first.
    pub fn sites(work: impl FnOnce()) -> String {
        let lock = || SITES.lock().unwrap_or_else(|e| e.into_inner());
        lock().clear();
        LOOKING.store(true, Ordering::Relaxed);
        work();
        LOOKING.store(false, Ordering::Relaxed);
        let mut found: Vec<_> = std::mem::take(&mut *lock()).into_iter().collect();
        found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let lines = found.iter().take(20);
        lines
            .map(|(site, count)| format!("{count} times:\n{site}"))
            .collect()
    }

    fn count(layout: Layout) {
        if LEFT_OUT.get() {
            return;
        }
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        if LOOKING.load(Ordering::Relaxed) {
            LEFT_OUT.set(true);
            let trace = Backtrace::force_capture().to_string();
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("?");
            let place = format!("{} bytes on {name}\n{}", layout.size(), ours(&trace));
            *SITES
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .entry(place)
                .or_default() += 1;
            LEFT_OUT.set(false);
        }
    }

    /// The innermost frames that are neither the allocator's nor the standard library's.
    fn ours(trace: &str) -> String {
        let mut frames = Vec::new();
        for line in trace.lines() {
            match line.trim().split_once(": ") {
                Some((number, name)) if number.parse::<u32>().is_ok() => {
                    frames.push(format!("    {name}\n"));
                }
                _ => {
                    if let Some(frame) = frames.last_mut() {
                        *frame = format!("{} {}\n", frame.trim_end_matches('\n'), line.trim());
                    }
                }
            }
        }
        let dull = [
            "allocation::counting",
            "std::",
            "alloc::",
            "core::",
            "<alloc::",
            "<core::",
            "__rust",
            "<std::",
            "<T as",
            "tokio::runtime",
            "tokio::task",
        ];
        frames.retain(|frame| !dull.iter().any(|d| frame.trim_start().starts_with(d)));
        frames.truncate(8);
        frames.concat()
    }

    // SAFETY: every call goes to the system's allocator as it came, which keeps what is promised;
    // counting touches atomics and a thread-local without a destructor, neither of which allocates.
    // Looking for sites does, with the thread left out, so that it is not entered twice.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(layout);
            // SAFETY: the caller's promise, passed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            count(layout);
            // SAFETY: the caller's promise, passed on.
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            if let Ok(new) = Layout::from_size_align(size, layout.align()) {
                count(new);
            }
            // SAFETY: the caller's promise, passed on.
            unsafe { System.realloc(old, layout, size) }
        }

        unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
            // SAFETY: the caller's promise, passed on.
            unsafe { System.dealloc(old, layout) }
        }
    }
}
