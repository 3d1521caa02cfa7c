//! The client of a master's v1 API that the commands share.
//!
//! Answers stay JSON values until a command needs a field, so that `--format json` shows what a newer master
//! says too.

mod events;
mod known;
mod socket;

use std::time::Duration;

use batwa_api::{
    certificate::CertificateHash,
    id::{AgentId, OperationId},
    name::VmName,
    operation::Operation,
    problem::{Problem, ProblemCode},
    vm::ListedVm,
};
use batwa_tls::{NotTrusted, SystemRoots, Trust};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub(crate) use self::{
    events::Events,
    known::{KnownMaster, KnownMasters},
    socket::{NoSocket, Socket, cut},
};
use crate::{
    cli::MasterArgs,
    failure::{Exit, Failure, chain},
};

/// Longer than any single call takes; waiting is done by asking again.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A master that does not even accept a connection in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest page of a list.
const PAGE: usize = 1000;

/// Where commands go when nothing is said and nobody is signed in: the master of this machine.
const USUAL_URL: &str = "http://127.0.0.1:8000";

/// A master, and who we are to it.
pub(crate) struct Client {
    http: reqwest::Client,
    url: Url,
    token: Option<SecretString>,
}

/// Which master, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Master {
    /// Its address.
    pub(crate) url: Url,
    /// The API token.
    pub(crate) token: Option<SecretString>,
    /// The hash of its certificate, where the system does not trust it by itself.
    pub(crate) certificate: Option<CertificateHash>,
}

impl Master {
    /// What flags and environment say, and for the rest what `batwa login` kept. A kept token is sent to the address
    /// that it was made at and nowhere else.
    pub(crate) fn meant_by(args: MasterArgs) -> Result<Self, Failure> {
        if let Some(name) = &args.master {
            return Ok(Self::known(KnownMasters::load()?.named(name)?));
        }
        let given = args.url.as_deref().map(address).transpose()?;
        let token = token(args.token, args.token_file.as_deref())?;
        let known = match (&given, &token) {
            // Everything is said: no file is needed, nor may a broken one be in the way.
            (Some(_), Some(_)) => None,
            (Some(url), None) => KnownMasters::load()?.at(url).cloned(),
            (None, _) => KnownMasters::load()?
                .current()
                .map(|(_, master)| master.clone()),
        };
        let known = known.as_ref().map(Self::known);
        let url = match (given, &known) {
            (Some(url), _) => url,
            (None, Some(known)) => known.url.clone(),
            (None, None) => address(USUAL_URL)?,
        };
        let (known_token, known_certificate) =
            known.map_or((None, None), |known| (known.token, known.certificate));
        Ok(Self {
            url,
            token: token.or(known_token),
            certificate: args.master_certificate.or(known_certificate),
        })
    }

    /// One that was signed in to.
    pub(crate) fn known(known: &KnownMaster) -> Self {
        Self {
            url: known.url.clone(),
            token: Some(known.token.clone()),
            certificate: known.certificate,
        }
    }
}

/// A master's address.
pub(crate) fn address(text: &str) -> Result<Url, Failure> {
    crate::config::http_url(text).map_err(|reason| {
        Failure::usage(format!(
            "cannot use `{text}` as the master's address: {reason}"
        ))
    })
}

fn http(certificate: Option<CertificateHash>) -> reqwest::ClientBuilder {
    let trust = certificate.map_or(Trust::Roots, Trust::Pinned);
    reqwest::Client::builder()
        .tls_backend_preconfigured(trust.client_config(&SystemRoots::default()))
        .user_agent(concat!("batwa/", env!("CARGO_PKG_VERSION")))
        .timeout(CALL_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        // A token must not follow a redirect to somebody else.
        .redirect(reqwest::redirect::Policy::none())
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, Failure> {
    builder
        .build()
        .map_err(|error| Failure::new(Exit::Failed, chain(&error)))
}

/// One VM on one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VmRef {
    /// The agent.
    pub(crate) agent: AgentId,
    /// The VM's name there.
    pub(crate) name: VmName,
}

impl std::fmt::Display for VmRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.agent, self.name)
    }
}

impl Client {
    /// A client of the master that the arguments name, or else of the one that `batwa login` kept.
    pub(crate) fn new(args: MasterArgs) -> Result<Self, Failure> {
        Self::of(Master::meant_by(args)?)
    }

    /// A client of a master.
    pub(crate) fn of(master: Master) -> Result<Self, Failure> {
        let http = build(http(master.certificate))?;
        Ok(Self {
            http,
            url: master.url,
            token: master.token,
        })
    }

    /// A client that signs in with a password, and is known by its cookie afterwards.
    pub(crate) fn with_session(
        url: Url,
        certificate: Option<CertificateHash>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            http: build(http(certificate).cookie_store(true))?,
            url,
            token: None,
        })
    }

    /// `GET` with a query.
    pub(crate) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        self.call(Method::GET, path, query, None).await
    }

    /// `POST` with a body.
    pub(crate) async fn post(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<Value, Failure> {
        let body = serde_json::to_value(body).map_err(|error| Failure::new(Exit::Failed, error))?;
        self.call(Method::POST, path, &[], Some(body)).await
    }

    /// `POST` with a query and a body: what is asked for slow work.
    pub(crate) async fn ask(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: &impl Serialize,
    ) -> Result<Value, Failure> {
        let body = serde_json::to_value(body).map_err(|error| Failure::new(Exit::Failed, error))?;
        self.call(Method::POST, path, query, Some(body)).await
    }

    /// `PUT` with a body.
    pub(crate) async fn put(&self, path: &[&str], body: &impl Serialize) -> Result<Value, Failure> {
        let body = serde_json::to_value(body).map_err(|error| Failure::new(Exit::Failed, error))?;
        self.call(Method::PUT, path, &[], Some(body)).await
    }

    /// `PATCH` with a body.
    pub(crate) async fn patch(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<Value, Failure> {
        let body = serde_json::to_value(body).map_err(|error| Failure::new(Exit::Failed, error))?;
        self.call(Method::PATCH, path, &[], Some(body)).await
    }

    /// `DELETE` with a query.
    pub(crate) async fn delete(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        self.call(Method::DELETE, path, query, None).await
    }

    /// All items of a list, or the first `most`.
    pub(crate) async fn list(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        most: usize,
    ) -> Result<Vec<Value>, Failure> {
        let limit = most.clamp(1, PAGE).to_string();
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut page_query = query.to_vec();
            page_query.push(("limit", &limit));
            if let Some(cursor) = &cursor {
                page_query.push(("cursor", cursor));
            }
            let mut page = self.get(path, &page_query).await?;
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(more)) => items.extend(more),
                _ => return Err(self.no_master("its list has no items")),
            }
            cursor = page
                .get("next_cursor")
                .and_then(Value::as_str)
                .map(str::to_owned);
            if cursor.is_none() || items.len() >= most {
                items.truncate(most);
                return Ok(items);
            }
        }
    }

    /// Finds the VM that is meant by `agent/name`, or by `name` when only one machine has it.
    pub(crate) async fn find(&self, text: &str) -> Result<VmRef, Failure> {
        let parse_name = |name: &str| {
            VmName::parse(name)
                .map_err(|error| Failure::usage(format!("`{text}` is no VM: {error}")))
        };
        if let Some((agent, name)) = text.split_once('/') {
            let agent = AgentId::parse(agent)
                .map_err(|error| Failure::usage(format!("`{text}` is no VM: {error}")))?;
            let name = parse_name(name)?;
            return Ok(VmRef { agent, name });
        }
        let name = parse_name(text)?;
        let search = format!(
            "name=\"{}\"",
            text.replace('\\', "\\\\").replace('"', "\\\"")
        );
        let found: Vec<VmRef> = self
            .list(&["vms"], &[("q", &search)], usize::MAX)
            .await?
            .into_iter()
            .map(|vm| self.read::<ListedVm>(vm))
            .filter_map(|vm| match vm {
                Ok(vm) if vm.vm.name == name => Some(Ok(VmRef {
                    agent: vm.agent_id,
                    name: vm.vm.name.clone(),
                })),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
            .collect::<Result<_, _>>()?;
        match found.as_slice() {
            [vm] => Ok(vm.clone()),
            [] => Err(
                Failure::new(Exit::NotFound, format!("there is no VM `{text}`"))
                    .hint("`batwa ls` lists those there are"),
            ),
            several => {
                let names: Vec<_> = several.iter().map(|vm| format!("`{vm}`")).collect();
                Err(Failure::usage(format!(
                    "several machines have a VM `{text}`: say which of {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// One operation as it is now.
    pub(crate) async fn operation(&self, id: OperationId) -> Result<(Operation, Value), Failure> {
        let value = self.get(&["operations", &id.to_string()], &[]).await?;
        Ok((self.read(value.clone())?, value))
    }

    /// Makes a type of an answer.
    pub(crate) fn read<T: DeserializeOwned>(&self, value: Value) -> Result<T, Failure> {
        serde_json::from_value(value).map_err(|error| self.no_master(&error.to_string()))
    }

    fn no_master(&self, what: &str) -> Failure {
        Failure::new(
            Exit::Unreachable,
            format!(
                "what answers at {} is no master of this version: {what}",
                self.url
            ),
        )
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let mut request = self.request(method, path, query);
        if let Some(body) = &body {
            request = request.json(body);
        }
        self.answer(request).await
    }

    /// Sends a request and reads its answer; `null` where that has no body.
    pub(crate) async fn answer(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response = request.send().await.map_err(|e| self.unreachable(e))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|e| self.unreachable(e))?;
        if status.is_success() {
            if bytes.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&bytes)
                .map_err(|_| self.no_master("its answer is no JSON"));
        }
        Err(self.refusal(status, &bytes))
    }

    /// A request of the v1 API, not sent yet.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> RequestBuilder {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .expect("an http URL has a path")
            .pop_if_empty()
            .extend(["api", "v1"])
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    /// A call that brought no answer.
    pub(crate) fn unreachable(&self, error: reqwest::Error) -> Failure {
        let hint = match NotTrusted::behind(&error) {
            Some(refusal) => format!(
                "if that is the master's own certificate, as it printed it at its start, give `--master-certificate {}`",
                refusal.shown
            ),
            None => {
                "give its address with `--url` or in `BATWA_URL`, or sign in with `batwa login URL`"
                    .to_owned()
            }
        };
        Failure::new(
            Exit::Unreachable,
            format!(
                "cannot reach a master at {}: {}",
                self.url,
                chain(&error.without_url())
            ),
        )
        .hint(hint)
    }

    /// An answer that is a refusal.
    pub(crate) fn refusal(&self, status: StatusCode, body: &[u8]) -> Failure {
        if status.is_redirection() {
            return self.no_master("it sends us elsewhere; give the address it would send us to");
        }
        let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
            return self.no_master(&format!("it answers {status}"));
        };
        from_problem(&problem, self.token.is_some())
    }
}

/// The token that was given, or that stands in a file.
fn token(
    given: Option<String>,
    file: Option<&std::path::Path>,
) -> Result<Option<SecretString>, Failure> {
    let text = match (given.filter(|token| !token.is_empty()), file) {
        (Some(token), _) => Some(token),
        (None, Some(file)) => Some(std::fs::read_to_string(file).map_err(|error| {
            Failure::usage(format!(
                "cannot read the token in {}: {error}",
                file.display()
            ))
        })?),
        (None, None) => None,
    };
    Ok(text.map(|text| SecretString::from(text.trim())))
}

/// A problem as the failure of a command.
fn from_problem(problem: &Problem, with_token: bool) -> Failure {
    let exit = match problem.code {
        ProblemCode::NotFound => Exit::NotFound,
        ProblemCode::Unauthenticated
        | ProblemCode::Forbidden
        | ProblemCode::PolicyForbids
        | ProblemCode::CrossOrigin => Exit::NotAllowed,
        ProblemCode::Malformed | ProblemCode::InvalidField => Exit::Usage,
        ProblemCode::Unavailable => Exit::Unreachable,
        ProblemCode::Timeout => Exit::StillRunning,
        _ => Exit::Failed,
    };
    let failure = Failure::new(exit, crate::output::plain(&problem.detail));
    match problem.code {
        ProblemCode::Unauthenticated if with_token => failure.hint(
            "the token may have expired or been revoked: sign in again with `batwa login URL`",
        ),
        ProblemCode::Unauthenticated => failure.hint(
            "sign in with `batwa login URL`, or give an API token with `--token` or in `BATWA_TOKEN`",
        ),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_problem_has_its_exit_code() {
        let exit = |code| from_problem(&Problem::new(code, "x"), false).exit;
        assert_eq!(exit(ProblemCode::NotFound), Exit::NotFound);
        assert_eq!(exit(ProblemCode::Forbidden), Exit::NotAllowed);
        assert_eq!(exit(ProblemCode::InvalidField), Exit::Usage);
        assert_eq!(exit(ProblemCode::NameTaken), Exit::Failed);
        assert_eq!(exit(ProblemCode::Timeout), Exit::StillRunning);
    }

    #[test]
    fn who_is_not_signed_in_learns_how() {
        let hint = |with_token| {
            from_problem(&Problem::new(ProblemCode::Unauthenticated, "x"), with_token).hint
        };
        assert_ne!(hint(true), hint(false));
        assert!(hint(false).is_some_and(|text| text.contains("BATWA_TOKEN")));
    }
}
