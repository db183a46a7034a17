//! What is answered here, by nobody behind us: failures, redirects, what an authority asks for.

use super::account::{Account, Audience};
use super::connection::Serving;
use super::exchange::Failed;
use super::explain;
use super::failure::{Cause, Failure, Progress};
use super::grpc;
use super::job::Downstream;
use super::recode::whole_body;
use super::request::{Next, Wanted};
use super::respond::{self, Own};
use crate::http::body::BodyFraming;
use crate::http::h1::encode::ConnectionField;
use crate::http::head::{Rejection, RequestHead, Version};
use crate::http::headers::Known;

impl Serving<'_> {
    /// Answers a request that was not understood, and ends the connection.
    pub(super) async fn refuse(&mut self, over: Downstream<'_>, rejection: Rejection) -> Next {
        let mut account = Account::begin(self.worker.request_id());
        let failure = Failure::new(Cause::Rejected(rejection), Progress::NothingSent);
        let close = ConnectionField::Close;
        let next = self
            .answer_failure(&over, &failure, close, None, &mut account)
            .await;
        self.finish(&account, None);
        next
    }

    /// Gives a client this answer to a request that went nowhere.
    pub(super) async fn give(
        &mut self,
        mut over: Downstream<'_>,
        own: Own,
        wanted: Wanted<'_>,
        account: &mut Account,
    ) -> Next {
        let connection = self.skip_body(&mut over, wanted.framing, wanted.keep_alive);
        account.status = own.status();
        self.send(&over, own, connection, account).await
    }

    /// Answers a request that failed, if anybody is there to be answered.
    pub(super) async fn fail(
        &mut self,
        mut over: Downstream<'_>,
        failed: Failed,
        wanted: Wanted<'_>,
        account: &mut Account,
    ) -> Next {
        if failed.failure.progress == Progress::Forwarded {
            account.failure = Some(failed.failure.meaning());
            if let (Downstream::H2 { outgoing, .. }, Cause::UpstreamReset(reason)) =
                (&over, &failed.failure.cause)
            {
                // In the backend's own words.
                outgoing.reset(*reason);
            }
            if let (Downstream::H1 { io, .. }, true) = (over, failed.until_close) {
                // Nothing but a reset tells this client that the response is not whole.
                io.reset_on_close();
            }
            return Next::Abort;
        }
        let keep_alive = wanted.keep_alive && !failed.consumed && !failed.failure.meaning().closes;
        let connection = self.skip_body(&mut over, wanted.framing, keep_alive);
        let head = std::mem::take(self.head);
        let next = self
            .answer_failure(&over, &failed.failure, connection, Some(&head), account)
            .await;
        *self.head = head;
        next
    }

    pub(super) async fn answer_failure(
        &mut self,
        over: &Downstream<'_>,
        failure: &Failure,
        connection: ConnectionField,
        head: Option<&RequestHead>,
        account: &mut Account,
    ) -> Next {
        let meaning = failure.meaning();
        account.failure = Some(meaning);
        if meaning.status == 0 {
            return Next::Abort;
        }
        account.status = meaning.status;
        if let Some(head) = head
            && respond::in_words_of_grpc(head)
        {
            account.grpc_status = Some(grpc::code_of(meaning.status));
        }
        let explanation = match &failure.cause {
            _ if account.audience != Audience::Anybody => {
                explain::details(failure, account, self.worker)
            }
            // Which backend, and why, is for the log only.
            Cause::NoBackend(_) | Cause::Connect(_) => "no backend can serve this now".to_owned(),
            Cause::BadResponse(_) | Cause::ResponseBody(_) | Cause::UpstreamClosed => {
                "the backend's response was not usable".to_owned()
            }
            Cause::Unasked(_) => "nobody can say now whether this may be done".to_owned(),
            cause => cause.to_string(),
        };
        let own = respond::error(
            meaning.status,
            &explanation,
            failure.retry_after(),
            &account.request_id,
            head,
        );
        let config = &self.worker.shared.config;
        let mut own = own.edited(head.and_then(|head| self.edits(config, head, account)));
        if account.audience == Audience::Asking {
            own.explain(&explain::field(account, self.worker));
        }
        self.send(over, own, connection, account).await
    }

    /// Takes the body of a request that nobody gets out of the inbox, if it is whole there. If it
    /// is not, the connection cannot go on.
    fn skip_body(
        &self,
        over: &mut Downstream<'_>,
        framing: BodyFraming,
        keep_alive: bool,
    ) -> ConnectionField {
        // A stream ends with its response, whatever was to come on it.
        let Downstream::H1 { inbox, .. } = over else {
            return ConnectionField::None;
        };
        if !keep_alive {
            return ConnectionField::Close;
        }
        let Some(used) = whole_body(framing, inbox.filled()) else {
            return ConnectionField::Close;
        };
        inbox.consume(used);
        match self.head.version {
            Version::Http10 => ConnectionField::KeepAlive,
            _ => ConnectionField::None,
        }
    }

    async fn send(
        &mut self,
        over: &Downstream<'_>,
        own: Own,
        connection: ConnectionField,
        account: &mut Account,
    ) -> Next {
        account.sent = own.length();
        let buffers = &self.worker.buffers;
        let taken = own.send(over, connection, self.lent.writing, buffers).await;
        match (taken, connection) {
            (false, _) => Next::Abort,
            (true, ConnectionField::Close) => Next::Close,
            (true, _) => Next::Request,
        }
    }

    /// What the client may hear of where its request went. Nothing is looked at where nobody may.
    pub(super) fn audience(&self) -> Audience {
        let config = &self.worker.shared.config;
        if config.explain_from.is_empty() || self.peer.is_unknown {
            return Audience::Anybody;
        }
        let fields = &self.head.fields;
        match config.explains_to(self.peer.client(fields, config)) {
            false => Audience::Anybody,
            true if fields.first(Known::XEvenkeelExplain).is_some() => Audience::Asking,
            true => Audience::Listed,
        }
    }
}
