//! `set`: a VM's size, what is written about it, and what is done about it by itself.

use batwa_api::{
    Timestamp,
    vm::{
        IdleStop, LifetimeEnd, LifetimeWanted, ResizeOptions, RestartPolicy, SettingsChange,
        UpdateVm, Vm,
    },
};

use super::snapshots;
use crate::{
    cli::{AboutArgs, SetArgs, SettingsArgs},
    client::{Client, VmRef},
    failure::Failure,
    output::{age, say},
};

/// `batwa set`
pub(crate) async fn set(args: SetArgs) -> Result<(), Failure> {
    let settings = settings(&args.settings);
    let update = about(args.about, settings);
    let size = ResizeOptions {
        cpus: args.size.cpus,
        memory: args.size.memory,
        disk: args.size.disk,
        stop: args.off.stop,
    };
    let client = Client::new(args.off.master.clone())?;
    let vm = client.find(&args.vm).await?;
    if update != UpdateVm::default() {
        client.patch(&path(&vm), &update).await?;
        say(&format!("VM `{vm}` is changed"));
    }
    if size.cpus.is_some() || size.memory.is_some() || size.disk.is_some() {
        snapshots::act(&client, &vm, "resize", &size, &args.off).await?;
    }
    Ok(())
}

fn path(vm: &VmRef) -> [&str; 4] {
    ["agents", vm.agent.as_str(), "vms", vm.name.as_str()]
}

fn about(args: AboutArgs, settings: SettingsChange) -> UpdateVm {
    let set = args
        .labels
        .into_iter()
        .map(|(key, value)| (key, Some(value)));
    let removed = args.remove_labels.into_iter().map(|key| (key, None));
    UpdateVm {
        display_name: args.display_name,
        notes: args.notes,
        labels: removed.chain(set).collect(),
        settings: Some(settings).filter(|change| !change.is_empty()),
    }
}

/// What was said of what is to be done about a VM by itself.
pub(super) fn settings(args: &SettingsArgs) -> SettingsChange {
    let protected = match (args.protect, args.unprotect) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        (false, false) => None,
    };
    SettingsChange {
        protected,
        autostart: args
            .autostart
            .map(|autostart| autostart.on().map(|autostart| autostart.0)),
        restart: args.restart,
        lifetime: args.lifetime.map(|lifetime| {
            lifetime.on().map(|lifetime| LifetimeWanted {
                after_s: lifetime.0.as_secs(),
                end: args.at_end,
            })
        }),
        idle_stop: args.idle_stop.map(|idle| {
            idle.on().map(|idle| IdleStop {
                after_s: idle.0.as_secs(),
                below_percent: args.idle_below,
            })
        }),
    }
}

/// What is done about a VM by itself, for `batwa info`: one line a setting, then what people should know of them now.
pub(super) fn settings_facts(vm: &Vm, now: Timestamp) -> Vec<(&'static str, String)> {
    let settings = &vm.settings;
    let mut facts = Vec::new();
    if settings.protected {
        let what = "it can neither be deleted nor purged";
        facts.push(("Protected", what.to_owned()));
    }
    if let Some(autostart) = settings.autostart {
        facts.push((
            "Autostart",
            format!(
                "after its machine's boot, at place {}, {} s after it at the earliest",
                autostart.order, autostart.delay_s
            ),
        ));
    }
    if settings.restart == RestartPolicy::OnCrash {
        facts.push(("Restart", "when it crashes".to_owned()));
    }
    if let Some(lifetime) = settings.lifetime {
        let what = match lifetime.end {
            LifetimeEnd::Stop => "stopped",
            LifetimeEnd::Delete => "moved to the trash",
        };
        let left = match lifetime.ends_at > now {
            true => format!("in {}", age(now, lifetime.ends_at)),
            false => "now".to_owned(),
        };
        facts.push((
            "Lifetime",
            format!("{what} {left}, at {:.0}", lifetime.ends_at),
        ));
    }
    if let Some(idle) = settings.idle_stop {
        facts.push((
            "Idle stop",
            format!(
                "after {} min with its processors below {} % and nobody inside",
                idle.after_s / 60,
                idle.below_percent
            ),
        ));
    }
    for notice in &vm.notices {
        let when = match notice.at > now {
            true => format!("in {}", age(now, notice.at)),
            false => format!("{} ago", age(notice.at, now)),
        };
        facts.push(("Note", format!("{} ({when})", notice.text)));
    }
    facts
}
