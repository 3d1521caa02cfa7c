//! The paths that existed before v1 (COMPAT.md, "Agent"), as thin adapters over the same uses.
//!
//! The shapes are Multipass' own, made from the inventory, so that they are the same whatever driver runs the
//! VM. Calls that change something wait for their operation; a caller that hangs up does not cancel it.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use batwa_api::{
    agent::DriverKind,
    id::OperationId,
    legacy::{CreateVm, Done, Execute, Executed, VmRequest, state_name},
    name::VmName,
    operation::{Operation, OperationError, OperationRequest, StartOperation, StopOptions},
    problem::{FieldError, Problem, ProblemCode},
    size::ByteSize,
    vm::{Vm, VmAction, VmSpec},
};
use serde_json::{Map, Value, json};

use super::{
    App,
    error::{ApiError, ApiResult},
    extract::{JsonBody, PathOf},
};
use crate::{
    config::Allow,
    driver::command::{Command, CommandError},
    execute::{self, Ends},
    operations::Started,
};

/// How long `info` waits for addresses and usage before it answers with what is known.
const INFO_PATIENCE: Duration = Duration::from_secs(5);
/// Longest that a caller of `execute` may let a command run.
const EXECUTE_MAX: Duration = Duration::from_secs(600);

/// All VMs, as `multipass list --format json` prints them.
#[utoipa::path(get, path = "/api/vm/list", tag = "before v1", responses((status = 200, body = Value)))]
pub(crate) async fn list_vms(State(app): State<App>) -> Json<Value> {
    app.wait_for_first_word().await;
    let list: Vec<Value> = app.picture().vms().iter().map(listed).collect();
    Json(json!({ "list": list }))
}

/// One VM, as `multipass info NAME --format json` prints it.
#[utoipa::path(
    get, path = "/api/vm/info/{vm_name}", tag = "before v1", params(("vm_name" = VmName, Path)),
    responses((status = 200, body = Value), (status = 404, body = Problem))
)]
pub(crate) async fn vm_info(
    State(app): State<App>,
    PathOf(name): PathOf<VmName>,
) -> ApiResult<Json<Value>> {
    app.wait_for_first_word().await;
    app.inventory().look(&name, INFO_PATIENCE).await;
    let vm = app.vm(&name)?;
    Ok(Json(
        json!({"errors": [], "info": {name.as_str(): info(&vm)}}),
    ))
}

/// Make a VM and wait until it runs.
#[utoipa::path(
    post, path = "/api/vm/create", tag = "before v1", request_body = CreateVm,
    responses((status = 200, body = Done), (status = 409, body = Problem), (status = 422, body = Problem))
)]
pub(crate) async fn create_vm(
    State(app): State<App>,
    JsonBody(body): JsonBody<Map<String, Value>>,
) -> ApiResult<Json<Done>> {
    let (name, spec) = create_request(&body).map_err(Problem::invalid_fields)?;
    let request = OperationRequest::Create {
        spec: Box::new(spec),
    };
    run(&app, name.clone(), request).await?;
    Ok(Json(Done::new(format!("VM '{name}' created"))))
}

/// Power on and wait until it runs.
#[utoipa::path(post, path = "/api/vm/start", tag = "before v1", request_body = VmRequest, responses((status = 200, body = Done)))]
pub(crate) async fn start_vm(
    State(app): State<App>,
    JsonBody(body): JsonBody<VmRequest>,
) -> ApiResult<Json<Done>> {
    act(&app, &body, OperationRequest::Start, "started").await
}

/// Power off and wait until it is.
#[utoipa::path(post, path = "/api/vm/stop", tag = "before v1", request_body = VmRequest, responses((status = 200, body = Done)))]
pub(crate) async fn stop_vm(
    State(app): State<App>,
    JsonBody(body): JsonBody<VmRequest>,
) -> ApiResult<Json<Done>> {
    act(
        &app,
        &body,
        OperationRequest::Stop(StopOptions::default()),
        "stopped",
    )
    .await
}

/// Remove for good, this VM alone.
#[utoipa::path(post, path = "/api/vm/delete", tag = "before v1", request_body = VmRequest, responses((status = 200, body = Done)))]
pub(crate) async fn delete_vm(
    State(app): State<App>,
    JsonBody(body): JsonBody<VmRequest>,
) -> ApiResult<Json<Done>> {
    act(&app, &body, OperationRequest::Purge, "deleted").await
}

async fn act(
    app: &App,
    body: &VmRequest,
    request: OperationRequest,
    done: &str,
) -> ApiResult<Json<Done>> {
    let name = VmName::parse(&body.name).map_err(|_| {
        ApiError::new(
            ProblemCode::NotFound,
            format!("VM `{}` does not exist", body.name.escape_debug()),
        )
    })?;
    run(app, name.clone(), request).await?;
    Ok(Json(Done::new(format!("VM '{name}' {done}"))))
}

/// Starts the operation and waits for its end.
async fn run(app: &App, vm: VmName, request: OperationRequest) -> ApiResult<()> {
    app.wait_for_first_word().await;
    let id = OperationId::new();
    let started = app
        .operations()
        .start(
            id,
            StartOperation {
                subject: vm.into(),
                request,
                requested_by: None,
            },
        )
        .await?;
    let (Started::New(operation) | Started::Known(operation)) = started;
    let operation = tokio::select! {
        ended = app.operations().wait(id) => ended.unwrap_or(operation),
        () = app.stop().cancelled() => {
            return Err(ApiError::new(
                ProblemCode::Unavailable,
                format!("the agent stops; operation `{id}` goes on when it is back"),
            ));
        }
    };
    outcome(&operation)
}

fn outcome(operation: &Operation) -> ApiResult<()> {
    use batwa_api::operation::OperationState;
    match (&operation.error, operation.state) {
        (Some(error), _) => Err(failure(error)),
        (None, OperationState::Cancelled) => Err(ApiError::new(
            ProblemCode::Conflict,
            format!("{} of {} was cancelled", operation.kind, operation.subject),
        )),
        (None, _) => Ok(()),
    }
}

/// What the driver said. Old callers know 500 for it.
fn failure(error: &OperationError) -> ApiError {
    let mut problem = error.to_problem();
    if problem.code == ProblemCode::AgentFailed {
        problem.status = 500;
    }
    problem.into()
}

/// The request of a create, each field read by itself so that a wrong one is named.
fn create_request(body: &Map<String, Value>) -> Result<(VmName, VmSpec), Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut refuse = |field: &str, message: String| errors.push(FieldError::new(field, message));

    let name = match body.get("name") {
        Some(Value::String(name)) => match VmName::parse_new(name) {
            Ok(name) => Some(name),
            Err(error) => {
                refuse("name", error.to_string());
                None
            }
        },
        _ => {
            refuse("name", "a VM needs a name".to_owned());
            None
        }
    };
    let cpus = match body.get("cpus") {
        None | Some(Value::Null) => 1,
        Some(value) => value
            .as_u64()
            .or_else(|| value.as_str()?.parse().ok())
            .and_then(|cpus| u32::try_from(cpus).ok())
            .unwrap_or_else(|| {
                refuse("cpus", format!("{value} is no number of CPUs"));
                1
            }),
    };
    let mut size = |field: &str, default: ByteSize| match body.get(field) {
        None | Some(Value::Null) => default,
        Some(value) => serde_json::from_value(value.clone()).unwrap_or_else(|error| {
            refuse(field, error.to_string());
            default
        }),
    };
    let memory = size("memory", ByteSize::gib(1));
    let disk = size("disk", ByteSize::gib(5));
    let image = match body.get("image") {
        None | Some(Value::Null) => "22.04".to_owned(),
        Some(Value::String(image)) => image.clone(),
        Some(other) => {
            refuse("image", format!("{other} is no image name"));
            String::new()
        }
    };
    match name {
        Some(name) if errors.is_empty() => Ok((
            name,
            VmSpec {
                image,
                cpus,
                memory,
                disk,
                ..VmSpec::default()
            },
        )),
        _ => Err(errors),
    }
}

/// Run a read-only Multipass command.
#[utoipa::path(
    post, path = "/api/execute", tag = "before v1", request_body = Execute,
    responses((status = 200, body = Executed), (status = 403, body = Problem))
)]
pub(crate) async fn execute(
    State(app): State<App>,
    JsonBody(body): JsonBody<Execute>,
) -> ApiResult<Response> {
    if app.config().execute == Allow::No {
        execute::check(&body.args)
            .map_err(|refusal| ApiError::new(ProblemCode::Forbidden, refusal.to_string()))?;
    }
    if let Some(vm) = execute::ends(&body.args).and_then(|ends| protected(&app, &ends)) {
        return Err(ApiError::new(
            ProblemCode::IllegalState,
            format!("cannot delete VM `{vm}`: {}", VmAction::PROTECTED),
        ));
    }
    let seconds = if body.timeout.is_finite() {
        body.timeout
    } else {
        30.0
    };
    let deadline = Duration::from_secs_f64(seconds.clamp(0.1, EXECUTE_MAX.as_secs_f64()));
    let result = Command::new(&app.config().multipass.program)
        .args(&body.args)
        .deadline(deadline)
        .output()
        .await;
    let executed = match result {
        Ok(output) => Executed {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: output.stderr,
            return_code: output.status.code().unwrap_or(-1),
            error: None,
        },
        Err(error) => Executed {
            success: false,
            stdout: String::new(),
            stderr: String::new(),
            return_code: -1,
            error: Some(match &error {
                CommandError::NotFound { .. } => "Multipass is not installed here".to_owned(),
                CommandError::Deadline { .. } => {
                    format!("Command timed out after {} seconds", deadline.as_secs_f64())
                }
                other => other.to_string(),
            }),
        },
    };
    Ok((StatusCode::OK, Json(executed)).into_response())
}

/// A protected VM among those that a command would end.
fn protected(app: &App, ends: &Ends<'_>) -> Option<VmName> {
    let of_multipass = app
        .picture()
        .vms()
        .into_iter()
        .filter(|vm| vm.driver == DriverKind::Multipass && vm.settings.protected);
    of_multipass.map(|vm| vm.name).find(|name| match ends {
        Ends::All | Ends::Trash => true,
        Ends::Named(named) => named.contains(&name.as_str()),
    })
}

/// One VM as `multipass list` shows it.
fn listed(vm: &Vm) -> Value {
    json!({
        "name": vm.name,
        "state": state_name(vm.state),
        "ipv4": vm.ipv4,
        "release": release(vm),
    })
}

/// `release` of a list is the image's name; Multipass says so where it does not know.
fn release(vm: &Vm) -> String {
    vm.release
        .clone()
        .or_else(|| vm.image.clone())
        .unwrap_or_else(|| "Not Available".to_owned())
}

/// One VM as `multipass info` shows it: numbers of CPUs and disks are strings, and what is not known is empty.
fn info(vm: &Vm) -> Value {
    let usage = vm.usage.clone().unwrap_or_default();
    let runs = vm.state == batwa_api::vm::VmState::Running;
    let mut memory = BTreeMap::new();
    let mut disk = BTreeMap::new();
    if runs {
        memory.extend(vm.memory.map(|size| ("total", json!(size))));
        memory.extend(usage.memory_used.map(|size| ("used", json!(size))));
        disk.extend(
            vm.disk
                .map(|size| ("total", json!(size.as_u64().to_string()))),
        );
        disk.extend(
            usage
                .disk_used
                .map(|size| ("used", json!(size.as_u64().to_string()))),
        );
    }
    json!({
        "cpu_count": vm.cpus.filter(|_| runs).map_or(String::new(), |cpus| cpus.to_string()),
        "disks": {"sda1": disk},
        "image_hash": "",
        "image_release": vm.image.clone().unwrap_or_default(),
        "ipv4": vm.ipv4,
        "load": usage.load.filter(|_| runs).map_or_else(Vec::new, |load| load.to_vec()),
        "memory": memory,
        "mounts": {},
        "release": vm.release.clone().filter(|_| runs).unwrap_or_default(),
        "snapshot_count": "0",
        "state": state_name(vm.state),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: Value) -> Vec<String> {
        let Value::Object(body) = body else { panic!() };
        create_request(&body)
            .unwrap_err()
            .into_iter()
            .map(|error| error.field)
            .collect()
    }

    #[test]
    fn an_old_create_has_the_old_defaults() {
        let Value::Object(body) = json!({"name": "web", "unknown": 1}) else {
            panic!()
        };
        let (name, spec) = create_request(&body).unwrap();
        assert_eq!(name.as_str(), "web");
        assert_eq!(
            spec,
            VmSpec {
                image: "22.04".into(),
                cpus: 1,
                memory: ByteSize::gib(1),
                disk: ByteSize::gib(5),
                ..VmSpec::default()
            }
        );
    }

    #[test]
    fn a_wrong_field_of_an_old_create_is_named() {
        assert_eq!(fields(json!({})), ["name"]);
        assert_eq!(fields(json!({"name": "--all"})), ["name"]);
        assert_eq!(
            fields(json!({"name": "a", "memory": "abc", "disk": [], "cpus": -1})),
            ["cpus", "memory", "disk"]
        );
        assert_eq!(fields(json!({"name": "a", "image": 7})), ["image"]);
    }
}
