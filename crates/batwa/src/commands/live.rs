//! What a shell completes with: names that the master knows just now.
//!
//! A shell waits for this at a key press, so everything has one short deadline, and whatever goes wrong is no
//! completion rather than an error on the person's line.

use std::{collections::BTreeMap, ffi::OsStr, time::Duration};

use batwa_api::{
    agent::Agent,
    cloud_init::Template,
    image::ListedImage,
    list::Items,
    operation::Operation,
    vm::{ListedVm, VmDetails},
};
use clap::Parser;
use clap_complete::engine::CompletionCandidate;

use super::templates::about;
use crate::{
    cli::MasterArgs,
    client::{Client, KnownMasters},
    failure::Failure,
    output::plain,
};

/// How long a person waits at the key.
const DEADLINE: Duration = Duration::from_secs(1);
/// Most values that are shown; who has more types more.
const MOST: usize = 200;

/// VMs: `name`, or `agent/name` once that was begun or where several machines have one.
pub(crate) fn vms(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else {
        return Vec::new();
    };
    let listed = asked(async |client| {
        let (agent, name) = match typed.split_once('/') {
            Some((agent, name)) => (Some(agent), name),
            None => (None, typed),
        };
        let search = search_for(name);
        let mut query = vec![("q", search.as_str())];
        query.extend(agent.map(|agent| ("agent", agent)));
        let items = client.list(&["vms"], &query, MOST).await?;
        items
            .into_iter()
            .map(|item| client.read::<ListedVm>(item))
            .collect::<Result<Vec<_>, _>>()
    });
    let listed = listed.unwrap_or_default();
    let mut machines: BTreeMap<&str, usize> = BTreeMap::new();
    for vm in &listed {
        *machines.entry(vm.vm.name.as_str()).or_default() += 1;
    }
    let values = listed.iter().map(|vm| {
        let name = vm.vm.name.as_str();
        let alone = machines.get(name) == Some(&1) && !typed.contains('/');
        let value = if alone {
            name.to_owned()
        } else {
            format!("{}/{name}", vm.agent_id)
        };
        (value, format!("{}, on {}", vm.vm.state, vm.agent_id))
    });
    candidates(typed, values)
}

/// Snapshots of the VM that was typed up to its last dot; VMs before there is one.
pub(crate) fn snapshots(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some((vm, _)) = typed.to_str().and_then(|typed| typed.rsplit_once('.')) else {
        return vms(typed)
            .into_iter()
            .map(|vm| {
                let mut value = vm.get_value().to_owned();
                value.push(".");
                CompletionCandidate::new(value).help(vm.get_help().cloned())
            })
            .collect();
    };
    let found = asked(async |client| {
        let found = client.find(vm).await?;
        let path = ["agents", found.agent.as_str(), "vms", found.name.as_str()];
        client.read::<VmDetails>(client.get(&path, &[]).await?)
    });
    let snapshots = found.map(|details| details.vm.vm.snapshots.clone());
    let values = snapshots
        .into_iter()
        .flatten()
        .map(|snapshot| (format!("{vm}.{}", snapshot.name), snapshot.comment));
    candidates(typed.to_str().unwrap_or_default(), values)
}

/// Machines.
pub(crate) fn machines(typed: &OsStr) -> Vec<CompletionCandidate> {
    let agents = asked(async |client| {
        let items = client.list(&["agents"], &[], MOST).await?;
        items
            .into_iter()
            .map(|item| client.read::<Agent>(item))
            .collect::<Result<Vec<_>, _>>()
    });
    let values = agents.into_iter().flatten().map(|agent| {
        let about = format!("{}, {}", agent.name, agent.status.as_str());
        (agent.id.to_string(), about)
    });
    candidates(typed.to_str().unwrap_or_default(), values)
}

/// Images, each once however many machines have it.
pub(crate) fn images(typed: &OsStr) -> Vec<CompletionCandidate> {
    let images = asked(async |client| {
        let images: Items<ListedImage> = client.read(client.get(&["images"], &[]).await?)?;
        Ok(images.items)
    });
    let named: BTreeMap<String, String> = images
        .into_iter()
        .flatten()
        .map(|listed| (listed.image.name, listed.image.title))
        .collect();
    candidates(typed.to_str().unwrap_or_default(), named)
}

/// Operations.
pub(crate) fn operations(typed: &OsStr) -> Vec<CompletionCandidate> {
    let operations = asked(async |client| {
        let items = client.list(&["operations"], &[], MOST).await?;
        items
            .into_iter()
            .map(|item| client.read::<Operation>(item))
            .collect::<Result<Vec<_>, _>>()
    });
    let values = operations.into_iter().flatten().map(|operation| {
        let about = format!(
            "{} {}, {}",
            operation.kind.as_str().replace('_', " "),
            operation.place(),
            operation.state.as_str()
        );
        (operation.id.to_string(), about)
    });
    candidates(typed.to_str().unwrap_or_default(), values)
}

/// Templates.
pub(crate) fn templates(typed: &OsStr) -> Vec<CompletionCandidate> {
    let templates = asked(async |client| {
        let found: Items<Template> = client.read(client.get(&["templates"], &[]).await?)?;
        Ok(found.items)
    });
    let templates = templates.unwrap_or_default();
    candidates(
        typed.to_str().unwrap_or_default(),
        templates.iter().map(about),
    )
}

/// Masters that were signed in to.
pub(crate) fn masters(typed: &OsStr) -> Vec<CompletionCandidate> {
    let known = KnownMasters::load().unwrap_or_default();
    let values = known
        .masters
        .iter()
        .map(|(name, master)| (name.clone(), master.url.to_string()));
    candidates(typed.to_str().unwrap_or_default(), values)
}

/// Names that begin with what was typed. Other characters than names have would be a search of their own.
fn search_for(typed: &str) -> String {
    let plain = typed
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    match typed {
        "" => String::new(),
        typed if plain => format!("name:{typed}*"),
        _ => "name=\"\"".to_owned(),
    }
}

/// Those values that go on from what was typed, with a word about each.
fn candidates(
    typed: &str,
    values: impl IntoIterator<Item = (String, String)>,
) -> Vec<CompletionCandidate> {
    values
        .into_iter()
        // A shell's line is no place for what could be anything but a name.
        .filter(|(value, _)| value.starts_with(typed) && !value.contains(char::is_control))
        .take(MOST)
        .map(|(value, about)| {
            let about = plain(&about);
            CompletionCandidate::new(value).help((!about.is_empty()).then(|| about.into()))
        })
        .collect()
}

/// What the master says, if it says it in time.
fn asked<T>(ask: impl AsyncFnOnce(&Client) -> Result<T, Failure>) -> Option<T> {
    /// The command line that is completed may be incomplete: the environment alone says which master.
    #[derive(Parser)]
    struct FromEnvironment {
        #[command(flatten)]
        master: MasterArgs,
    }
    let args = FromEnvironment::try_parse_from(["batwa"]).ok()?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(DEADLINE, async {
            let client = Client::new(args.master)?;
            ask(&client).await
        })
        .await
    });
    // A name that is still being looked up holds a thread, which nobody waits for.
    runtime.shutdown_background();
    answer.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_no_search_of_its_own() {
        assert_eq!(search_for(""), "");
        assert_eq!(search_for("we"), "name:we*");
        assert_eq!(search_for("a b"), "name=\"\"");
        assert_eq!(search_for("x:y\""), "name=\"\"");
    }

    #[test]
    fn only_names_that_go_on_from_what_was_typed_are_shown() {
        let values = ["web", "we\u{1b}", "db"].map(|name| (name.to_owned(), "on\u{7}".to_owned()));
        let shown = candidates("we", values);
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].get_value(), "web");
        assert_eq!(
            shown[0].get_help().map(ToString::to_string).as_deref(),
            Some("on\u{fffd}")
        );
    }
}
