//! VMs.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    response::{IntoResponse, Response},
};
use batwa_api::{
    id::AgentId,
    list::VmList,
    name::VmName,
    operation::{Operation, OperationRequest, StopOptions},
    vm::{CreateVm, VmAction, VmDetails},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::{
    ApiError, ApiResult,
    extract::{Body, OptionalBody, Path, Query},
    list::{ListParams, bad_search, cursor, json, keep_for, sort, split, wait, words_of},
};
use crate::{
    app::{App, Error, auth::Caller, operations::Delivery, vms::VmRef},
    fleet::{
        query::{Counted, Cursor, MAX_SKIP, Sort, VmQuery},
        search::{
            self, Term,
            pattern::{AgentPattern, LabelPattern},
            vms::VmTest,
        },
    },
};

/// Which VMs.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct VmParams {
    /// A search: words, and fields as in `state:running agent:lab-* label:env=prod -label:old memory>4G`.
    q: Option<String>,
    /// Machines by id, separated by commas; a star at the end stands for any rest.
    agent: Option<String>,
    /// States, separated by commas.
    state: Option<String>,
    /// Labels that must be there, as `key` or `key=value`, separated by commas.
    label: Option<String>,
    /// `name`, `agent`, `state`, `cpus`, `memory`, `disk`, `created` or `changed`; with `-` in front the other way round.
    sort: Option<String>,
    /// Most items, 1 to 1000; 100 when absent.
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many to pass by first, counted from `cursor`; for jumping far in a long list. 0 to 1000000.
    skip: Option<usize>,
    /// Which counts beside those by state: `agents`, `labels`, or both separated by a comma.
    counts: Option<String>,
}

impl VmParams {
    fn query(&self) -> Result<VmQuery, Error> {
        let (sort, direction) = sort(self.sort.as_deref(), &Sort::ALL)?;
        Ok(VmQuery {
            terms: self.terms()?,
            sort,
            direction,
            limit: ListParams::limit(self.limit)?,
            after: cursor(self.cursor.as_deref(), Cursor::decode, |cursor| {
                cursor.fits(sort, direction)
            })?,
            skip: match self.skip.unwrap_or_default() {
                skip if skip <= MAX_SKIP => skip,
                _ => return Err(Error::invalid("skip", format!("at most {MAX_SKIP}"))),
            },
            counted: self.counted()?,
        })
    }

    fn terms(&self) -> Result<Vec<Term<VmTest>>, Error> {
        let q = self.q.as_deref().unwrap_or_default();
        let mut terms = search::vms::parse(q).map_err(|error| bad_search(&error))?;
        let agents = agent_patterns(self.agent.as_deref())?;
        if !agents.is_empty() {
            terms.push(Term::wanted(VmTest::AgentId(agents)));
        }
        let states = words_of("state", self.state.as_deref())?;
        if !states.is_empty() {
            terms.push(Term::wanted(VmTest::State(states)));
        }
        for label in split(self.label.as_deref()) {
            let pattern = LabelPattern::exactly(label)
                .ok_or_else(|| Error::invalid("label", format!("`{label}` can be no label")))?;
            terms.push(Term::wanted(VmTest::Label(vec![pattern])));
        }
        Ok(terms)
    }

    fn counted(&self) -> Result<Counted, Error> {
        let mut counted = Counted::default();
        for word in split(self.counts.as_deref()) {
            match word {
                "agents" => counted.agents = true,
                "labels" => counted.labels = true,
                _ => {
                    return Err(Error::invalid(
                        "counts",
                        "one of `agents`, `labels`, or both",
                    ));
                }
            }
        }
        Ok(counted)
    }
}

/// Machines by id, separated by commas; a star at the end stands for any rest.
pub(crate) fn agent_patterns(list: Option<&str>) -> Result<Vec<AgentPattern>, Error> {
    split(list)
        .map(|agent| {
            AgentPattern::parse(agent)
                .ok_or_else(|| Error::invalid("agent", format!("`{agent}` can be no agent's id")))
        })
        .collect()
}

/// The VMs of all machines.
#[utoipa::path(get, path = "/api/v1/vms", tag = "vms", params(VmParams), responses((status = 200, body = VmList)))]
pub(crate) async fn list(
    State(app): State<App>,
    Query(params): Query<VmParams>,
) -> ApiResult<Response> {
    /// What one takes as JSON, with room to spare: most of it says why which action is not possible.
    const BYTES_A_VM: usize = 2048;
    let list = app.list_vms(params.query()?).await?;
    Ok(json(&list, BYTES_A_VM * (list.items.len() + 1)))
}

/// One VM, with the health of its machine's link and of its driver.
#[utoipa::path(get, path = "/api/v1/agents/{agent}/vms/{vm}", tag = "vms", responses((status = 200, body = VmDetails)),
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name")))]
pub(crate) async fn get(
    State(app): State<App>,
    Path((agent, name)): Path<(AgentId, VmName)>,
) -> ApiResult<Json<VmDetails>> {
    Ok(Json(app.vm(&VmRef { agent, name })?))
}

/// Take a missing VM off the list. Nothing is done on its machine; should the VM come back there, it is listed again.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/vms/{vm}/dismiss", tag = "vms", responses((status = 204)),
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name")))]
pub(crate) async fn dismiss(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, VmName)>,
) -> ApiResult<StatusCode> {
    app.dismiss_vm(&caller, &VmRef { agent, name }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How a slow call is answered.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SlowParams {
    /// Wait for the operation, at most this long: `30s`, `2m`.
    pub(super) wait: Option<String>,
    /// Where the machine is offline, keep the operation for it, at most this long: `12h`, `3d`; refused otherwise.
    pub(super) when_online: Option<String>,
}

impl SlowParams {
    /// How the operation is to reach its machine.
    pub(super) fn delivery(&self, key: Option<String>) -> Result<Delivery, Error> {
        wait(self.wait.as_deref())?;
        let keep_for = keep_for(self.when_online.as_deref())?;
        Ok(Delivery {
            key,
            keep_for,
            body: None,
        })
    }
}

/// The caller's `Idempotency-Key`.
pub(crate) struct IdempotencyKey(pub(super) Option<String>);

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Self::Rejection> {
        let Some(key) = parts.headers.get("idempotency-key") else {
            return Ok(Self(None));
        };
        let key = key.to_str().map_err(|_| {
            Error::invalid("Idempotency-Key", "a key has printable ASCII characters")
        })?;
        Ok(Self(Some(key.to_owned())))
    }
}

/// An operation: 202 with where to look, or 200 once it is finished.
pub(crate) async fn accepted(
    app: &App,
    operation: Operation,
    params: &SlowParams,
) -> ApiResult<Response> {
    let operation = match wait(params.wait.as_deref())? {
        Some(patience) => app.wait_for_operation(operation.id, patience).await?,
        None => operation,
    };
    let status = if params.wait.is_some() && operation.state.is_finished() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let location = HeaderValue::from_str(&format!("/api/v1/operations/{}", operation.id))
        .expect("an id is a header value");
    let headers = HeaderMap::from_iter([(header::LOCATION, location)]);
    Ok((status, headers, Json(operation)).into_response())
}

/// Make a VM and start it.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/vms", tag = "vms", request_body = CreateVm,
    params(("agent" = AgentId, Path, description = "the agent's id"), SlowParams),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "finished within `wait`")))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(agent): Path<AgentId>,
    Query(params): Query<SlowParams>,
    IdempotencyKey(key): IdempotencyKey,
    Body(body): Body<CreateVm>,
) -> ApiResult<Response> {
    let delivery = params.delivery(key)?;
    let operation = app.create_vm(&caller, &agent, body, delivery).await?;
    accepted(&app, operation, &params).await
}

/// How to delete a VM.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteParams {
    /// Remove it for good instead of moving it to the trash.
    #[serde(default)]
    purge: bool,
    /// Wait for the operation, at most this long: `30s`, `2m`.
    wait: Option<String>,
    /// Where the machine is offline, keep the operation for it, at most this long: `12h`, `3d`; refused otherwise.
    when_online: Option<String>,
}

/// Move a VM to the trash, or remove it for good.
#[utoipa::path(delete, path = "/api/v1/agents/{agent}/vms/{vm}", tag = "vms",
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"), DeleteParams),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "finished within `wait`")))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name)): Path<(AgentId, VmName)>,
    Query(params): Query<DeleteParams>,
    IdempotencyKey(key): IdempotencyKey,
) -> ApiResult<Response> {
    let request = if params.purge {
        OperationRequest::Purge
    } else {
        OperationRequest::Delete
    };
    let slow = SlowParams {
        wait: params.wait,
        when_online: params.when_online,
    };
    act_on(&app, &caller, VmRef { agent, name }, request, key, &slow).await
}

/// Do something with a VM: `start`, `stop` (body `{force?, after_s?}`), `restart`, `suspend`, `resume`, `recover`,
/// `purge`.
#[utoipa::path(post, path = "/api/v1/agents/{agent}/vms/{vm}/{action}", tag = "vms", request_body = Option<StopOptions>,
    params(("agent" = AgentId, Path, description = "the agent's id"), ("vm" = VmName, Path, description = "the VM's name"),
        ("action" = VmAction, Path, description = "what to do"), SlowParams),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "finished within `wait`")))]
pub(crate) async fn act(
    State(app): State<App>,
    caller: Caller,
    Path((agent, name, action)): Path<(AgentId, VmName, String)>,
    Query(params): Query<SlowParams>,
    IdempotencyKey(key): IdempotencyKey,
    OptionalBody(body): OptionalBody<Option<Value>>,
) -> ApiResult<Response> {
    let request = request(&action, body)?;
    act_on(&app, &caller, VmRef { agent, name }, request, key, &params).await
}

/// Does something with a VM.
pub(super) async fn act_on(
    app: &App,
    caller: &Caller,
    vm: VmRef,
    request: OperationRequest,
    key: Option<String>,
    params: &SlowParams,
) -> ApiResult<Response> {
    let delivery = params.delivery(key)?;
    let operation = app.act_on_vm(caller, vm, request, delivery).await?;
    accepted(app, operation, params).await
}

fn request(action: &str, body: Option<Value>) -> Result<OperationRequest, Error> {
    Ok(match action {
        "start" => OperationRequest::Start,
        "stop" => {
            let options = body
                .map(serde_json::from_value::<StopOptions>)
                .transpose()
                .map_err(|error| Error::invalid("body", error.to_string()))?;
            OperationRequest::Stop(options.unwrap_or_default())
        }
        "restart" => OperationRequest::Restart,
        "suspend" => OperationRequest::Suspend,
        "resume" => OperationRequest::Resume,
        "delete" => OperationRequest::Delete,
        "recover" => OperationRequest::Recover,
        "purge" => OperationRequest::Purge,
        _ => return Err(Error::NotFound(format!("the action `{action}`"))),
    })
}
