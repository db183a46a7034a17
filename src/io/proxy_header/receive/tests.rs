use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::io::deadline::Deadlines;

const HEADER: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
const REST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const LONG: Duration = Duration::from_secs(20);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, (far, _)) = (near.unwrap(), far.unwrap());
    near.set_nodelay(true).unwrap();
    (near, far)
}

/// A block of version 2 with so many bytes of TLVs that nobody knows.
fn block(tlv: u16) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    bytes.extend((12 + 3 + tlv).to_be_bytes());
    bytes.extend([192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb, 0xea]);
    bytes.extend(tlv.to_be_bytes());
    bytes.resize(bytes.len() + usize::from(tlv), b'x');
    bytes
}

#[tokio::test]
async fn what_follows_in_the_same_packet_stays() {
    for header in [HEADER.to_vec(), block(0), block(1_000), block(4_081)] {
        let (mut near, mut far) = pair().await;
        near.write_all(&[&header[..], REST].concat()).await.unwrap();
        let table = Deadlines::new();
        let source = receive(&far, &table.timer(), LONG).await.unwrap().source;
        assert_eq!(source, Some(([192, 0, 2, 7], 4711).into()));
        drop(near);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, REST);
    }
}

#[tokio::test]
async fn split_anywhere() {
    for whole in [HEADER.to_vec(), block(5)] {
        for end in 1..whole.len() {
            let (mut near, mut far) = pair().await;
            let table = Deadlines::new();
            let timer = table.timer();
            let sending = async {
                near.write_all(&whole[..end]).await.unwrap();
                // Until the first part was taken: nothing waits with the kernel any more.
                tokio::task::yield_now().await;
                near.write_all(&whole[end..]).await.unwrap();
                near.write_all(REST).await.unwrap();
                near.shutdown().await.unwrap();
            };
            let (received, ()) = tokio::join!(receive(&far, &timer, LONG), sending);
            let source = received.unwrap().source;
            assert_eq!(source, Some(([192, 0, 2, 7], 4711).into()), "{end}");
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, REST, "{end}");
        }
    }
}

#[tokio::test]
async fn ends() {
    for (rule, sent, expected) in [
        ("nothing", &b""[..], "closed without a PROXY header"),
        ("a part", &HEADER[..9], "closed within a PROXY header"),
        ("something else", REST, "no PROXY header"),
    ] {
        let (mut near, far) = pair().await;
        near.write_all(sent).await.unwrap();
        near.shutdown().await.unwrap();
        let table = Deadlines::new();
        let no = receive(&far, &table.timer(), LONG).await.unwrap_err();
        assert_eq!(no.to_string(), expected, "{rule}");
    }
}

#[tokio::test]
async fn a_byte_now_and_then_moves_no_deadline() {
    let (mut near, far) = pair().await;
    let table = Deadlines::new();
    let timer = table.timer();
    let trickle = async {
        for byte in HEADER.iter().cycle() {
            // It is refused some time.
            let _ = near.write_all(&[*byte]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        received = receive(&far, &timer, Duration::from_millis(300)) => {
            assert!(matches!(received, Err(NoHeader::Late)), "{received:?}");
        }
        () = table.run() => unreachable!("the sweep has no end"),
        () = trickle => unreachable!("the header has no end"),
    }
}
