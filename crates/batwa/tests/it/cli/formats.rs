//! `--format`: the same data for people and for programs.

use serde_json::Value;

use super::{client, json};
use crate::lab::Lab;

#[tokio::test]
async fn every_list_and_info_speaks_json_yaml_and_csv() {
    let lab = Lab::up().await;
    lab.create_vm("local", "web").await;
    let operations = json(&lab, &["operations"]).await;
    let id = operations["items"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for (args, heading) in [
        (vec!["ls"], "vm,state,ipv4,image,cpus,memory,disk,seen"),
        (vec!["info", "web"], "field,value"),
        (
            vec!["snapshots", "web"],
            "snapshot,parent,taken,disk,comment",
        ),
        (
            vec!["agents"],
            "id,status,vms,cpus,memory,drivers,address,seen",
        ),
        (vec!["agents", "info", "local"], "field,value"),
        (vec!["agents", "links", "local"], "at,status,reason"),
        (vec!["images"], "image,"),
        (vec!["operations"], "id,kind,for,state,by,asked"),
        (vec!["operations", "show", &id], "field,value"),
        (vec!["operations", "log", &id], "at,text"),
        (vec!["join-token", "list"], "id,status,used,"),
        (
            vec!["templates"],
            "name,variables,owner,changed,description",
        ),
        (vec!["ssh-keys"], "id,name,fingerprint,added"),
    ] {
        let text = async |format: &str| {
            let ended = client(&lab, &args).args(["--format", format]).run().await;
            assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
            ended.stdout
        };
        let of_json: Value = serde_json::from_str(&text("json").await).expect("JSON");
        let of_yaml: Value = serde_saphyr::from_str(&text("yaml").await).expect("YAML");
        assert_eq!(shape(&of_yaml), shape(&of_json), "{args:?}");
        let csv = text("csv").await;
        let first = csv.lines().next().expect("headings");
        assert!(first.starts_with(heading), "{args:?}: {first}");
        if let Some(items) = of_json["items"].as_array() {
            assert_eq!(csv.lines().count(), items.len() + 1, "{args:?}: {csv}");
        }
        assert!(!text("table").await.is_empty() || csv.lines().count() == 1);
    }
    let csv = client(&lab, &["ls", "--format", "csv"]).run().await.stdout;
    let row: Vec<_> = csv.lines().nth(1).expect("a row").split(',').collect();
    assert_eq!(&row[..2], ["local/web", "running"]);
    assert!(row[5].parse::<u64>().is_ok(), "bytes: {csv}");
    assert!(row[7].ends_with('Z'), "a time: {csv}");

    // Commands that act print the finished operation.
    let stopped = client(&lab, &["stop", "web", "--format", "yaml"])
        .run()
        .await;
    let stopped: Value = serde_saphyr::from_str(&stopped.stdout).expect("YAML");
    assert_eq!(stopped["state"], "succeeded");
}

/// What does not change from one answer to the next.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), shape(value)))
            .collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::Number(_) => Value::from("a number"),
        Value::String(text) if text.ends_with('Z') => Value::from("a time"),
        other => other.clone(),
    }
}

#[tokio::test]
async fn an_operation_is_followed_to_its_end() {
    let lab = Lab::up_with("vms=0,latency=100ms").await;
    let launch = [
        "launch",
        "tiny",
        "--name",
        "web",
        "--memory",
        "256M",
        "--no-wait",
    ];
    let id = client(&lab, &launch).run().await.stdout.trim().to_owned();
    let followed = client(&lab, &["operations", "follow", &id]).run().await;
    assert_eq!(followed.code, Some(0), "{}", followed.stderr);
    assert!(
        followed.stderr.contains("create local/web: done"),
        "{}",
        followed.stderr
    );
    let log = client(&lab, &["operations", "log", &id]).run().await;
    assert_eq!(followed.stdout, log.stdout, "each line once");
}

#[tokio::test]
async fn a_word_of_ones_own_makes_one_vm_however_often_it_is_asked() {
    let lab = Lab::up().await;
    let launch = [
        "launch",
        "tiny",
        "--name",
        "web",
        "--memory",
        "256M",
        "--idempotency-key",
        "once",
    ];
    for _ in 0..2 {
        let ended = client(&lab, &launch).run().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    let mut other = launch.to_vec();
    other[3] = "web-2";
    let ended = client(&lab, &other).run().await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert_eq!(
        json(&lab, &["ls"]).await["items"].as_array().map(Vec::len),
        Some(1)
    );
}
