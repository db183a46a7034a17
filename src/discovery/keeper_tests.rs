//! When files are written, and what becomes of those that cannot be.

use std::time::UNIX_EPOCH;

use super::super::{Discovered, Endpoint};
use super::*;
use crate::config::Lookup;

fn discover(name: &str) -> Discover {
    Discover::Srv {
        name: name.into(),
        lookup: Lookup::to(&[]),
    }
}

fn stored(weight: u16) -> Stored {
    Stored {
        answered: SystemTime::now(),
        endpoints: [Discovered {
            endpoint: Endpoint {
                target: "a.test".into(),
                address: [10, 0, 0, 1].into(),
                port: 80,
            },
            priority: 0,
            weight,
            split: 1,
        }]
        .into(),
        from_loopback: Default::default(),
    }
}

fn write(weight: u16) -> Job {
    let asked = Asked::of(&discover("a")).unwrap();
    let answered = UNIX_EPOCH;
    Job::Write(
        Arc::new(asked),
        Stored {
            answered,
            ..stored(weight)
        },
    )
}

#[test]
fn the_latest_of_each_file_is_written_and_not_too_often() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let [a, b] = ["a", "b"].map(str::to_owned);
    assert_eq!(queue.next(now), Next::Wait);
    queue.put(a.clone(), write(1), now);
    assert_eq!(queue.next(now), Next::Do(a.clone(), write(1)), "at once");
    queue.put(a.clone(), write(2), now);
    queue.done(a.clone(), write(1), true, now);
    let rested = now + PAUSE;
    assert_eq!(queue.next(now), Next::WaitUntil(rested));
    queue.put(b.clone(), write(3), now);
    assert_eq!(
        queue.next(now),
        Next::Do(b.clone(), write(3)),
        "another one"
    );
    queue.done(b.clone(), write(3), true, now);
    queue.put(a.clone(), write(4), now);
    queue.put(a.clone(), Job::Remove, now);
    assert_eq!(queue.next(now), Next::WaitUntil(rested));
    assert_eq!(queue.next(rested), Next::Do(a.clone(), Job::Remove));
    queue.done(a, Job::Remove, true, rested);
    assert_eq!(queue.next(rested), Next::Wait);
    assert_eq!(queue.next(rested + PAUSE), Next::Wait);
    assert!(queue.resting.is_empty(), "what has rested is forgotten");
}

#[test]
fn what_failed_is_tried_again_unless_something_newer_waits() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let a = "a".to_owned();
    queue.put(a.clone(), write(1), now);
    assert_eq!(queue.next(now), Next::Do(a.clone(), write(1)));
    queue.done(a.clone(), write(1), false, now);
    let again = now + RETRY;
    assert_eq!(queue.next(now), Next::WaitUntil(again));
    queue.put(a.clone(), write(2), now + PAUSE);
    assert_eq!(queue.next(now + PAUSE), Next::WaitUntil(again));
    assert_eq!(queue.next(again), Next::Do(a.clone(), write(2)));
    queue.put(a.clone(), write(3), again);
    queue.done(a.clone(), write(2), false, again);
    assert_eq!(queue.next(again + RETRY), Next::Do(a, write(3)));
}

#[test]
fn at_the_end_nothing_waits_and_nothing_is_tried_again() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let [a, b] = ["a", "b"].map(str::to_owned);
    for (file, well) in [(a.clone(), true), (b.clone(), false)] {
        queue.put(file.clone(), write(1), now);
        assert!(matches!(queue.next(now), Next::Do(..)));
        queue.done(file, write(1), well, now);
    }
    queue.put(a.clone(), write(2), now);
    queue.closed = true;
    assert_eq!(queue.next(now), Next::Do(a.clone(), write(2)));
    queue.done(a, write(2), true, now);
    assert!(!queue.lost);
    assert_eq!(queue.next(now), Next::Do(b.clone(), write(1)));
    queue.done(b, write(1), false, now);
    assert!(queue.lost);
    assert_eq!(queue.next(now), Next::End);
}

#[test]
fn each_cause_is_told_once() {
    let mut complaints = Complaints::new(Path::new("/state"));
    let full = || Err(io::Error::from(ErrorKind::StorageFull));
    let read_only = || Err(io::Error::from(ErrorKind::ReadOnlyFilesystem));
    let mut told_after = |file: &str, outcome: io::Result<()>| {
        complaints.take(file, &outcome);
        complaints.told.len()
    };
    assert_eq!(told_after("a", full()), 1);
    assert_eq!(told_after("b", full()), 1);
    assert_eq!(told_after("a", read_only()), 2);
    assert_eq!(told_after("a", Ok(())), 2, "b fails still");
    assert_eq!(told_after("c", Ok(())), 2);
    assert_eq!(told_after("b", Ok(())), 0, "all is well again");
}

/// The time that a disk may take in a test.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn an_answer_outlives_its_keeper() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("state");
    let (web, api) = (discover("web.test"), discover("api.test"));
    let open = || Keeper::open(&folder, [&web, &api, &web].into_iter()).unwrap();
    let asked = |discover| Arc::new(Asked::of(discover).unwrap());
    let weight = |stored: Arc<Stored>| stored.endpoints[0].weight;

    let keeper = open();
    assert_eq!(keeper.found(&web), None);
    for n in 1..=3 {
        keeper.keep(&asked(&web), stored(n));
        keeper.keep(&asked(&api), stored(n));
    }
    assert!(keeper.finish(PATIENCE));

    let keeper = open();
    assert_eq!(keeper.found(&web).map(weight), Some(3));
    assert_eq!(keeper.take(&web).map(weight), Some(3));
    assert_eq!(keeper.take(&web), None, "it is out of date from then on");
    keeper.forget(&asked(&web));
    assert!(keeper.finish(PATIENCE));

    let keeper = open();
    assert_eq!(keeper.found(&web), None);
    assert_eq!(keeper.found(&api).map(weight), Some(3));
}

#[test]
fn a_folder_that_is_none_costs_nothing_but_the_answers() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("file");
    std::fs::write(&folder, "").unwrap();
    let web = discover("web.test");
    let keeper = Keeper::open(&folder, [&web].into_iter()).unwrap();
    assert_eq!(keeper.found(&web), None);
    keeper.keep(&Arc::new(Asked::of(&web).unwrap()), stored(1));
    assert!(!keeper.finish(PATIENCE));
}
