//! Clients that other people wrote load a page through Evenkeel. Those that are not on a machine are
//! skipped aloud, whatever is promised of it: nobody installs a Java for this.

mod support;

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};

use support::backend::{Backend, Step};
use support::python_with;
use support::server::{Certificate, Folder, Server, output};

/// A page that says by which protocol it came.
const PAGE: &str = "<!doctype html><title>t</title><p id=p>nothing</p><script>\
    document.getElementById('p').textContent = 'came by ' + \
    performance.getEntriesByType('navigation')[0].nextHopProtocol</script>";

struct Site {
    server: Server,
    certificate: Certificate,
    _backend: Backend,
    folder: Folder,
}

impl Site {
    fn start() -> Site {
        let backend = Backend::start("b");
        backend.usually(vec![
            Step::Request,
            Step::send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{PAGE}",
                PAGE.len()
            )),
        ]);
        let folder = Folder::new();
        let certificate = folder.certificate("default", &["localhost"]);
        let server = Server::in_process(&format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
             certificates = [{}]\n[[service]]\nname = \"web\"\n\
             discover = {{ static = [\"{}\"] }}\n[[route]]\nservice = \"web\"\n",
            certificate.entry(),
            backend.address
        ));
        Site {
            server,
            certificate,
            _backend: backend,
            folder,
        }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/", self.server.address().port())
    }
}

/// Is it there? Says aloud if not.
fn have(tool: &str) -> bool {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()));
    if !there {
        // Past the capture of the test harness: a skipped test must be seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {tool} is not installed");
    }
    there
}

fn said(command: &mut Command) -> String {
    let output = output(command);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn curl() {
    if !have("curl") {
        return;
    }
    let site = Site::start();
    for (asked, got) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let said = said(
            Command::new("curl")
                .args(["--silent", "--show-error", asked, "--cacert"])
                .arg(&site.certificate.ca)
                .args(["--write-out", "%{http_version}", &site.url()]),
        );
        assert_eq!(said, format!("{PAGE}{got}"));
    }
}

#[test]
fn httpx() {
    let Some(python) = python_with(&["httpx", "h2"]) else {
        return;
    };
    let site = Site::start();
    let script = "import httpx, ssl, sys\n\
        context = ssl.create_default_context(cafile=sys.argv[2])\n\
        with httpx.Client(http2=True, verify=context) as client:\n\
        \x20   for n in range(50):\n\
        \x20       r = client.post(sys.argv[1] + str(n), content=b'x' * n * 1000)\n\
        \x20       assert r.status_code == 200 and 'nothing' in r.text, r\n\
        \x20   print(r.http_version)\n";
    let said = said(
        Command::new(python)
            .args(["-c", script, &site.url()])
            .arg(&site.certificate.ca),
    );
    assert_eq!(said, "HTTP/2\n");
}

#[test]
fn java() {
    if !have("java") {
        return;
    }
    const SOURCE: &str = r#"
import java.io.FileInputStream;
import java.net.URI;
import java.net.http.*;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.*;

public class Load {
    public static void main(String[] args) throws Exception {
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (var file = new FileInputStream(args[1])) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        var tls = SSLContext.getInstance("TLS");
        tls.init(null, trust.getTrustManagers(), null);
        var client = HttpClient.newBuilder().sslContext(tls).version(HttpClient.Version.HTTP_2).build();
        var request = HttpRequest.newBuilder(URI.create(args[0])).build();
        var response = client.send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(response.version() + " " + response.statusCode() + " " + response.body().contains("nothing"));
    }
}
"#;
    let site = Site::start();
    let source = site.folder.write("Load.java", SOURCE);
    let said = said(
        Command::new("java")
            .arg(source)
            .arg(site.url())
            .arg(&site.certificate.ca),
    );
    assert_eq!(said, "HTTP_2 200 true\n");
}

/// Its fetch speaks HTTP/1.1; its client of HTTP/2 is another one.
#[test]
fn node() {
    if !have("node") {
        return;
    }
    const SCRIPT: &str = "
const http2 = require('http2'), fs = require('fs');
const [url, ca] = process.argv.slice(1);
(async () => {
  const page = await (await fetch(url)).text();
  console.log('fetch', page.includes('nothing'));
  const session = http2.connect(url, { ca: fs.readFileSync(ca) });
  const stream = session.request({ ':path': '/' });
  let body = '';
  stream.on('response', head => console.log('http2', head[':status'], session.alpnProtocol));
  stream.on('data', data => body += data);
  stream.on('end', () => { console.log(body.includes('nothing')); session.close(); });
})();
";
    let site = Site::start();
    let said = said(
        Command::new("node")
            .args(["-e", SCRIPT, &site.url()])
            .arg(&site.certificate.ca)
            .env("NODE_EXTRA_CA_CERTS", &site.certificate.ca),
    );
    assert_eq!(said, "fetch true\nhttp2 200 h2\ntrue\n");
}

#[test]
fn chromium() {
    if !have("chromium") {
        return;
    }
    let site = Site::start();
    let profile = site.folder.path().join("profile");
    let said = said(
        Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
            .args(["--disable-dev-shm-usage", "--ignore-certificate-errors"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(site.url()),
    );
    assert!(said.contains("came by h2"), "{said}");
}

/// The library of that name, as client and as server: messages of all sizes, both ways, and a close
/// that both sides see.
#[test]
fn websockets() {
    let Some(python) = python_with(&["websockets"]) else {
        return;
    };
    let mut server = Command::new(&python);
    let mut backend = server
        .args(["tests/scripts/websockets_echo.py", "serve"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python is there");
    let mut port = String::new();
    let out = backend.stdout.take().expect("it is piped");
    let mut out = BufReader::new(out);
    out.read_line(&mut port).expect("it says its port");
    let folder = Folder::new();
    let certificate = folder.certificate("default", &["localhost"]);
    let site = Server::in_process(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n\
         certificates = [{}]\n[[service]]\nname = \"web\"\n\
         discover = {{ static = [\"127.0.0.1:{}\"] }}\n[[route]]\nservice = \"web\"\n",
        certificate.entry(),
        port.trim()
    ));
    let said = said(
        Command::new(&python)
            .args(["tests/scripts/websockets_echo.py", "call"])
            .arg(site.address().port().to_string())
            .arg(&certificate.ca),
    );
    drop(backend.stdin.take());
    backend.wait().expect("it was started");
    assert_eq!(said, "fine\n");
}
