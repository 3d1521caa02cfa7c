//! `images`.

use batwa_api::{image::ListedImage, list::Items};

use crate::{
    cli::ImagesArgs,
    client::Client,
    failure::Failure,
    output::{self, Cell, Table},
};

/// `batwa images`
pub(crate) async fn run(args: ImagesArgs) -> Result<(), Failure> {
    let client = Client::new(args.read.master)?;
    let query: Vec<_> = args.agent.iter().map(|id| ("agent", id.as_str())).collect();
    let value = client.get(&["images"], &query).await?;
    output::show(args.read.format, &value, || {
        let images: Items<ListedImage> = client.read(value.clone())?;
        let mut table = Table::new(&[
            "IMAGE", "ALIASES", "MACHINE", "DRIVER", "DOWNLOAD", "TITLE", "ORIGIN",
        ]);
        for ListedImage { agent_id, image } in images.items {
            table.row([
                image.name.into(),
                image.aliases.join(", ").into(),
                agent_id.to_string().into(),
                image.driver.to_string().into(),
                match image.cached {
                    true => Cell::of("none: it is here", "0"),
                    false => Cell::size(image.download_size),
                },
                image.title.into(),
                image.origin.into(),
            ]);
        }
        Ok(table)
    })
}
