use std::fs;

use tempfile::TempDir;

use super::*;
use crate::tls::dev::{self, DevFiles, Existing};

/// A listener with certificates for these names, each in a folder of that name.
struct Bench {
    folder: TempDir,
    listener: Listener,
    counts: Counts,
}

fn bench(names: &[&str]) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = names.iter().map(|name| write(&folder, name)).collect();
    let watched = Watched {
        listener: "front".into(),
        published: Published::new(CertificateSet::load(&files).unwrap()),
        files,
        ordered: Vec::new(),
    };
    let listener = Listener::new(watched, &[]);
    Bench {
        folder,
        listener,
        counts: Counts::default(),
    }
}

fn write(folder: &TempDir, name: &str) -> CertificateFiles {
    let made = dev::self_signed(&[name.to_owned()]).unwrap();
    let files = DevFiles::within(&folder.path().join(name));
    files.write(&made, Existing::Replace).unwrap();
    CertificateFiles {
        cert: files.cert,
        key: files.key,
    }
}

impl Bench {
    /// Looks, and says how many were replaced and refused by that.
    fn look(&mut self) -> (u64, u64) {
        let read = |counts: &Counts| {
            let [a, b] = [&counts.replaced, &counts.refused];
            (a.load(Ordering::Relaxed), b.load(Ordering::Relaxed))
        };
        let before = read(&self.counts);
        self.listener.look(SystemTime::now(), &self.counts);
        let after = read(&self.counts);
        (after.0 - before.0, after.1 - before.1)
    }

    /// The configuration is read again.
    fn reload(&mut self) {
        let listener = &self.listener;
        let files = listener.pairs.iter().map(|pair| pair.files.clone());
        let watched = Watched {
            listener: "front".into(),
            published: Arc::clone(&listener.published),
            files: files.collect(),
            ordered: Vec::new(),
        };
        self.listener = Listener::new(watched, std::slice::from_ref(&self.listener));
    }

    /// The certificates that are published.
    fn leaves(&self) -> Vec<Vec<u8>> {
        let set = self.listener.published.load();
        let leaves = set.certificates().iter().map(|c| c.leaf().to_vec());
        leaves.collect()
    }
}

#[test]
fn each_pair_is_taken_up_for_itself() {
    let mut bench = bench(&["a.example", "b.example"]);
    let first = bench.leaves();
    assert_eq!(bench.look(), (0, 0), "they are those that are served");
    write(&bench.folder, "a.example");
    fs::write(bench.folder.path().join("b.example/dev.pem"), "gone").unwrap();
    assert_eq!(bench.look(), (1, 1));
    let second = bench.leaves();
    assert_ne!(second[0], first[0]);
    assert_eq!(second[1], first[1]);
    let unusable: Vec<_> = bench.listener.pairs.iter().map(|p| p.is_unusable).collect();
    assert_eq!(unusable, [false, true]);
    assert_eq!(bench.look(), (0, 0), "what is known is not said again");
    assert_eq!(bench.leaves(), second);
    write(&bench.folder, "b.example");
    assert_eq!(bench.look(), (1, 0));
    assert_ne!(bench.leaves()[1], first[1]);
}

#[test]
fn what_a_reload_takes_up_is_told_as_well_and_what_was_said_is_not_said_again() {
    let mut bench = bench(&["a.example", "b.example"]);
    assert_eq!(bench.look(), (0, 0));
    fs::write(bench.folder.path().join("b.example/dev.pem"), "gone").unwrap();
    assert_eq!(bench.look(), (0, 1));
    let b = bench.listener.published.load().certificates()[1].clone();
    let a = load(&write(&bench.folder, "a.example")).unwrap();
    let set = CertificateSet::new(vec![a, b]).unwrap();
    bench.listener.published.publish(set);
    bench.reload();
    assert_eq!(bench.look(), (1, 0));
    bench.reload();
    assert_eq!(bench.look(), (0, 0));
    assert!(bench.listener.pairs[1].is_unusable);
}

#[test]
fn what_comes_back_as_it_was_replaces_nothing() {
    let mut bench = bench(&["a.example"]);
    let key = bench.folder.path().join("a.example/dev.key");
    let text = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert_eq!(bench.look(), (0, 1));
    fs::write(&key, text).unwrap();
    assert_eq!(bench.look(), (0, 0));
    assert!(!bench.listener.pairs[0].is_unusable);
}

#[test]
fn how_near_the_end_is_is_remembered_for_each_certificate() {
    let mut bench = bench(&["a.example"]);
    let set = bench.listener.published.load();
    let validity = set.certificates()[0].validity();
    let day = Duration::from_secs(86_400);
    let mut said = Vec::new();
    for left in [100, 10, 10, 1] {
        let now = validity.not_after - left * day;
        bench.listener.look(now, &bench.counts);
        said.push(bench.listener.pairs[0].said);
    }
    let end = validity.not_after;
    let expected = [
        Nearness::Far,
        Nearness::Near,
        Nearness::Near,
        Nearness::Close,
    ];
    assert_eq!(said, expected.map(|nearness| Some((end, nearness))));
}

#[test]
fn files_that_judge_differ_until_they_are_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crl.pem");
    fs::write(&file, "one").unwrap();
    let of = |file: &PathBuf| Contents::of([file.as_path()]);
    let mut judging = Judging {
        loaded: of(&file),
        files: vec![file.clone()],
    };
    assert!(!judging.differs());
    fs::write(&file, "two").unwrap();
    assert!(judging.differs());
    assert!(judging.differs(), "nobody has loaded it");
    judging.loaded = of(&file);
    assert!(!judging.differs());
}
