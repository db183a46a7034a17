//! Message framing through the running server.

mod support;

use support::backend::Backend;
use support::client::Client;
use support::server::Server;

#[test]
fn a_request_reaches_the_backend_and_its_answer_the_client() {
    let backend = Backend::start("b");
    let server = Server::in_process(&format!(
        r#"
        workers = 1
        [[listener]]
        address = "127.0.0.1:0"
        protocol = "http"
        [[service]]
        name = "b"
        discover = {{ static = ["{}"] }}
        [[route]]
        service = "b"
        "#,
        backend.address
    ));
    let mut client = Client::plain(server.address());
    let response = client.get("a", "/x").expect("it is answered");
    assert_eq!((response.status(), &*response.text()), (200, "GET /x "));
    backend.await_requests(1);
    let received = backend.take();
    assert!(
        received[0]
            .bytes
            .starts_with(b"GET /x HTTP/1.1\r\nHost: a\r\n")
    );
}
