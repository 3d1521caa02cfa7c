//! `ssh-keys`: one's own keys, which are put into the VMs one makes.

use batwa_api::{
    Timestamp,
    list::Items,
    ssh_key::{AddSshKey, SshKey},
};

use super::templates::read;
use crate::{
    cli::{SshKeysArgs, SshKeysTask},
    client::Client,
    failure::{Exit, Failure},
    output::{self, Cell, Table, plain, say},
};

/// `batwa ssh-keys`
pub(crate) async fn run(args: SshKeysArgs) -> Result<(), Failure> {
    match args.task {
        None => {
            let client = Client::new(args.read.master)?;
            let value = client.get(&["ssh-keys"], &[]).await?;
            output::show(args.read.format, &value, || {
                let keys: Items<SshKey> = client.read(value.clone())?;
                let now = Timestamp::now();
                let mut table = Table::new(&["ID", "NAME", "FINGERPRINT", "ADDED"]);
                for key in keys.items {
                    table.row([
                        key.id.to_string().into(),
                        key.name.into(),
                        key.fingerprint.into(),
                        Cell::ago(key.created_at, now),
                    ]);
                }
                Ok(table)
            })
        }
        Some(SshKeysTask::Add { file, name, master }) => {
            let public_key = read(&file)?;
            let client = Client::new(master)?;
            let body = AddSshKey { public_key, name };
            let key: SshKey = client.read(client.post(&["ssh-keys"], &body).await?)?;
            say(&plain(&format!(
                "`{}` ({}) is put into the VMs that you make from now on",
                key.name, key.fingerprint
            )));
            Ok(())
        }
        Some(SshKeysTask::Remove { key, master }) => {
            let client = Client::new(master)?;
            let keys: Items<SshKey> = client.read(client.get(&["ssh-keys"], &[]).await?)?;
            let meant: Vec<_> = keys
                .items
                .iter()
                .filter(|known| known.id.to_string() == key || known.name == key)
                .collect();
            let [meant] = meant.as_slice() else {
                return Err(match meant.len() {
                    0 => Failure::new(Exit::NotFound, format!("you have no SSH key `{key}`")),
                    _ => Failure::usage(format!("several keys are called `{key}`: give an id")),
                }
                .hint("`batwa ssh-keys` lists them"));
            };
            client
                .delete(&["ssh-keys", &meant.id.to_string()], &[])
                .await?;
            say(&plain(&format!(
                "`{}` is put into no more VMs; those that have it keep it",
                meant.name
            )));
            Ok(())
        }
    }
}
