//! NGINX, which is OpenSSL, as the backend.

use crate::nginx::nginx;
use crate::support::backend::nobody;
use crate::support::client::Client;
use crate::support::require;
use crate::support::server::Folder;
use crate::tls_backend::{Authority, Valid};
use crate::{front, trusting};

#[test]
fn nginx_is_spoken_to() {
    if !require("nginx") {
        return;
    }
    let folder = Folder::new();
    let authority = Authority::new("ours");
    let issued = authority.issue(&["nginx.test"], Valid::Now);
    let own = authority.issue(&["balancer.test"], Valid::Now);
    let cert = folder.write("nginx.pem", &issued.certificate);
    let key = folder.write("nginx.key", &issued.key);
    let ca = authority.file(&folder, "ca.pem");
    for version in ["TLSv1.2", "TLSv1.3"] {
        let address = nobody();
        let _nginx = nginx(
            &folder,
            address,
            &format!(
                "listen {address} ssl;\nssl_protocols {version};\nssl_certificate {};\n\
                 ssl_certificate_key {};\nssl_client_certificate {};\nssl_verify_client on;\n\
                 ssl_session_cache builtin:100;\nkeepalive_requests 2;\nlocation / {{\n\
                 return 200 \"$ssl_server_name $ssl_protocol $ssl_client_s_dn \
                 $ssl_session_reused $connection_requests\";\n}}",
                cert.display(),
                key.display(),
                ca.display()
            ),
        );
        let more = format!(
            ", name = \"nginx.test\", certificate = {}",
            own.entry(&folder, "own")
        );
        let server = front(&[address], &trusting(&authority, &folder, &more));
        let mut client = Client::plain(server.address());
        let mut said = Vec::new();
        for _ in 0..5 {
            said.push(client.get("shop.example", "/").expect("an answer").text());
        }
        let expected: Vec<String> = [". 1", ". 2", "r 1", "r 2", "r 1"]
            .iter()
            .map(|end| format!("nginx.test {version} CN=balancer.test {end}"))
            .collect();
        assert_eq!(said, expected);
    }
}
