//! `images`.

use batwa_api::{image::ListedImage, list::Items};

use crate::{
    cli::{Format, ImagesArgs},
    client::Client,
    failure::Failure,
    output::{self, Table, print_json},
};

/// `batwa images`
pub(crate) async fn run(args: ImagesArgs) -> Result<(), Failure> {
    let client = Client::new(args.read.master)?;
    let query: Vec<_> = args.agent.iter().map(|id| ("agent", id.as_str())).collect();
    let value = client.get(&["images"], &query).await?;
    if args.read.format == Format::Json {
        return print_json(&value);
    }
    let images: Items<ListedImage> = client.read(value)?;
    let mut table = Table::new(&[
        "IMAGE", "ALIASES", "MACHINE", "DRIVER", "DOWNLOAD", "TITLE", "ORIGIN",
    ]);
    for ListedImage { agent_id, image } in images.items {
        table.row([
            image.name,
            image.aliases.join(", "),
            agent_id.to_string(),
            image.driver.to_string(),
            match (image.cached, image.download_size) {
                (true, _) => "none: it is here".to_owned(),
                (false, Some(size)) => size.to_string(),
                (false, None) => String::new(),
            },
            image.title,
            image.origin,
        ]);
    }
    output::print(&table.render())
}
