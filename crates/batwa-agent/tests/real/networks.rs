//! A VM of QEMU's on a bridge of this machine, in namespaces of the test's own: a bridge there, and `/etc/qemu` there.

use std::{path::Path, time::Duration};

use batwa_agent::{
    driver::{Driver, Progress, StopMode, command::Command},
    policy::PolicyFile,
};
use batwa_api::{policy::Policy, vm::VmSpec};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::lab::{Lab, PATIENCE, obstacle, tiny, vm, within};

/// Says to this program that it is inside.
const INSIDE: &str = "INSIDE_NAMESPACES";
const MAC: &str = "52:54:00:00:00:07";
const HELPERS: [&str; 2] = [
    "/usr/lib/qemu/qemu-bridge-helper",
    "/usr/libexec/qemu-bridge-helper",
];

/// Makes the bridge and what QEMU's helper goes by, then runs the rest as it is given.
const SET_UP: &str = r#"set -e
mount -t tmpfs -o mode=755 none "$1"
cp -a /etc "$1/etc"
mkdir -p "$1/etc/qemu"
echo "allow br0" >"$1/etc/qemu/bridge.conf"
mount --bind "$1/etc" /etc
# The old one tells of the networks outside.
mount -t sysfs none /sys
ip link set lo up
ip link add br0 type bridge
ip addr add 10.99.0.1/24 dev br0
ip link set br0 up
shift
exec "$@""#;

fn policy(bridges: &[&str]) -> PolicyFile {
    PolicyFile::fixed(Policy {
        bridges: bridges.iter().map(|name| (*name).to_owned()).collect(),
        ..Policy::default()
    })
}

#[tokio::test]
async fn a_vm_on_a_bridge_is_reached_there_and_keeps_its_card() {
    if std::env::var_os(INSIDE).is_some() {
        return on_a_bridge().await;
    }
    if let Some(why) = obstacle() {
        println!("SKIPPED: {why}");
        return;
    }
    if !HELPERS.iter().any(|helper| Path::new(helper).exists()) {
        println!("SKIPPED: qemu-bridge-helper is not installed");
        return;
    }
    let alone = ["--net", "--mount"];
    if Command::new("unshare")
        .args(alone)
        .arg("true")
        .run()
        .await
        .is_err()
    {
        println!("SKIPPED: no namespaces can be made here");
        return;
    }
    // There is no way to an image server inside.
    let lab = Lab::new();
    lab.create("first", tiny()).await.unwrap();
    drop(lab);
    let folder = tempfile::tempdir().unwrap();
    let mut inside = Command::new("unshare")
        .args(alone)
        .args(["sh", "-c", SET_UP, "sh"])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "networks::a_vm_on_a_bridge_is_reached_there_and_keeps_its_card",
            "--exact",
            "--nocapture",
        ])
        .env(INSIDE, "1")
        .deadline(PATIENCE);
    // Ours are not handed on by themselves.
    for name in ["BATWA_TEST_CACHE", "BATWA_TEST_QEMU"] {
        if let Some(value) = std::env::var_os(name) {
            inside = inside.env(name, value);
        }
    }
    let ended = inside.output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}{}", ended.stderr);
    assert!(said.contains("1 passed"), "{said}");
}

/// What comes from a port of the VM, by the bridge alone.
async fn heard_by_the_bridge() -> String {
    let ask = async {
        loop {
            let Ok(mut stream) = TcpStream::connect("10.99.0.2:8080").await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.unwrap();
            return said;
        }
    };
    within(ask).await
}

async fn on_a_bridge() {
    let mut lab = Lab::new();
    lab.reopen(|options| options.policy = policy(&["br0"]));
    let listed = lab.driver().networks().await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(
        (listed[0].name.as_str(), &listed[0].refusal),
        ("br0", &None)
    );

    for (card, says) in [("br1", "under"), ("lo", "under")] {
        let spec = VmSpec {
            networks: vec![card.parse().unwrap()],
            ..tiny()
        };
        let refused = lab.create("refused", spec).await.unwrap_err();
        assert!(format!("{refused:?}").contains(says), "{refused:?}");
    }
    let spec = VmSpec {
        networks: vec![format!("br0,mode=manual,mac={MAC}").parse().unwrap()],
        ..tiny()
    };
    lab.create("bridged", spec).await.unwrap();
    let (name, quiet) = (vm("bridged"), Progress::ignored());
    let address = "cat /sys/class/net/eth1/address";
    let mut shell = lab.shell("bridged").await;
    assert_eq!(shell.run(address).await, MAC);
    let serve = "ifconfig eth1 10.99.0.2 up && mkdir -p /www && echo by-the-bridge >/www/index.html && httpd -p 10.99.0.2:8080 -h /www && echo serves";
    assert_eq!(shell.run(serve).await, "serves");
    assert!(heard_by_the_bridge().await.contains("by-the-bridge"));

    // What runs in it goes on with its memory, and so does the card.
    within(lab.driver().suspend(&name, &quiet)).await.unwrap();
    within(lab.driver().start(&name, &quiet)).await.unwrap();
    assert!(heard_by_the_bridge().await.contains("by-the-bridge"));

    // Under a policy that no longer has the bridge it starts all the same: the card is there, and connected to nothing.
    lab.reopen(|options| options.policy = policy(&[]));
    within(lab.driver().stop(&name, StopMode::Forced, &quiet))
        .await
        .unwrap();
    within(lab.driver().start(&name, &quiet)).await.unwrap();
    let seen = lab.inspect("bridged").await;
    let why = seen.networks[0].message.as_deref().unwrap();
    assert!(
        why.contains("policy does not let VMs on its network `br0`"),
        "{why}"
    );
    assert_eq!(lab.shell("bridged").await.run(address).await, MAC);

    lab.reopen(|options| options.policy = policy(&["br0"]));
    within(lab.driver().restart(&name, &quiet)).await.unwrap();
    let seen = lab.inspect("bridged").await;
    assert_eq!(seen.networks[0].message, None);
    let mut shell = lab.shell("bridged").await;
    assert_eq!(shell.run(address).await, MAC);
    assert_eq!(shell.run(serve).await, "serves");
    assert!(heard_by_the_bridge().await.contains("by-the-bridge"));
}
