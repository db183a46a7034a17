//! What the control thread asks of the workers: what their schedules would do next.
//!
//! A worker answers one question at a tick, with a copy of its schedule of one service
//! (`balance::explain`), on which whoever asked finds out the rest: a worker is held up for that copy,
//! 0.1 ms with a hundred backends. Asked through [`Questions::ask`]; each worker looks for its own by
//! [`Questions::take`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::balance::explain::Forecast;

/// The way to each worker.
#[derive(Debug)]
pub struct Questions {
    desks: Box<[Desk]>,
}

#[derive(Debug, Default)]
struct Desk {
    /// How many wait: a worker that is asked nothing takes no lock. Written with the lock held.
    /// Relaxed: one that is seen late is answered a tick later.
    waiting: AtomicUsize,
    /// Held to put one in and to take one out.
    queue: Mutex<VecDeque<Question>>,
}

/// What a worker is asked.
#[derive(Debug)]
pub struct Question {
    /// Of which generation of the configuration: a worker knows a service by its place in it.
    pub generation: u64,
    /// Index of the service.
    pub service: usize,
    answer: oneshot::Sender<Forecast>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It does not turn, or has other questions to answer.
    #[error("it has not answered within {} s", PATIENCE.as_secs())]
    Late,
    /// It has ended, or serves another configuration by now.
    #[error("it serves this configuration no more")]
    Gone,
}

impl Questions {
    /// Nobody is asked anything yet.
    pub fn new(workers: usize) -> Arc<Questions> {
        let desks = (0..workers).map(|_| Desk::default()).collect();
        Arc::new(Questions { desks })
    }

    /// Asks every worker for its schedule of a service of that generation; in the order of the workers. Takes no longer
    /// than [`PATIENCE`].
    pub async fn ask(&self, generation: u64, service: usize) -> Vec<Result<Forecast, Unanswered>> {
        let ask = |desk: &Desk| {
            let (answer, answered) = oneshot::channel();
            let question = Question {
                generation,
                service,
                answer,
            };
            let is_put = desk.put(question);
            async move {
                match timeout(PATIENCE, answered).await {
                    _ if !is_put => Err(Unanswered::Late),
                    Err(_) => Err(Unanswered::Late),
                    Ok(Err(_)) => Err(Unanswered::Gone),
                    Ok(Ok(forecast)) => Ok(forecast),
                }
            }
        };
        join_all(self.desks.iter().map(ask)).await
    }

    /// What that worker is asked next.
    pub fn take(&self, worker: usize) -> Option<Question> {
        let desk = &self.desks[worker];
        match desk.waiting.load(Ordering::Relaxed) {
            0 => None,
            _ => desk.take(),
        }
    }
}

impl Desk {
    /// False: too many wait.
    fn put(&self, question: Question) -> bool {
        let mut queue = self.queue();
        // Who has waited too long has left.
        queue.retain(|question| !question.answer.is_closed());
        let has_room = queue.len() < WAITING;
        if has_room {
            queue.push_back(question);
        }
        self.waiting.store(queue.len(), Ordering::Relaxed);
        has_room
    }

    fn take(&self) -> Option<Question> {
        let mut queue = self.queue();
        queue.retain(|question| !question.answer.is_closed());
        let question = queue.pop_front();
        self.waiting.store(queue.len(), Ordering::Relaxed);
        question
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Question>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Question {
    /// Answers it.
    pub fn answer(self, forecast: Forecast) {
        // Nobody may wait for it any more.
        let _ = self.answer.send(forecast);
    }
}

/// So long a worker is waited for: it looks for questions ten times a second.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Questions that may wait at one worker: as many as it answers within [`PATIENCE`].
const WAITING: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::picker::Picker;
    use crate::balance::service::Service;
    use crate::config::Balancing;

    fn forecast() -> Forecast {
        let service = Service::new("web".into());
        Picker::new(service.snapshot().reader(), &Balancing::default(), 1).forecast()
    }

    #[tokio::test(start_paused = true)]
    async fn who_answers_is_heard_and_who_does_not_is_waited_for_no_longer_than_that() {
        let questions = Questions::new(3);
        let asked = questions.ask(7, 0);
        let answered = async {
            tokio::task::yield_now().await;
            let question = questions.take(0).expect("it was asked");
            assert_eq!(question.generation, 7);
            question.answer(forecast());
            assert!(questions.take(0).is_none());
            // It cannot say.
            drop(questions.take(1));
        };
        let (heard, ()) = tokio::join!(asked, answered);
        assert!(heard[0].is_ok());
        assert_eq!(heard[1].as_ref().err(), Some(&Unanswered::Gone));
        assert_eq!(heard[2].as_ref().err(), Some(&Unanswered::Late));
        assert!(questions.take(2).is_none(), "who asked has left");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_there_is_room_for() {
        let questions = Questions::new(1);
        let asked = (0..WAITING + 3).map(|_| questions.ask(7, 0));
        let heard = join_all(asked).await;
        assert!(heard.iter().all(|heard| heard[0].is_err()));
        let queue = questions.desks[0].queue();
        assert_eq!(queue.len(), WAITING);
    }
}
