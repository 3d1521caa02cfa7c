//! The interface from before v1 (COMPAT.md): the same use cases with the old paths and bodies, which never change.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use batwa_api::{
    Timestamp,
    agent::{Agent, LinkKind},
    id::AgentId,
    legacy::{CreateVm, Done, Heartbeat, LegacyAgent, Register, VmRequest},
    name::VmName,
    operation::{Operation, OperationRequest},
    vm::{VmSpec, VmState},
};
use http::{HeaderMap, header};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use super::{
    ApiError, ApiResult,
    client::Client,
    extract::{Body, Path, Query},
};
use crate::{
    app::{
        App, Error,
        agents::{RegisterAgent, unknown},
        auth::Caller,
        operations::{Delivery, outcome},
        vms::VmRef,
    },
    fleet::{
        agent_list::{AgentCursor, AgentQuery},
        enrolment::one_key,
        query::MAX_LIMIT,
    },
};

mod info;

/// An agent registers; unknown ones wait for an admin's approval.
#[utoipa::path(post, path = "/api/agent/register", tag = "before v1", security(()), request_body = Register,
    responses((status = 200, body = Value)))]
pub(crate) async fn register(
    State(app): State<App>,
    client: Client,
    headers: HeaderMap,
    Body(body): Body<Register>,
) -> ApiResult<Json<Value>> {
    let key = key(&headers, body.api_key.as_deref())?;
    let id = body.agent_id.clone();
    let given = RegisterAgent {
        agent_id: body.agent_id,
        hostname: body.hostname,
        api_url: body.api_url,
        key,
        tags: body.tags.unwrap_or_default(),
        certificate: body.certificate,
    };
    let agent = app.register_agent(&client.source, given).await?;
    Ok(Json(json!({
        "success": true,
        "message": format!("Agent '{id}' registered successfully"),
        "agent": old_agent(agent),
    })))
}

/// An agent says that it is there.
#[utoipa::path(post, path = "/api/agent/heartbeat", tag = "before v1", security(()), request_body = Heartbeat,
    responses((status = 200, body = Done)))]
pub(crate) async fn heartbeat(
    State(app): State<App>,
    headers: HeaderMap,
    Body(body): Body<Heartbeat>,
) -> ApiResult<Json<Done>> {
    let key = key(&headers, None)?;
    app.heartbeat(&body.agent_id, key.as_ref())?;
    Ok(Json(Done::new("Heartbeat received")))
}

fn key(headers: &HeaderMap, body: Option<&str>) -> Result<Option<SecretString>, ApiError> {
    let header = headers
        .get("x-api-key")
        .map(|key| key.to_str())
        .transpose()
        .map_err(|_| ApiError::malformed("the header `X-API-Key` is no printable ASCII"))?;
    let key = one_key(header, body).map_err(|error| ApiError::malformed(error.to_string()))?;
    Ok(key.map(SecretString::from))
}

/// The agents, as a bare array; the master's own machine is not one of them.
#[utoipa::path(get, path = "/api/agent/list", tag = "before v1", responses((status = 200, body = Vec<LegacyAgent>)))]
pub(crate) async fn agents(
    State(app): State<App>,
    caller: Caller,
) -> ApiResult<Json<Vec<LegacyAgent>>> {
    let mut agents = Vec::new();
    let mut query = AgentQuery {
        limit: MAX_LIMIT,
        ..AgentQuery::default()
    };
    loop {
        let page = app.list_agents(&caller, query.clone()).await?;
        let remote = page.items.into_iter().filter(|agent| !agent.id.is_local());
        agents.extend(remote.map(old_agent));
        query.after = page.next_cursor.as_deref().and_then(AgentCursor::decode);
        if query.after.is_none() {
            return Ok(Json(agents));
        }
    }
}

/// One agent.
#[utoipa::path(get, path = "/api/agent/info/{agent_id}", tag = "before v1",
    params(("agent_id" = String, Path, description = "the agent's id")), responses((status = 200, body = Value)))]
pub(crate) async fn agent(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let agent = app.agent(&caller, &remote(&id)?)?;
    Ok(Json(json!({"success": true, "agent": old_agent(agent)})))
}

/// Remove an agent.
#[utoipa::path(delete, path = "/api/agent/unregister/{agent_id}", tag = "before v1",
    params(("agent_id" = String, Path, description = "the agent's id")), responses((status = 200, body = Done)))]
pub(crate) async fn unregister(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<Json<Done>> {
    app.delete_agent(&caller, &remote(&id)?).await?;
    let message = format!("Agent '{id}' unregistered successfully");
    Ok(Json(Done::new(message)))
}

fn remote(id: &str) -> Result<AgentId, Error> {
    AgentId::parse_remote(id).map_err(|_| Error::NotFound(format!("agent `{id}`")))
}

fn old_agent(agent: Agent) -> LegacyAgent {
    let hostname = agent
        .registrations
        .first()
        .map(|registration| registration.hostname.clone());
    LegacyAgent {
        agent_id: agent.id.to_string(),
        hostname: hostname.unwrap_or(agent.name),
        api_url: match agent.link {
            LinkKind::Tunnel => format!("tunnel:{}", agent.id),
            LinkKind::Direct | LinkKind::InProcess => agent.api_url,
        },
        status: agent.status.as_str().to_owned(),
        last_seen: agent.last_seen.unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
        tags: agent.labels,
        vm_count: agent.vm_count,
    }
}

/// The VMs of all machines.
#[utoipa::path(get, path = "/api/vm/list", tag = "before v1", responses((status = 200, body = Value)))]
pub(crate) async fn vms(State(app): State<App>) -> Response {
    let json: Bytes = app.fleet().old_list();
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

/// On which machine.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct InfoParams {
    /// The agent; absent, empty or `null` for the master's own machine.
    agent_id: Option<String>,
}

/// One VM: as Multipass prints it, and its main facts at the top level.
#[utoipa::path(get, path = "/api/vm/info/{vm_name}", tag = "before v1",
    params(("vm_name" = String, Path, description = "the VM's name"), InfoParams), responses((status = 200, body = Value)))]
pub(crate) async fn info(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(params): Query<InfoParams>,
) -> ApiResult<Json<Map<String, Value>>> {
    let vm = vm_ref(&app, &name, params.agent_id.as_deref())?;
    let listed = app.vm_of_old(&vm)?;
    let printed = match app.old_agent_online(&vm.agent) {
        Some(contact) => app.old_info(&contact, &vm.name).await.ok(),
        None => None,
    };
    let hostname = hostname(&app, &vm.agent);
    Ok(Json(info::body(&listed, &hostname, printed)))
}

/// Make a VM; answers once it runs.
#[utoipa::path(post, path = "/api/vm/create", tag = "before v1", request_body = CreateVm, responses((status = 200, body = Value)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<CreateVm>,
) -> ApiResult<Json<Value>> {
    let agent = agent_ref(&app, body.agent_id.as_deref())?;
    let create = batwa_api::vm::CreateVm {
        name: body.name.clone(),
        spec: VmSpec {
            image: body.image,
            cpus: body.cpus,
            memory: body.memory,
            disk: body.disk,
            ..VmSpec::default()
        },
        template: None,
        // This interface knows of no keys, and its VMs stay as they always were.
        own_ssh_keys: false,
    };
    let operation = app
        .create_vm(&caller, &agent, create, Delivery::at_once())
        .await?;
    finished(&app, &operation).await?;
    Ok(Json(json!({
        "success": true,
        "message": format!("VM '{}' created", body.name),
        "vm_name": body.name,
        "agent_id": (!agent.is_local()).then(|| agent.as_str()),
        "agent_hostname": hostname(&app, &agent),
    })))
}

/// Power a VM on; answers once it runs. One that runs already is as good.
#[utoipa::path(post, path = "/api/vm/start", tag = "before v1", request_body = VmRequest, responses((status = 200, body = Done)))]
pub(crate) async fn start(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<VmRequest>,
) -> ApiResult<Json<Done>> {
    let request = OperationRequest::Start;
    act(&app, &caller, &body, request, Some(VmState::Running)).await?;
    Ok(Json(Done::new(format!("VM '{}' started", body.name))))
}

/// Power a VM off; answers once it is. One that is off already is as good.
#[utoipa::path(post, path = "/api/vm/stop", tag = "before v1", request_body = VmRequest, responses((status = 200, body = Done)))]
pub(crate) async fn stop(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<VmRequest>,
) -> ApiResult<Json<Done>> {
    let request = OperationRequest::Stop(Default::default());
    act(&app, &caller, &body, request, Some(VmState::Stopped)).await?;
    Ok(Json(Done::new(format!("VM '{}' stopped", body.name))))
}

/// Remove a VM for good, and no other one.
#[utoipa::path(post, path = "/api/vm/delete", tag = "before v1", request_body = VmRequest, responses((status = 200, body = Done)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<VmRequest>,
) -> ApiResult<Json<Done>> {
    act(&app, &caller, &body, OperationRequest::Purge, None).await?;
    Ok(Json(Done::new(format!("VM '{}' deleted", body.name))))
}

/// Does it and waits; `done` is the state in which there is nothing to do.
async fn act(
    app: &App,
    caller: &Caller,
    body: &VmRequest,
    request: OperationRequest,
    done: Option<VmState>,
) -> Result<(), Error> {
    let vm = vm_ref(app, &body.name, body.agent_id.as_deref())?;
    app.online_for_old(&vm.agent)?;
    let listed = app.vm_of_old(&vm)?;
    let idle =
        listed.vm.operations.is_empty() && !app.fleet().has_operation_for(&vm.agent, &vm.name);
    if Some(listed.vm.state) == done && idle && !listed.stale {
        return Ok(());
    }
    let operation = app
        .act_on_vm(caller, vm, request, Delivery::at_once())
        .await?;
    finished(app, &operation).await
}

/// Waits for an operation as long as `--operation-timeout` says.
async fn finished(app: &App, operation: &Operation) -> Result<(), Error> {
    let patience = app.config().operation_timeout;
    let operation = app.wait_for_operation(operation.id, patience).await?;
    outcome(&operation)
}

fn agent_ref(app: &App, id: Option<&str>) -> Result<AgentId, Error> {
    let agent = match id {
        None | Some("" | "null" | "local") => AgentId::local(),
        Some(id) => remote(id)?,
    };
    if agent.is_local() {
        app.require_local_agent()?;
    } else if app.fleet().status(&agent).is_none() {
        return Err(unknown(&agent));
    }
    Ok(agent)
}

fn vm_ref(app: &App, name: &str, agent: Option<&str>) -> Result<VmRef, Error> {
    let agent = agent_ref(app, agent)?;
    let name = VmName::parse(name).map_err(|error| Error::invalid("name", error.to_string()))?;
    Ok(VmRef { agent, name })
}

fn hostname(app: &App, agent: &AgentId) -> String {
    if agent.is_local() {
        return "local".to_owned();
    }
    app.fleet()
        .record(agent)
        .map(|record| record.hostname)
        .unwrap_or_default()
}
