//! Networks of the machine that Multipass' VMs are put on.

use batwa_agent::{
    driver::{
        Driver, DriverError, Progress,
        multipass::{Multipass, Settings},
    },
    policy::PolicyFile,
};
use batwa_api::{policy::Policy, vm::VmSpec};

use crate::stand_in::{StandIn, name, spec};

/// A driver whose VMs may be put on these networks.
fn driver(multipass: &StandIn, bridges: &[&str]) -> Multipass {
    Multipass::new(Settings {
        policy: PolicyFile::fixed(Policy {
            bridges: bridges.iter().map(|name| (*name).to_owned()).collect(),
            ..Policy::default()
        }),
        ..multipass.settings()
    })
}

fn on(networks: &[&str]) -> VmSpec {
    VmSpec {
        networks: networks.iter().map(|card| card.parse().unwrap()).collect(),
        ..spec()
    }
}

#[tokio::test]
async fn what_multipass_lists_is_listed_and_a_launch_names_it() {
    let multipass = StandIn::new();
    let driver = driver(&multipass, &["docker0", "eth0"]);
    let listed = driver.networks().await.unwrap();
    let told: Vec<_> = listed
        .iter()
        .map(|network| {
            (
                network.name.as_str(),
                network.kind.as_str(),
                network.description.as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("docker0", "bridge", "Network bridge"),
            ("eth0", "ethernet", "Ethernet device"),
            ("mpqemubr0", "bridge", "Network bridge"),
        ]
    );
    let spec = on(&["docker0", "eth0,mode=manual,mac=52:54:00:00:00:07"]);
    driver.check(&name("web"), &spec).await.unwrap();
    driver
        .create(&name("web"), &spec, &Progress::ignored())
        .await
        .unwrap();
    let launches: Vec<String> = multipass
        .lines_after(0)
        .into_iter()
        .filter(|line| line.starts_with("launch"))
        .collect();
    let asked = "--network name=docker0,mode=auto --network name=eth0,mode=manual,mac=52:54:00:00:00:07 24.04";
    assert!(
        launches.len() == 1 && launches[0].ends_with(asked),
        "{launches:?}"
    );
}

#[tokio::test]
async fn a_network_that_is_not_there_or_not_allowed_is_refused_before_the_launch() {
    let multipass = StandIn::new();
    let driver = driver(&multipass, &["nosuchbr"]);
    let unknown = on(&["nosuchbr"]);
    let refused = driver.check(&name("web"), &unknown).await.unwrap_err();
    assert!(
        matches!(
            refused,
            DriverError::Invalid {
                field: "networks",
                ..
            }
        ),
        "{refused}"
    );
    for network in ["eth0", "bridged"] {
        let refused = driver
            .check(&name("web"), &on(&[network]))
            .await
            .unwrap_err();
        assert!(matches!(refused, DriverError::Policy(_)), "{refused}");
        let quiet = Progress::ignored();
        let refused = driver
            .create(&name("web"), &on(&[network]), &quiet)
            .await
            .unwrap_err();
        assert!(matches!(refused, DriverError::Policy(_)), "{refused}");
    }
    assert_eq!(multipass.count("launch"), 0);
    // It may have gone away since it was looked at: then Multipass itself says so.
    let refused = driver
        .create(&name("web"), &unknown, &Progress::ignored())
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            DriverError::Invalid {
                field: "networks",
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(multipass.count("launch"), 1);
}
