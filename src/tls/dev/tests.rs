use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::CertificateFiles;
use crate::tls::certificates;

fn names() -> Vec<String> {
    DEFAULT_NAMES.map(str::to_owned).to_vec()
}

#[test]
fn it_can_be_served_and_is_valid_now() {
    let folder = tempfile::tempdir().unwrap();
    let files = DevFiles::within(&folder.path().join("new/folder"));
    files
        .write(&self_signed(&names()).unwrap(), Existing::Keep)
        .unwrap();
    let loaded = certificates::load(&CertificateFiles {
        cert: files.cert,
        key: files.key,
    })
    .unwrap();
    assert_eq!(loaded.names(), ["localhost".into()]);
    assert_eq!(loaded.warnings(SystemTime::now()), []);
}

#[test]
fn nothing_is_overwritten_unless_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let files = DevFiles::within(folder.path());
    let made = self_signed(&names()).unwrap();
    for in_the_way in [&files.ca, &files.cert, &files.key] {
        fs::write(in_the_way, "mine").unwrap();
        let error = files.write(&made, Existing::Keep).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains(&*in_the_way.to_string_lossy()));
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing else was written"
        );
        assert_eq!(fs::read_to_string(in_the_way).unwrap(), "mine");
        fs::remove_file(in_the_way).unwrap();
    }
    fs::write(&files.key, "mine, and readable by all").unwrap();
    files.write(&made, Existing::Replace).unwrap();
    assert_eq!(fs::read_to_string(&files.key).unwrap(), made.key);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    for (path, mode) in [
        (&files.key, 0o600),
        (&files.cert, 0o644),
        (&files.ca, 0o644),
    ] {
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o077,
            mode & 0o077
        );
    }
}
