//! `batwa transfer`: files and folders between here and VMs, in Multipass' words.

mod folder;
mod get;
mod put;

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Method, RequestBuilder, Response, StatusCode};

use super::{below, find};
use crate::{
    cli::TransferArgs,
    client::{Client, VmRef},
    failure::{Exit, Failure},
};

/// A transfer has no length that could be known beforehand; what stands still is ended by the agent.
const NO_END: Duration = Duration::from_secs(7 * 24 * 3600);

/// One end of a transfer.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A file or folder here.
    Here(PathBuf),
    /// Standard input or output.
    Pipe,
    /// A path in a VM; an empty one is the account's home.
    Inside(String, String),
}

impl Place {
    fn read(text: &str) -> Self {
        if text == "-" {
            return Self::Pipe;
        }
        match text.split_once(':') {
            Some((vm, path))
                if !vm.is_empty()
                    && !vm.starts_with(['.', '/', '~'])
                    && vm.matches('/').count() <= 1 =>
            {
                Self::Inside(vm.to_owned(), path.to_owned())
            }
            _ => Self::Here(text.into()),
        }
    }
}

/// `batwa transfer`
pub(crate) async fn transfer(args: TransferArgs) -> Result<(), Failure> {
    let client = Client::new(args.master)?;
    let mut places: Vec<Place> = args.places.iter().map(|text| Place::read(text)).collect();
    let Some(target) = places.pop() else {
        return Err(Failure::usage("say from where and to where"));
    };
    let several = places.len() > 1;
    let how = How {
        recursive: args.recursive,
        parents: args.parents,
        several,
    };
    for source in places {
        match (source, &target) {
            (Place::Inside(vm, path), Place::Here(_) | Place::Pipe) => {
                let remote = Remote::new(&client, &vm, path).await?;
                get::get(&remote, &target, how).await?;
            }
            (source @ (Place::Here(_) | Place::Pipe), Place::Inside(vm, path)) => {
                let remote = Remote::new(&client, vm, path.clone()).await?;
                put::put(&source, remote, how).await?;
            }
            (Place::Inside(..), Place::Inside(..)) => {
                return Err(Failure::usage("a transfer is between here and a VM").hint(
                    "from VM to VM: `batwa transfer one:file - | batwa transfer - other:file`",
                ));
            }
            _ => {
                return Err(Failure::usage("neither end is in a VM")
                    .hint("a path in a VM is written `VM:PATH` or `AGENT/VM:PATH`"));
            }
        }
    }
    Ok(())
}

/// How to transfer.
#[derive(Debug, Clone, Copy)]
struct How {
    /// Folders too.
    recursive: bool,
    /// Make folders that are missing.
    parents: bool,
    /// More than one source: the target is a folder.
    several: bool,
}

/// A path in a VM.
struct Remote<'a> {
    client: &'a Client,
    vm: VmRef,
    path: String,
}

/// What is at a path in a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nothing,
    File,
    Folder,
}

impl<'a> Remote<'a> {
    async fn new(client: &'a Client, vm: &str, path: String) -> Result<Self, Failure> {
        let vm = find(client, vm).await?;
        // The home itself.
        let path = if path.is_empty() {
            ".".to_owned()
        } else {
            path
        };
        Ok(Self { client, vm, path })
    }

    fn request(&self, method: Method, query: &[(&str, &str)]) -> RequestBuilder {
        let mut all = vec![("path", self.path.as_str())];
        all.extend_from_slice(query);
        self.client
            .request(method, &below(&self.vm, "files"), &all)
            .timeout(NO_END)
    }

    /// What is there, asked without moving anything.
    async fn kind(&self) -> Result<Kind, Failure> {
        let answer = self.request(Method::HEAD, &[]).send().await;
        let answer = answer.map_err(|error| self.client.unreachable(error))?;
        match answer.status() {
            status if status.is_success() => Ok(Kind::File),
            StatusCode::NOT_FOUND => {
                // A VM that is not there says the same.
                self.client.get(&below(&self.vm, "")[..4], &[]).await?;
                Ok(Kind::Nothing)
            }
            StatusCode::UNPROCESSABLE_ENTITY => Ok(Kind::Folder),
            _ => Err(self.why(Method::HEAD).await),
        }
    }

    /// Why an answer without a body was a refusal: the same question with one.
    async fn why(&self, _: Method) -> Failure {
        match self
            .request(Method::GET, &[])
            .header("range", "bytes=0-")
            .send()
            .await
        {
            Ok(answer) if !answer.status().is_success() => self.refusal(answer).await,
            Ok(_) => Failure::new(Exit::Failed, format!("`{}` cannot be looked at", self.path)),
            Err(error) => self.client.unreachable(error),
        }
    }

    async fn refusal(&self, answer: Response) -> Failure {
        let status = answer.status();
        let body = answer.bytes().await.unwrap_or_default();
        self.client.refusal(status, &body)
    }

    /// The same VM with a name put behind the path.
    fn join(&self, name: &str) -> String {
        format!("{}/{name}", self.path.trim_end_matches('/'))
    }
}

/// The SHA-256 of a `Repr-Digest`, in hexadecimal.
fn digest_of(answer: &Response) -> Option<String> {
    let digest = answer.headers().get(batwa_api::file::header::DIGEST)?;
    let value = digest.to_str().ok()?.strip_prefix("sha-256=:")?;
    let sum = STANDARD.decode(value.strip_suffix(':')?).ok()?;
    Some(hex::encode(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_tells_vms_from_files() {
        let inside = |vm: &str, path: &str| Place::Inside(vm.to_owned(), path.to_owned());
        assert_eq!(Place::read("web:/etc/x"), inside("web", "/etc/x"));
        assert_eq!(Place::read("lab-1/web:x"), inside("lab-1/web", "x"));
        assert_eq!(Place::read("web:"), inside("web", ""));
        assert_eq!(Place::read("-"), Place::Pipe);
        for here in ["x", "./a:b", "/a:b", "a/b/c:d", ":x", "~/a:b"] {
            assert_eq!(Place::read(here), Place::Here(here.into()), "{here}");
        }
    }
}
