//! Any bytes as what a TLS client begins with: never a panic; each part of it is waited for or refused
//! like the whole; what follows changes nothing; rustls reads the same name and the same protocols
//! where it takes the hello at all.
#![no_main]

use evenkeel::tls::client_hello::{ClientHello, LONGEST_RECORDS, client_hello};
use libfuzzer_sys::fuzz_target;
use rustls::server::Acceptor;

fuzz_target!(|input: &[u8]| {
    let whole = client_hello(input);
    for split in (0..input.len()).step_by(1 + input.len() / 64) {
        let part = client_hello(&input[..split]);
        assert!(part == Ok(None) || part == whole, "{split}: {part:?}, {whole:?}");
    }
    if input.len() < LONGEST_RECORDS && whole != Ok(None) {
        let more = [input, &[0x16; 64]].concat();
        assert_eq!(client_hello(&more), whole);
    }
    assert!(input.len() < LONGEST_RECORDS || whole != Ok(None), "it waits for ever");
    if let Ok(Some(hello)) = &whole {
        agrees_with_rustls(input, hello);
    }
});

fn agrees_with_rustls(mut input: &[u8], hello: &ClientHello) {
    let mut acceptor = Acceptor::default();
    loop {
        if !matches!(acceptor.read_tls(&mut input), Ok(1..)) {
            return;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let theirs = accepted.client_hello();
                // It leaves out what is no name, an address, and leaves a final dot.
                if let Some(name) = theirs.server_name() {
                    let name = name.strip_suffix('.').unwrap_or(name);
                    let ours = hello.server_name.as_deref().unwrap_or_default();
                    assert!(name.eq_ignore_ascii_case(ours), "{name}, {ours}");
                }
                let names = theirs.alpn().into_iter().flatten();
                assert!(names.eq(hello.protocols()));
                return;
            }
            Ok(None) => {}
            // It looks at more than we do.
            Err(_) => return,
        }
    }
}
