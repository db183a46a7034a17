use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::config::CertificateFiles;
use crate::tls::dev::{self, DevFiles, Existing};

/// One front end, and a client that trusts whatever it was given.
struct Bench {
    front: FrontEnd,
    roots: RootCertStore,
    _folder: TempDir,
}

fn bench(min_version: TlsVersion, names: &[&str]) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let mut roots = RootCertStore::empty();
    let certificates = names
        .iter()
        .map(|name| {
            let made = dev::self_signed(&[(*name).to_owned()]).unwrap();
            roots
                .add(CertificateDer::from_pem_slice(made.ca.as_bytes()).unwrap())
                .unwrap();
            let files = DevFiles::within(&folder.path().join(name));
            files.write(&made, Existing::Keep).unwrap();
            CertificateFiles {
                cert: files.cert,
                key: files.key,
            }
        })
        .collect();
    let front = TlsFrontEnd {
        certificates,
        min_version,
        client_certificates: None,
        acme: Default::default(),
    };
    let front = front_end(
        &front,
        false,
        &Published::new(Challenges::default()),
        Held::Nothing,
    );
    Bench {
        front: front.unwrap(),
        roots,
        _folder: folder,
    }
}

impl Bench {
    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> TlsConnector {
        let mut client =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(self.roots.clone())
                .with_no_client_auth();
        client.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(client))
    }

    async fn shake(&self, client: &TlsConnector, name: &str) -> Result<Shaken, String> {
        let (near, far) = tokio::io::duplex(65_536);
        let acceptor = TlsAcceptor::from(Arc::clone(&self.front.config));
        let server = async {
            let mut tls = acceptor.accept(far).await?;
            tls.write_all(b"x").await?; // session tickets go out with it
            tls.shutdown().await
        };
        let connecting = async {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let mut tls = client.connect(name, near).await?;
            tls.read_to_end(&mut Vec::new()).await?;
            let (_, session) = tls.get_ref();
            Ok::<_, std::io::Error>(Shaken {
                version: session.protocol_version().unwrap(),
                alpn: session
                    .alpn_protocol()
                    .map(|p| String::from_utf8_lossy(p).into()),
                kind: session.handshake_kind().unwrap(),
            })
        };
        let (served, connected) = tokio::join!(server, connecting);
        let shaken = connected.map_err(|error| error.to_string())?;
        served.map_err(|error| error.to_string())?;
        Ok(shaken)
    }
}

#[derive(Debug)]
struct Shaken {
    version: ProtocolVersion,
    alpn: Option<String>,
    kind: HandshakeKind,
}

#[tokio::test]
async fn versions_and_alpn() {
    use ProtocolVersion::{TLSv1_2, TLSv1_3};
    let both = bench(TlsVersion::Tls12, &["a.example"]);
    let newest = bench(TlsVersion::Tls13, &["a.example"]);
    let rows: [(&str, &Bench, &[_], &[&str], Result<_, _>); 6] = [
        (
            "1.3 when both can",
            &both,
            &[&TLS12, &TLS13],
            &["http/1.1"],
            Ok((TLSv1_3, true)),
        ),
        (
            "1.2 is spoken",
            &both,
            &[&TLS12],
            &["h2", "http/1.1"],
            Ok((TLSv1_2, true)),
        ),
        (
            "ALPN is not asked of anybody",
            &both,
            &[&TLS13],
            &[],
            Ok((TLSv1_3, false)),
        ),
        (
            "h2 alone is refused (RFC 7301 §3.2)",
            &both,
            &[&TLS13],
            &["h2"],
            Err("NoApplicationProtocol"),
        ),
        (
            "1.2 refused when the least is 1.3",
            &newest,
            &[&TLS12],
            &[],
            Err("ProtocolVersion"),
        ),
        (
            "1.3 when the least is 1.3",
            &newest,
            &[&TLS13],
            &[],
            Ok((TLSv1_3, false)),
        ),
    ];
    for (rule, bench, versions, alpn, expected) in rows {
        let shaken = bench
            .shake(&bench.client(versions, alpn), "a.example")
            .await;
        match (shaken, expected) {
            (Ok(shaken), Ok((version, alpn))) => {
                assert_eq!(shaken.version, version, "{rule}");
                assert_eq!(shaken.alpn.as_deref(), alpn.then_some("http/1.1"), "{rule}");
            }
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{rule}: {error}"),
            (shaken, _) => panic!("{rule}: {shaken:?}"),
        }
    }
}

/// RFC 7301 §6 has a name for HTTP/1.0, and `curl --http1.0` offers nothing else.
#[tokio::test]
async fn a_client_of_http_1_0_finds_its_protocol() {
    let bench = bench(TlsVersion::Tls12, &["a.example"]);
    let client = bench.client(&[&TLS13], &["http/1.0"]);
    let shaken = bench.shake(&client, "a.example").await.unwrap();
    assert_eq!(shaken.alpn.as_deref(), Some("http/1.0"));
}

#[tokio::test]
async fn the_second_session_resumes_in_both_versions() {
    let bench = bench(TlsVersion::Tls12, &["a.example"]);
    for version in [&TLS12, &TLS13] {
        let client = bench.client(&[version], &[]);
        let first = bench.shake(&client, "a.example").await.unwrap();
        let second = bench.shake(&client, "a.example").await.unwrap();
        // The first one may also ask for another key share; it is no resumption either way.
        assert_ne!(first.kind, HandshakeKind::Resumed, "{version:?}");
        assert_eq!(second.kind, HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn sni_chooses_and_a_published_set_serves_the_next_handshake() {
    let bench = bench(TlsVersion::Tls12, &["a.example", "b.example"]);
    let client = || bench.client(&[&TLS13], &[]);
    bench.shake(&client(), "a.example").await.unwrap();
    bench.shake(&client(), "b.example").await.unwrap();
    let error = bench.shake(&client(), "c.example").await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");

    let set = bench.front.certificates.load();
    let only_b = set.certificates()[1].files().clone();
    bench
        .front
        .certificates
        .publish(CertificateSet::load(&[only_b]).unwrap());
    bench.shake(&client(), "b.example").await.unwrap();
    let error = bench.shake(&client(), "a.example").await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

#[test]
fn what_is_held_goes_on_where_files_do_not_load() {
    let folder = tempfile::tempdir().unwrap();
    let made = dev::self_signed(&["a.example".to_owned()]).unwrap();
    let files = DevFiles::within(folder.path());
    files.write(&made, Existing::Keep).unwrap();
    let both = format!("{}\n{}", made.cert, made.key);
    let file = folder.path().join("ordered.pem");
    std::fs::write(&file, both).unwrap();
    let pair = CertificateFiles {
        cert: files.cert,
        key: files.key,
    };
    let front = |certificates, acme: &[AcmeCertificate]| TlsFrontEnd {
        certificates,
        min_version: TlsVersion::Tls12,
        client_certificates: None,
        acme: acme.iter().cloned().collect(),
    };
    let configured = front(vec![pair.clone()], &[]);
    let ordered = AcmeCertificate {
        name: "a.example".into(),
        file: file.clone(),
    };
    let ordered = front(Vec::new(), &[ordered]);
    let [by_pair, by_order] =
        [&configured, &ordered].map(|front| certificates(front, Held::Nothing).unwrap());
    std::fs::remove_file(&pair.key).unwrap();
    std::fs::remove_file(&file).unwrap();

    assert!(certificates(&configured, Held::Nothing).is_err());
    assert!(certificates(&configured, Held::Ordered(&by_pair)).is_err());
    let set = certificates(&configured, Held::All(&by_pair)).unwrap();
    assert!(set.certificates()[0].is_same(&by_pair.certificates()[0]));

    let set = certificates(&ordered, Held::Nothing).unwrap();
    assert!(set.certificates()[0].is_stand_in());
    for held in [Held::Ordered(&by_order), Held::All(&by_order)] {
        let set = certificates(&ordered, held).unwrap();
        assert_eq!(set.certificates().len(), 1, "nothing stands in");
        assert!(set.certificates()[0].is_same(&by_order.certificates()[0]));
    }
}
