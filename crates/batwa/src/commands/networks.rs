//! `networks`: those of a machine that new VMs can be put on.

use batwa_api::{
    id::AgentId,
    list::Items,
    vm::{HostNetwork, VmNetwork},
};

use crate::{
    cli::NetworksArgs,
    client::Client,
    failure::Failure,
    output::{self, Cell, Table},
};

/// `batwa networks`
pub(crate) async fn networks(args: NetworksArgs) -> Result<(), Failure> {
    let agent = AgentId::parse(&args.agent).map_err(Failure::usage)?;
    let client = Client::new(args.read.master)?;
    let answer = client
        .get(&["agents", agent.as_str(), "networks"], &[])
        .await?;
    output::show(args.read.format, &answer, || {
        let networks: Items<HostNetwork> = client.read(answer.clone())?;
        let mut table = Table::new(&["NAME", "TYPE", "DRIVER", "FOR VMS", "DESCRIPTION"]);
        for network in networks.items {
            let may = match network.refusal {
                None => Cell::of("yes", "yes"),
                Some(why) => Cell::of(format!("no: {why}"), "no"),
            };
            table.row([
                network.name.into(),
                network.kind.into(),
                network.driver.to_string().into(),
                may,
                network.description.into(),
            ]);
        }
        Ok(table)
    })
}

/// A network card in a line.
pub(super) fn words(network: &VmNetwork) -> String {
    let card = &network.card;
    let mac = card.mac.map_or_else(String::new, |mac| format!(", {mac}"));
    let why = network.message.as_deref();
    let why = why.map_or_else(String::new, |why| format!(", connected to nothing: {why}"));
    format!("{} ({}{mac}){why}", card.name, card.mode.as_str())
}
