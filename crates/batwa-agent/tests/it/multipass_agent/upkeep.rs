//! What an agent does about Multipass' VMs by itself.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

impl Lab {
    /// Changes settings that must be taken.
    async fn set(&self, vm: &str, change: Value) -> Value {
        let path = format!("/api/v1/vms/{vm}");
        let (status, body) = self.call(Method::PATCH, &path, Some(change)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// What it began by itself, as who began what, the oldest first.
    async fn by_itself(&self) -> Vec<(String, String)> {
        let body: Value = self.get("/api/v1/operations").await;
        let mut all: Vec<Operation> = serde_json::from_value(body["items"].clone()).unwrap();
        all.reverse();
        all.into_iter()
            .filter_map(|operation| {
                let what = format!("{} {}", operation.kind, operation.subject.name());
                Some((operation.requested_by?, what))
            })
            .collect()
    }

    async fn until_notice(&self, vm: &str, wanted: NoticeKind) {
        let until = Instant::now() + DEADLINE;
        loop {
            let seen = self.vm(vm).await.unwrap();
            if seen.notices.iter().any(|notice| notice.kind == wanted) {
                return;
            }
            assert!(Instant::now() < until, "{seen:?}, no {wanted:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn was(who: &str, what: &str) -> (String, String) {
    (who.to_owned(), what.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_ends_in_multipass_trash_and_nobody_else_is_touched() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.has(&["web", "other"]).await;
    let clock = Clock::standing_still("one");
    let lab = Lab::at(&multipass, state.path(), clock.clone());
    lab.until_vm("web", VmState::Running).await;
    let wanted = json!({"lifetime": {"after_s": 3600, "end": "delete"}});
    lab.set("web", wanted).await;
    clock.advance(50 * MINUTE);
    lab.until_notice("web", NoticeKind::LifetimeEnds).await;
    assert_eq!(lab.by_itself().await, [], "it is only warned of");
    clock.advance(10 * MINUTE);
    let web = lab.until_vm("web", VmState::Deleted).await;
    assert_eq!(web.driver, DriverKind::Multipass);
    assert_eq!(multipass.state("web").await, "Deleted");
    assert_eq!(multipass.state("other").await, "Running");
    assert_eq!(
        lab.by_itself().await,
        [was("agent: lifetime", "delete web")]
    );
    assert_eq!(multipass.count("delete"), 1);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_does_nothing_by_its_load_is_stopped_and_one_that_works_is_not() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.has(&["idle", "works"]).await;
    let clock = Clock::standing_still("one");
    let lab = Lab::at(&multipass, state.path(), clock.clone());
    // The stand-in's VMs have a load of a quarter of a processor.
    for (vm, below_percent) in [("idle", 30), ("works", 20)] {
        lab.until_vm(vm, VmState::Running).await;
        let wanted = json!({"idle_stop": {"after_s": 600, "below_percent": below_percent}});
        lab.set(vm, wanted).await;
    }
    let until = Instant::now() + DEADLINE;
    while lab.vm("idle").await.unwrap().state != VmState::Stopped {
        assert!(Instant::now() < until, "{:?}", lab.vm("idle").await);
        clock.advance(MINUTE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(multipass.state("idle").await, "Stopped");
    assert_eq!(multipass.state("works").await, "Running");
    let stopped = [was("agent: idle", "stop idle")];
    assert_eq!(lab.by_itself().await, stopped);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vms_start_after_the_machines_boot_and_those_that_multipass_starts_itself_are_left_to_it() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.has(&["up"]).await;
    multipass.has_stopped(&["db", "web", "other"]).await;
    let lab = Lab::at(&multipass, state.path(), Clock::standing_still("one"));
    for (vm, order) in [("db", 1), ("web", 2), ("up", 3)] {
        lab.until_vm(
            vm,
            match vm {
                "up" => VmState::Running,
                _ => VmState::Stopped,
            },
        )
        .await;
        lab.set(vm, json!({"autostart": {"order": order}})).await;
    }
    lab.stop().await;
    let calls = multipass.calls().len();

    let lab = Lab::at(&multipass, state.path(), Clock::standing_still("two"));
    for vm in ["db", "web", "up"] {
        lab.until_vm(vm, VmState::Running).await;
    }
    let begun = lab.by_itself().await;
    let starts = [
        was("agent: autostart", "start db"),
        was("agent: autostart", "start web"),
    ];
    assert_eq!(begun, starts);
    assert_eq!(multipass.state("other").await, "Stopped");
    let mut asked = multipass.lines_after(calls);
    asked.retain(|line| line.starts_with("start"));
    assert_eq!(asked, ["start db --timeout 20", "start web --timeout 20"]);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_go_when_multipass_has_not_listed_their_vm_for_a_minute() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.has(&["web", "db"]).await;
    let clock = Clock::standing_still("one");
    let lab = Lab::at(&multipass, state.path(), clock.clone());
    let ends = json!({"lifetime": {"after_s": 3600, "end": "delete"}});
    for vm in ["web", "db"] {
        lab.until_vm(vm, VmState::Running).await;
        lab.set(vm, ends.clone()).await;
    }
    multipass.run(&["delete", "--purge", "web"]).await;
    let until = Instant::now() + DEADLINE;
    let page = state.path().join("upkeep/vms/web.json");
    // The minute begins when it is missed.
    while page.exists() {
        assert!(Instant::now() < until, "they are kept");
        clock.advance(Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    multipass.has(&["web"]).await;
    let web = lab.until_vm("web", VmState::Running).await;
    assert!(web.settings.is_default(), "{web:?}");
    let db = lab.vm("db").await.unwrap();
    assert!(db.settings.lifetime.is_some(), "{db:?}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_restart_is_promised_where_a_crash_cannot_be_told_from_a_stop() {
    let (multipass, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    multipass.has(&["web"]).await;
    let lab = Lab::new(&multipass, state.path());
    lab.until_vm("web", VmState::Running).await;
    let change = Some(json!({"restart": "on_crash", "protected": true}));
    let (status, body) = lab.call(Method::PATCH, "/api/v1/vms/web", change).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    assert_eq!(body["errors"][0]["field"], "settings.restart");
    let web = lab.vm("web").await.unwrap();
    assert!(web.settings.is_default(), "{web:?}");
    lab.stop().await;
}
