//! What a whole server cannot be brought to: sockets with hardly any room.

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;
use crate::config::from_toml_str;
use crate::http::head::RequestHead;
use crate::http::headers::Nominated;
use crate::io::buffer::Inbox;
use crate::io::duplex::Duplex;
use crate::io::pace::Patience;
use crate::io::transport::Transport;
use crate::proxy::job::OutOfPatience;
use crate::proxy::peer::Peer;
use crate::proxy::worker::fixture::Workers;
use crate::upstream::backend::{Backend, BackendId};

const SERVICE: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
    [[service]]\nname = \"web\"\ndiscover = { static = [\"127.0.0.1:1\"] }\n[[route]]\nservice = \"web\"\n";

/// Our end and the peer's. `narrow`: either has room for hardly anything on its way there.
async fn pair(narrow: bool) -> (Duplex, TcpStream) {
    let listener = TcpSocket::new_v4().expect("a socket");
    if narrow {
        listener
            .set_recv_buffer_size(1)
            .expect("the least there is");
    }
    let anywhere = "127.0.0.1:0".parse().expect("an address");
    listener.bind(anywhere).expect("loopback has ports");
    let listener: TcpListener = listener.listen(1).expect("it is bound");
    let address = listener.local_addr().expect("it is bound");
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let ours = ours.expect("somebody listens");
    if narrow {
        let least = SockRef::from(&ours).set_send_buffer_size(1);
        least.expect("the least there is");
    }
    let theirs = theirs.expect("somebody connects").0;
    (Duplex::new(Transport::Plain(ours)), theirs)
}

/// A request of which the backend has taken a part has been sent, whatever ends the attempt: it may
/// have been acted on.
#[tokio::test]
async fn a_write_that_is_cut_short_has_sent_something() {
    let (worker, _told) = Workers::new(1).only();
    let config = from_toml_str(SERVICE).expect("it is right");
    let limits = &config.services[0].upstream;
    let (client, mut theirs) = pair(false).await;
    let body = vec![b'x'; 40_000];
    theirs.write_all(&body).await.expect("it is open");
    let mut inbox = Inbox::new(Rc::clone(&worker.buffers));
    while inbox.filled().len() < body.len() {
        client.fill(&mut inbox).await.expect("it is open");
    }
    let (upstream, _silent) = pair(true).await;
    let upstream = Upstream::H1(upstream);
    let head = RequestHead {
        method: crate::http::head::Method::Post,
        ..RequestHead::default()
    };
    let nominated = Nominated::default();
    let peer = Peer {
        address: ([127, 0, 0, 1], 1).into(),
        listener: 0,
        tls: None,
        certificate: None,
        arrival: None,
        coding: None,
        is_unknown: false,
    };
    let job = Job {
        framing: BodyFraming::Length(body.len() as u64),
        patience: Duration::from_millis(200),
        out_of_patience: OutOfPatience::TryTimeout,
        ..Job::new(&peer, &head, &nominated, limits)
    };
    let endpoint = crate::discovery::Endpoint {
        target: "a".into(),
        address: [127, 0, 0, 1].into(),
        port: 1,
    };
    let backend = Backend::new(BackendId::unused(), "web".into(), endpoint);
    let timer = worker.deadlines.timer();
    let watch = worker.deadlines.timer();
    let withdrawal = Withdrawal::watch(&backend, Duration::from_secs(60), &watch);
    let pace = || {
        let patience = Patience {
            stall: Duration::from_secs(30),
            min_rate: 0,
        };
        Pace::new(worker.deadlines.timer(), patience)
    };
    let (mut reading, mut writing, mut pushing) = (pace(), pace(), pace());
    let client = Client {
        over: Downstream::H1 {
            io: &client,
            inbox: &mut inbox,
        },
        reading: &mut reading,
        writing: &mut writing,
    };
    let (mut response, state) = (ResponseHead::default(), State::new());
    let deadlines = (&timer, &mut pushing, &withdrawal);
    let outcome = tokio::select! {
        outcome = attempt(&worker, &job, client, &upstream, deadlines, &mut response, &state) => outcome,
        () = worker.deadlines.run() => unreachable!("the sweep has no end"),
    };
    let failure = outcome.expect_err("nobody answers");
    assert!(matches!(failure.cause, Cause::TryTimeout), "{failure:?}");
    assert_eq!(failure.progress, Progress::Sent);
    assert!(
        !state.consumed.get(),
        "it could be replayed, and must not be"
    );
}
