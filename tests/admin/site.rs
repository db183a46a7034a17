//! A server with a control listener, three backends and a token.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::lock;
use crate::support::server::{Folder, Server};
use crate::support::wire::Message;

/// As a field's value.
pub const TOKEN: &str = "Bearer 0123456789abcdef0123456789abcdef";

pub struct Site {
    pub server: Server,
    pub backends: Vec<Backend>,
    pub folder: Folder,
    pub client: Mutex<Client>,
}

impl Site {
    /// Weights 3 and 1 in the first tier, a standby in the second.
    pub fn start() -> Site {
        Site::with("")
    }

    pub fn with(more: &str) -> Site {
        Site::run(more, |folder, toml| {
            Server::from_file(&folder.write("evenkeel.toml", toml))
        })
    }

    /// The same by the binary, which has a log of its own.
    pub fn process() -> Site {
        Site::run("", |_, toml| Server::binary(toml))
    }

    fn run(more: &str, start: impl FnOnce(&Folder, &str) -> Server) -> Site {
        let backends: Vec<_> = ["one", "two", "standby"].map(Backend::start).into();
        let folder = Folder::new();
        let toml = configuration(&folder, &backends, more);
        let server = start(&folder, &toml);
        Site {
            client: Mutex::new(Client::plain(server.address())),
            server,
            backends,
            folder,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.admin.expect("there is a control listener")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    pub fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// The path of a backend.
    pub fn id(&self, backend: usize) -> String {
        let address = self.backends[backend].address;
        format!("/api/v1/backends/web/{address}")
    }

    /// A client's request, over one connection that is kept.
    pub fn request(&self) {
        let answer = lock(&self.client).get("shop.example", "/");
        answer.expect("it is answered");
    }

    /// A request of the control listener, over a connection of its own.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<&str>,
    ) -> Message {
        ask(self.address(), method, path, fields, body)
    }

    /// What a path says.
    pub fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, &[], None);
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("it is JSON")
    }

    /// A change that is let in: status, and what is said.
    pub fn post(&self, path: &str, body: Option<&str>) -> (u16, Value) {
        let answer = self.ask("POST", path, &[("authorization", TOKEN)], body);
        let value = serde_json::from_slice(&answer.body).expect("it is JSON");
        (answer.status(), value)
    }

    /// Of one backend, as `/backends` has it.
    pub fn backend(&self, backend: usize) -> Value {
        let address = self.backends[backend].address.to_string();
        let backends = self.get("/api/v1/backends");
        let mut backends = backends.as_array().expect("a list").iter();
        let found = backends.find(|backend| backend["address"] == *address);
        found.expect("it is listed").clone()
    }
}

pub fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: Option<&str>,
) -> Message {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    let has = |name: &str| fields.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    if !has("host") {
        head += &format!("Host: {address}\r\n");
    }
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = body {
        if !has("content-type") {
            head += "Content-Type: application/json\r\n";
        }
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut client = Client::plain(address);
    client.send(format!("{head}\r\n{}", body.unwrap_or_default()));
    client.response().expect("it answers")
}

fn configuration(folder: &Folder, backends: &[Backend], more: &str) -> String {
    folder.write("token", TOKEN.strip_prefix("Bearer ").expect("it has one"));
    let folder = Path::display(folder.path());
    let [one, two, standby] = [0, 1, 2].map(|n| backends[n].address);
    format!(
        r#"
        [[listener]]
        name = "front"
        address = "127.0.0.1:0"
        protocol = "http"

        [[service]]
        name = "web"
        discover = {{ static = [
          {{ address = "{one}", weight = 3 }},
          {{ address = "{two}", weight = 1 }},
          {{ address = "{standby}", priority = 10 }},
        ] }}

        [[route]]
        name = "shop"
        service = "web"

        [[route]]
        host = "api.example"
        headers = {{ "X-Api-Key" = "s3cret" }}
        service = "web"

        [admin]
        address = "127.0.0.1:0"
        socket = "{folder}/control.sock"
        token_file = "{folder}/token"
        hosts = ["balancer.internal"]

        [drain]
        wait = "2s"
        {more}
        "#
    )
}
