//! What an agent does about VMs by itself, with fake VMs and a clock that the tests move.

use std::time::Duration;

use batwa_agent::{Clock, FakeSettings, driver::fake::StepMode};
use batwa_api::{
    Timestamp,
    id::OperationId,
    operation::{Operation, OperationKind, OperationState},
    vm::VmState,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::{Answer, DEADLINE, Lab, vm_name};

const MINUTE: Duration = Duration::from_secs(60);

/// An agent in boot `boot` on a folder, whose time is `clock`'s.
async fn lab_on(dir: TempDir, fake: FakeSettings, clock: &Clock) -> Lab {
    let clock = clock.clone();
    Lab::on(dir, fake, move |config| config.clock = clock).await
}

async fn lab(clock: &Clock) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    lab_on(dir, FakeSettings::instant(), clock).await
}

impl Lab {
    async fn change(&self, vm: &str, change: Value) -> Answer {
        let path = format!("/api/v1/vms/{vm}");
        self.call(Method::PATCH, &path, Some(change)).await
    }

    /// Changes settings that must be taken.
    async fn set(&self, vm: &str, change: Value) -> Value {
        let answer = self.change(vm, change).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.body
    }

    async fn create(&self, vm: &str) {
        let create = json!({"kind": "create", "spec": {"image": "tiny", "disk": "1G"}});
        let created = self.run(vm, create).await;
        assert_eq!(created.state, OperationState::Succeeded, "{created:?}");
    }

    async fn operations(&self) -> Vec<Operation> {
        let items = self.get("/api/v1/operations").await.body["items"].take();
        serde_json::from_value(items).unwrap()
    }

    /// The operations that the agent began by itself, as `who: kind`, the oldest first.
    async fn by_itself(&self) -> Vec<(String, OperationKind)> {
        let mut all = self.operations().await;
        all.reverse();
        all.into_iter()
            .filter_map(|operation| Some((operation.requested_by?, operation.kind)))
            .collect()
    }
}

fn notices(vm: &Value) -> Vec<&str> {
    let list = vm["notices"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .map(|notice| notice["kind"].as_str().unwrap())
        .collect()
}

fn is(vm: &Value, state: &str) -> bool {
    vm["state"] == state && vm["operations"] == json!([])
}

#[tokio::test]
async fn a_protected_vm_is_not_deleted_on_any_path() {
    let lab = lab(&Clock::of_the_machine()).await;
    lab.create("web").await;
    let vm = lab.set("web", json!({"protected": true})).await;
    assert_eq!(vm["settings"]["protected"], true);
    // Read your writes, and the reason is on the button.
    let vm = lab.get("/api/v1/vms/web").await.body;
    let reason = vm["actions"]["delete"].as_str().unwrap();
    assert!(reason.contains("protected"), "{reason}");
    assert_eq!(vm["actions"]["purge"], vm["actions"]["delete"]);
    assert_eq!(vm["actions"]["stop"], Value::Null);

    let taken = lab
        .run(
            "web",
            json!({"kind": "snapshot", "name": "one", "stop": true}),
        )
        .await;
    assert_eq!(taken.state, OperationState::Succeeded, "{taken:?}");
    for request in [
        json!({"kind": "delete"}),
        json!({"kind": "purge"}),
        json!({"kind": "restore", "snapshot": "one", "discard": true, "stop": true}),
    ] {
        let refused = lab.start("web", request).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
        assert_eq!(refused.body["code"], "illegal_state");
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains("protected from deletion"), "{detail}");
    }
    let old = lab.post("/api/vm/delete", json!({"name": "web"})).await;
    assert_eq!(old.status, StatusCode::CONFLICT, "{}", old.body);
    // What keeps the disk is nobody's loss.
    let back = json!({"kind": "restore", "snapshot": "one", "stop": true});
    assert_eq!(lab.run("web", back).await.state, OperationState::Succeeded);

    lab.set("web", json!({"protected": false})).await;
    let purged = lab.run("web", json!({"kind": "purge"})).await;
    assert_eq!(purged.state, OperationState::Succeeded);
}

#[tokio::test]
async fn protection_that_comes_while_a_delete_waits_is_in_time() {
    let lab = Lab::new(FakeSettings {
        mode: StepMode::Stepped,
        ..FakeSettings::instant()
    })
    .await;
    lab.driver
        .change_behind(&vm_name("web"), Some(VmState::Stopped))
        .unwrap();
    lab.vm_when("web", |vm| is(vm, "stopped")).await;
    let start = OperationId::new();
    lab.put(start, "web", json!({"kind": "start"})).await;
    let delete = OperationId::new();
    let accepted = lab.put(delete, "web", json!({"kind": "delete"})).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.body);
    lab.set("web", json!({"protected": true})).await;
    lab.driver.step(100);
    let ended = lab.finished(delete).await;
    assert_eq!(ended.state, OperationState::Failed, "{ended:?}");
    let detail = ended.error.unwrap().detail;
    assert!(detail.contains("protected from deletion"), "{detail}");
    assert_eq!(lab.driver.state_of(&vm_name("web")), Some(VmState::Running));
}

#[tokio::test]
async fn bad_settings_change_nothing_and_name_their_field() {
    let lab = lab(&Clock::of_the_machine()).await;
    lab.create("web").await;
    lab.set("web", json!({"protected": true})).await;
    for (change, field) in [
        (json!({"lifetime": {"after_s": 1}}), "settings.lifetime"),
        (
            json!({"lifetime": {"after_s": 3600, "end": "delete"}}),
            "settings.lifetime",
        ),
        (
            json!({"autostart": {"order": 10_000}, "restart": "on_crash"}),
            "settings.autostart",
        ),
        (json!({"idle_stop": {"after_s": 1}}), "settings.idle_stop"),
    ] {
        let refused = lab.change("web", change.clone()).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{change}");
        assert_eq!(refused.body["errors"][0]["field"], field, "{change}");
    }
    for malformed in [json!({"protcted": false}), json!({"restart": "always"})] {
        let refused = lab.change("web", malformed.clone()).await;
        assert!(refused.status.is_client_error(), "{malformed}");
    }
    let vm = lab.get("/api/v1/vms/web").await.body;
    assert_eq!(vm["settings"]["revision"], 1, "{vm}");
    assert_eq!(vm["settings"]["restart"], "never");
    let nobody = lab.change("nobody", json!({"protected": true})).await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn settings_survive_kill_9_and_go_with_the_vm() {
    let clock = Clock::of_the_machine();
    let lab = lab(&clock).await;
    lab.create("web").await;
    let wanted = json!({
        "protected": true,
        "autostart": {"order": 3, "delay_s": 10},
        "restart": "on_crash",
        "idle_stop": {"after_s": 600, "below_percent": 7},
    });
    let set = lab.set("web", wanted).await["settings"].take();
    let dir = lab.kill().await;
    let lab = lab_on(dir, FakeSettings::instant(), &clock).await;
    let vm = lab.vm_when("web", |vm| !vm.is_null()).await;
    assert_eq!(vm["settings"], set);
    assert!(vm["actions"]["purge"].is_string(), "{vm}");

    // A clone is run as its original is, and is nobody's to keep.
    let cloned = lab
        .run(
            "web",
            json!({"kind": "clone", "name": "twin", "stop": true}),
        )
        .await;
    assert_eq!(cloned.state, OperationState::Succeeded, "{cloned:?}");
    let twin = lab.get("/api/v1/vms/twin").await.body["settings"].take();
    assert_eq!(twin["restart"], "on_crash");
    assert_eq!(twin["idle_stop"], set["idle_stop"]);
    assert_eq!(
        (&twin["protected"], &twin["autostart"]),
        (&json!(false), &Value::Null)
    );

    // Another VM of the same name begins with none.
    lab.set("web", json!({"protected": false})).await;
    lab.run("web", json!({"kind": "purge"})).await;
    lab.create("web").await;
    let vm = lab.get("/api/v1/vms/web").await.body;
    assert_eq!(vm["settings"], Value::Null, "{vm}");
    let dir = lab.stop().await;
    assert!(!dir.path().join("upkeep/vms/web.json").exists());
}

#[tokio::test]
async fn a_vm_is_made_with_its_settings_and_its_lifetime_begins_when_it_is_up() {
    let clock = Clock::standing_still("one");
    let stepped = FakeSettings {
        mode: StepMode::Stepped,
        ..FakeSettings::instant()
    };
    let dir = tempfile::tempdir().unwrap();
    let lab = lab_on(dir, stepped, &clock).await;
    let settings = json!({
        "lifetime": {"after_s": 3600, "end": "delete"},
        "autostart": {"order": 7},
        "restart": "on_crash",
        "idle_stop": {"after_s": 600},
    });
    let spec = json!({"image": "tiny", "disk": "1G", "settings": settings});
    let id = OperationId::new();
    let create = json!({"kind": "create", "spec": spec});
    let accepted = lab.put(id, "web", create).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.body);
    // From the first sight of it on.
    let vm = lab.vm_when("web", |vm| !vm.is_null()).await;
    assert_eq!(vm["state"], "creating");
    let first = vm["settings"].clone();
    assert_eq!(first["autostart"]["order"], 7, "{first}");
    assert_eq!(first["restart"], "on_crash");
    assert_eq!(first["idle_stop"]["below_percent"], 5);
    let ends = |settings: &Value| -> Timestamp {
        serde_json::from_value(settings["lifetime"]["ends_at"].clone()).unwrap()
    };

    clock.advance(30 * MINUTE);
    lab.driver.step(100);
    assert_eq!(lab.finished(id).await.state, OperationState::Succeeded);
    let vm = lab
        .vm_when("web", |vm| ends(&vm["settings"]) > ends(&first))
        .await;
    let later = ends(&vm["settings"]).duration_since(ends(&first));
    assert_eq!(later.as_mins(), 30, "making it does not count: {vm}");
    clock.advance(59 * MINUTE);
    lab.vm_when("web", |vm| notices(vm) == ["lifetime_ends"])
        .await;
    clock.advance(MINUTE);
    lab.vm_when("web", |vm| is(vm, "deleted")).await;
}

#[tokio::test]
async fn settings_that_cannot_be_kept_or_whose_vm_is_not_made_leave_nothing() {
    let clock = Clock::of_the_machine();
    let dir = tempfile::tempdir().unwrap();
    let lab = lab_on(
        dir,
        "vms=0,latency=0ms,fail=create:1".parse().unwrap(),
        &clock,
    )
    .await;
    let create = |settings: Value| json!({"kind": "create", "spec": {"image": "tiny", "disk": "1G", "settings": settings}});
    for (settings, field) in [
        (json!({"lifetime": {"after_s": 1}}), "settings.lifetime"),
        (
            json!({"autostart": {"order": 10_000}}),
            "settings.autostart",
        ),
        (
            json!({"protected": true, "lifetime": {"after_s": 60, "end": "delete"}}),
            "settings.lifetime",
        ),
    ] {
        let refused = lab.start("web", create(settings.clone())).await;
        assert_eq!(
            refused.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{settings}"
        );
        assert_eq!(refused.body["errors"][0]["field"], field, "{settings}");
    }
    let misspelt = lab.start("web", create(json!({"protcted": true}))).await;
    assert!(misspelt.status.is_client_error(), "{}", misspelt.body);
    let failed = lab.run("web", create(json!({"protected": true}))).await;
    assert_eq!(failed.state, OperationState::Failed, "{failed:?}");
    assert_eq!(lab.vm_names().await, [""; 0]);
    let dir = lab.stop().await;
    assert!(!dir.path().join("upkeep/vms/web.json").exists());
}

#[tokio::test]
async fn another_vm_of_the_same_name_that_somebody_made_has_none_of_them() {
    let clock = Clock::standing_still("one");
    let lab = lab(&clock).await;
    lab.create("web").await;
    let ends = json!({"lifetime": {"after_s": 3600, "end": "delete"}});
    lab.set("web", ends).await;
    let web = vm_name("web");
    lab.driver.change_behind(&web, None).unwrap();
    lab.driver
        .change_behind(&web, Some(VmState::Running))
        .unwrap();
    let vm = lab
        .vm_when("web", |vm| vm["settings"].is_null() && is(vm, "running"))
        .await;
    assert!(notices(&vm).is_empty(), "{vm}");
    clock.advance(100 * MINUTE);
    // It has been looked at when this is taken in.
    let vm = lab.set("web", json!({"protected": true})).await;
    assert_eq!(vm["settings"]["revision"], 1, "{vm}");
    assert_eq!(lab.by_itself().await, []);
    let dir = lab.kill().await;
    let lab = lab_on(dir, FakeSettings::instant(), &clock).await;
    lab.vm_when("web", |vm| vm["settings"]["protected"] == true)
        .await;
}

#[tokio::test]
async fn a_lifetime_warns_stops_and_can_be_extended() {
    let clock = Clock::standing_still("one");
    let lab = lab(&clock).await;
    lab.create("web").await;
    let vm = lab.set("web", json!({"lifetime": {"after_s": 3600}})).await;
    assert_eq!(vm["settings"]["lifetime"]["end"], "stop");
    assert!(notices(&vm).is_empty());
    clock.advance(50 * MINUTE);
    lab.vm_when("web", |vm| notices(vm) == ["lifetime_ends"])
        .await;
    lab.set("web", json!({"lifetime": {"after_s": 3600}})).await;
    lab.vm_when("web", |vm| notices(vm).is_empty()).await;
    clock.advance(59 * MINUTE);
    lab.vm_when("web", |vm| notices(vm) == ["lifetime_ends"])
        .await;
    assert_eq!(lab.by_itself().await, [], "it was extended");
    clock.advance(MINUTE);
    let vm = lab
        .vm_when("web", |vm| {
            is(vm, "stopped") && vm["settings"]["lifetime"].is_null()
        })
        .await;
    assert!(notices(&vm).is_empty(), "{vm}");
    let stop = ("agent: lifetime".to_owned(), OperationKind::Stop);
    assert_eq!(lab.by_itself().await, [stop]);
    // Its time is over: whoever starts it again keeps it.
    lab.run("web", json!({"kind": "start"})).await;
    clock.advance(1000 * MINUTE);
    lab.set("web", json!({"protected": true})).await;
    lab.vm_when("web", |vm| is(vm, "running")).await;
    assert_eq!(lab.by_itself().await.len(), 1);
}

#[tokio::test]
async fn a_lifetime_that_ends_while_the_agent_is_dead_ends_when_it_is_back_and_once() {
    let clock = Clock::standing_still("one");
    let stepped = FakeSettings {
        mode: StepMode::Stepped,
        ..FakeSettings::instant()
    };
    let dir = tempfile::tempdir().unwrap();
    let lab = lab_on(dir, stepped.clone(), &clock).await;
    lab.driver
        .change_behind(&vm_name("web"), Some(VmState::Running))
        .unwrap();
    lab.vm_when("web", |vm| is(vm, "running")).await;
    let wanted = json!({"lifetime": {"after_s": 60, "end": "delete"}});
    lab.set("web", wanted).await;
    let dir = lab.kill().await;
    clock.advance(2 * MINUTE);

    // Killed again once it has begun, and again in the middle of the work.
    let lab = lab_on(dir, stepped.clone(), &clock).await;
    lab.vm_when("web", |vm| vm["operations"] != json!([])).await;
    let dir = lab.kill().await;
    let lab = lab_on(dir, stepped.clone(), &clock).await;
    lab.driver.step(1);
    lab.vm_when("web", |_| lab.driver.steps_left() == 0).await;
    let dir = lab.kill().await;
    let lab = lab_on(dir, stepped, &clock).await;
    lab.driver.step(100);
    let vm = lab
        .vm_when("web", |vm| {
            is(vm, "deleted") && vm["settings"]["lifetime"].is_null()
        })
        .await;
    assert!(notices(&vm).is_empty(), "{vm}");
    let delete = ("agent: lifetime".to_owned(), OperationKind::Delete);
    assert_eq!(lab.by_itself().await, [delete], "one, through three deaths");
}

#[tokio::test]
async fn a_crashed_vm_comes_back_after_a_pause_and_a_stopped_one_does_not() {
    let clock = Clock::standing_still("one");
    let lab = lab(&clock).await;
    for vm in ["web", "db", "other"] {
        lab.create(vm).await;
    }
    for vm in ["web", "db"] {
        lab.set(vm, json!({"restart": "on_crash"})).await;
    }
    lab.run("db", json!({"kind": "stop"})).await;
    for vm in ["web", "other"] {
        lab.driver.crash(&vm_name(vm)).unwrap();
    }
    lab.vm_when("web", |vm| is(vm, "stopped") && notices(vm) == ["crashed"])
        .await;
    // Its agent dies meanwhile, and knows of it all the same.
    let dir = lab.kill().await;
    let lab = lab_on(dir, FakeSettings::instant(), &clock).await;
    lab.vm_when("web", |vm| notices(vm) == ["crashed"]).await;
    assert_eq!(lab.by_itself().await, [], "not before the pause is over");
    clock.advance(Duration::from_secs(10));
    lab.vm_when("web", |vm| is(vm, "running") && notices(vm).is_empty())
        .await;
    let start = ("agent: crash".to_owned(), OperationKind::Start);
    assert_eq!(lab.by_itself().await, [start]);
    for vm in ["db", "other"] {
        lab.vm_when(vm, |vm| is(vm, "stopped")).await;
    }
    // What somebody with another tool stops is no crash.
    lab.driver
        .change_behind(&vm_name("web"), Some(VmState::Stopped))
        .unwrap();
    lab.vm_when("web", |vm| is(vm, "stopped")).await;
    clock.advance(10 * MINUTE);
    let vm = lab.set("web", json!({"protected": true})).await;
    assert!(notices(&vm).is_empty(), "{vm}");
    assert_eq!(lab.by_itself().await.len(), 1);
}

#[tokio::test]
async fn a_vm_that_keeps_crashing_is_given_up_and_says_so() {
    let clock = Clock::standing_still("one");
    let lab = lab(&clock).await;
    lab.create("web").await;
    lab.set("web", json!({"restart": "on_crash"})).await;
    let web = vm_name("web");
    for _ in 0..5 {
        lab.driver.crash(&web).unwrap();
        lab.vm_when("web", |vm| notices(vm) == ["crashed"]).await;
        clock.advance(3 * MINUTE);
        lab.vm_when("web", |vm| is(vm, "running") && notices(vm).is_empty())
            .await;
    }
    lab.driver.crash(&web).unwrap();
    lab.vm_when("web", |vm| notices(vm) == ["given_up"]).await;
    clock.advance(100 * MINUTE);
    let vm = lab.set("web", json!({"protected": true})).await;
    assert!(is(&vm, "stopped") && notices(&vm) == ["given_up"], "{vm}");
    assert_eq!(lab.by_itself().await.len(), 5);
    lab.run("web", json!({"kind": "start"})).await;
    lab.vm_when("web", |vm| is(vm, "running") && notices(vm).is_empty())
        .await;
}

#[tokio::test]
async fn vms_start_after_a_boot_by_order_and_never_after_a_restart_of_the_agent() {
    let first = Clock::standing_still("one");
    let lab = lab(&first).await;
    for (vm, settings) in [
        ("db", json!({"autostart": {"order": 1}})),
        ("web", json!({"autostart": {"order": 2}})),
        ("late", json!({"autostart": {"order": 2, "delay_s": 300}})),
        ("other", json!({"protected": true})),
    ] {
        lab.create(vm).await;
        lab.set(vm, settings).await;
        lab.run(vm, json!({"kind": "stop"})).await;
    }
    let dir = lab.kill().await;
    let lab = lab_on(dir, FakeSettings::instant(), &first).await;
    lab.vm_when("db", |vm| is(vm, "stopped")).await;
    first.advance(10 * MINUTE);
    lab.set("other", json!({"protected": false})).await;
    assert_eq!(lab.by_itself().await, [], "the agent alone was restarted");
    let dir = lab.kill().await;

    // The machine boots; the agent is killed while the first is on its way.
    let second = Clock::standing_still("two");
    let stepped = FakeSettings {
        mode: StepMode::Stepped,
        ..FakeSettings::instant()
    };
    let lab = lab_on(dir, stepped.clone(), &second).await;
    lab.vm_when("db", |vm| vm["operations"] != json!([])).await;
    assert!(is(&lab.get("/api/v1/vms/web").await.body, "stopped"));
    let dir = lab.kill().await;
    let lab = lab_on(dir, stepped, &second).await;
    lab.driver.step(100);
    for vm in ["db", "web"] {
        lab.vm_when(vm, |vm| is(vm, "running")).await;
    }
    second.advance(299 * Duration::from_secs(1));
    lab.set("other", json!({"protected": true})).await;
    assert!(is(&lab.get("/api/v1/vms/late").await.body, "stopped"));
    second.advance(Duration::from_secs(1));
    lab.vm_when("late", |vm| is(vm, "running")).await;
    let mut starts = lab.operations().await;
    starts.retain(|operation| operation.requested_by.is_some());
    starts.sort_by_key(|operation| operation.created_at);
    let order: Vec<&str> = starts.iter().map(|start| start.subject.name()).collect();
    assert_eq!(order, ["db", "web", "late"], "each once");
    assert!(is(&lab.get("/api/v1/vms/other").await.body, "stopped"));
}

#[tokio::test]
async fn a_vm_that_does_nothing_is_stopped_and_one_with_a_terminal_or_work_is_not() {
    let clock = Clock::standing_still("one");
    let lab = lab(&clock).await;
    for vm in ["idle", "works", "watched"] {
        lab.create(vm).await;
        lab.set(vm, json!({"idle_stop": {"after_s": 600}})).await;
    }
    lab.driver.work(&vm_name("works"), 80.0);
    let terminal = json!({"vm": "watched", "kind": "shell", "cols": 80, "rows": 24});
    let opened = lab.post("/api/v1/terminals", terminal).await;
    assert!(opened.status.is_success(), "{}", opened.body);
    // A measurement that finds it idle begins its time; when that is, is the agent's to say.
    let stopped = async {
        while !is(&lab.get("/api/v1/vms/idle").await.body, "stopped") {
            clock.advance(MINUTE);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, stopped).await.unwrap();
    lab.vm_when("idle", |vm| is(vm, "stopped") && notices(vm).is_empty())
        .await;
    let stop = ("agent: idle".to_owned(), OperationKind::Stop);
    assert_eq!(lab.by_itself().await, [stop]);
    for vm in ["works", "watched"] {
        let vm = lab.get(&format!("/api/v1/vms/{vm}")).await.body;
        assert!(is(&vm, "running") && notices(&vm).is_empty(), "{vm}");
    }
}

#[tokio::test]
async fn the_trash_is_emptied_where_that_is_wished() {
    let clock = Clock::standing_still("one");
    let moved = clock.clone();
    let lab = Lab::with(FakeSettings::instant(), move |config| {
        config.clock = moved;
        config.trash_kept = Some(60 * MINUTE);
    })
    .await;
    for vm in ["old", "kept"] {
        lab.create(vm).await;
        lab.run(vm, json!({"kind": "delete"})).await;
    }
    lab.set("kept", json!({"protected": true})).await;
    lab.vm_when("old", |vm| notices(vm) == ["purges"]).await;
    lab.vm_when("kept", |vm| notices(vm).is_empty()).await;
    clock.advance(60 * MINUTE);
    lab.vm_when("old", Value::is_null).await;
    let purge = ("agent: trash".to_owned(), OperationKind::Purge);
    assert_eq!(lab.by_itself().await, [purge]);
    lab.vm_when("kept", |vm| is(vm, "deleted")).await;
}
