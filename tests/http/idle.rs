//! Idle connections: they hold next to nothing, and are connections all the same.

use std::time::Duration;

use rustls::version::TLS13;

use crate::Site;
use crate::support::backend::{Backend, Step};
use crate::support::client::{Client, End, tls_config};
use crate::support::server::Server;
use crate::support::{pause, wait_until};

/// A plain and a TLS client of a site.
fn both(site: &Site) -> [Client; 2] {
    let config = tls_config(&site.certificate.ca, &[&TLS13]);
    let secure = Client::tls(site.server.addresses[0], &config, "localhost");
    [
        secure.expect("it is TLS"),
        Client::plain(site.server.addresses[1]),
    ]
}

/// Many connections, served in turns by the same runners: each gets its own responses.
#[test]
fn connections_that_were_idle_are_served_again() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    let config = tls_config(&site.certificate.ca, &[&TLS13]);
    let mut clients: Vec<_> = (0..40)
        .map(|n| match n % 2 {
            0 => Client::plain(site.server.addresses[1]),
            _ => Client::tls(site.server.addresses[0], &config, "localhost").expect("it is TLS"),
        })
        .collect();
    for round in 0..5 {
        // All at once, answers read afterwards.
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(format!("GET /{round}/{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            let response = client.response().expect("it is served");
            assert_eq!(response.text(), format!("GET /{round}/{n} "));
        }
    }
}

/// The next request comes in pieces, behind an empty line (RFC 9112 §2.2), and in pairs.
#[test]
fn an_idle_connection_takes_a_request_in_any_pieces() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "");
    for mut client in both(&site) {
        assert_eq!(
            client.get("a", "/1").expect("it is served").text(),
            "GET /1 "
        );
        let pieces: [&[u8]; 4] = [b"\r\n", b"GE", b"T /2 HTTP/1.1\r\nHost", b": a\r\n\r\n"];
        client.send_pieces(&pieces, || pause(Duration::from_millis(20)));
        assert_eq!(client.response().expect("it is served").text(), "GET /2 ");
        client.send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n");
        for path in ["/3", "/4"] {
            let response = client.response().expect("it is served");
            assert_eq!(response.text(), format!("GET {path} "));
        }
    }
}

#[test]
fn an_idle_connection_ends_at_its_deadline() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "[defaults]\nkeep_alive = \"300ms\"\n");
    for mut client in both(&site) {
        for path in ["/1", "/2"] {
            assert_eq!(client.get("a", path).expect("it is served").status(), 200);
        }
        assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
    }
}

/// One on which nothing ever came has the time for a head, not the time between requests.
#[test]
fn a_connection_without_a_request_ends_as_well() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "[defaults]\nheader_timeout = \"300ms\"\n");
    for mut client in both(&site) {
        assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
    }
}

#[test]
fn a_drain_ends_idle_connections() {
    let backend = Backend::start("b");
    let mut site = Site::start(&backend, "[drain]\nwait = \"100ms\"\n");
    let mut clients: Vec<_> = both(&site).into_iter().chain(both(&site)).collect();
    for client in clients.iter_mut().take(2) {
        assert_eq!(client.get("a", "/").expect("it is served").status(), 200);
    }
    site.server.drain();
    for mut client in clients {
        assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
    }
    let code = site.server.process().exit_code(Duration::from_secs(15));
    assert_eq!(code, Some(0));
}

/// `limits.max_connections` counts the idle ones, and no longer than they are there.
#[test]
fn idle_connections_count() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "[limits]\nmax_connections = 2\n");
    let [mut secure, mut plain] = both(&site);
    for client in [&mut secure, &mut plain] {
        assert_eq!(client.get("a", "/").expect("it is served").status(), 200);
    }
    let mut third = Client::plain(site.server.addresses[1]);
    assert_eq!(third.response().expect("it is told").status(), 503);
    drop(secure);
    crate::support::wait_until("there is room again", || {
        let mut next = Client::plain(site.server.addresses[1]);
        next.get("a", "/")
            .is_ok_and(|response| response.status() == 200)
    });
}

/// Whoever is one too many is told so, whether or not it has sent its request by then: a connection
/// that is closed with bytes unread would be reset, and the response with it.
#[test]
fn whoever_is_too_many_is_told_so() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "[limits]\nmax_connections = 1\n");
    let mut first = Client::plain(site.server.addresses[1]);
    assert_eq!(first.get("a", "/").expect("it is served").status(), 200);
    for asks in [true, false] {
        for _ in 0..50 {
            let mut next = Client::plain(site.server.addresses[1]);
            if asks {
                next.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            }
            assert_eq!(next.response().expect("it is told").status(), 503);
            assert_eq!(next.rest(), Ok((Vec::new(), End::Closed)));
        }
    }
}

/// Some clients send an empty line after a body (RFC 9112 §2.2). It is nothing, and moves no deadline:
/// who sent one still ends before who came later and sent nothing.
#[test]
fn an_empty_line_gives_no_more_time() {
    let backend = Backend::start("b");
    let site = Site::start(&backend, "[defaults]\nheader_timeout = \"2s\"\n");
    let earlier = both(&site);
    pause(Duration::from_millis(800));
    let later = both(&site);
    pause(Duration::from_millis(600));
    for (mut client, mut other) in earlier.into_iter().zip(later) {
        client.send("\r\n");
        assert_eq!(client.rest(), Ok((Vec::new(), End::Closed)));
        assert_eq!(other.get("a", "/").expect("it has time").status(), 200);
    }
}

/// A backend's connection that stands for whoever authenticated on it (NTLM; Negotiate, RFC 4559)
/// goes with its client and not with the runner that the client is served by.
#[test]
fn a_pinned_connection_does_not_stay_with_a_runner() {
    let backend = Backend::start("b");
    let server = Server::in_process(&format!(
        r#"
        workers = 1
        [defaults]
        backend_keep_alive = "60s"
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "web"
        discover = {{ static = ["{}"] }}
        [[route]]
        service = "web"
        "#,
        backend.address,
    ));
    let mut clients: [Client; 3] = std::array::from_fn(|_| Client::plain(server.address()));
    for (client, scheme) in clients.iter_mut().zip(["NTLM", "Negotiate"]) {
        let head = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate:";
        let challenge = Step::send(format!("{head} {scheme}\r\n\r\n"));
        backend.next(vec![Step::Request, challenge]);
        assert_eq!(client.get("a", "/c").expect("it is told").status(), 401);
    }
    let challenged = backend.take();
    let pinned: Vec<_> = challenged.iter().map(|r| r.connection).collect();
    assert_eq!(pinned, [1, 2], "a client's own is not for others");
    // One after the other: by the same runner. All at once: by any, in another order each time.
    for round in 0..6 {
        let order: [usize; 3] = std::array::from_fn(|n| (n * (1 + round % 2) + round) % 3);
        let at_once = round >= 3;
        for n in order {
            let path = format!("/{n}");
            if at_once {
                clients[n].send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            } else {
                let response = clients[n].get("a", &path).expect("it is served");
                assert_eq!(response.text(), format!("GET {path} "));
            }
        }
        for n in order.into_iter().filter(|_| at_once) {
            let response = clients[n].response().expect("it is served");
            assert_eq!(response.text(), format!("GET /{n} "));
        }
        for request in backend.take() {
            let whole = request.whole.expect("it was answered");
            let expected = ["/0", "/1", "/2"].iter().position(|p| *p == whole.target());
            let expected = expected.expect("it is one of ours") + 1;
            assert_eq!(request.connection, expected, "{}, {round}", whole.target());
        }
    }
    // Nobody else gets one when its client is gone.
    let [first, second, third] = clients;
    drop((first, second));
    wait_until("they end with their clients", || backend.open() == 1);
    drop((third, server));
}
