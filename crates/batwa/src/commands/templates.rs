//! `templates`: saved user-data.

use std::{io::Read, path::Path};

use batwa_api::{
    Timestamp,
    cloud_init::{
        CheckCloudInit, CloudInitCheck, SaveTemplate, Severity, Template, TemplateVariable,
    },
    list::Items,
};

use crate::{
    ask,
    cli::{Format, SaveTemplateArgs, TemplatesArgs, TemplatesTask},
    client::Client,
    failure::{Exit, Failure},
    output::{self, Cell, Table, plain, say},
};

/// Longest file that is read: the master takes far less, and says so.
const MAX_FILE: u64 = 1 << 20;

/// `batwa templates`
pub(crate) async fn run(args: TemplatesArgs) -> Result<(), Failure> {
    match args.task {
        None => {
            let client = Client::new(args.read.master)?;
            let value = client.get(&["templates"], &[]).await?;
            output::show(args.read.format, &value, || {
                let templates: Items<Template> = client.read(value.clone())?;
                Ok(table(&templates.items))
            })
        }
        Some(TemplatesTask::Info { name, read }) => {
            let client = Client::new(read.master)?;
            let template = named(&client, &name).await?;
            if read.format == Format::Table {
                output::print(&describe(&template).render())?;
                let text: String = template
                    .text
                    .lines()
                    .map(|line| format!("{}\n", plain(line)))
                    .collect();
                return output::print(&format!("\n{text}"));
            }
            output::show(read.format, &template, || Ok(describe(&template)))
        }
        Some(TemplatesTask::Save(args)) => save(args).await,
        Some(TemplatesTask::Check { file, read }) => {
            let client = Client::new(read.master)?;
            check(&client, &file, read.format).await
        }
        Some(TemplatesTask::Delete {
            name,
            confirm,
            master,
        }) => {
            let client = Client::new(master)?;
            let template = named(&client, &name).await?;
            ask::confirm(confirm, &format!("Remove the template `{name}`?"))?;
            client
                .delete(&["templates", &template.id.to_string()], &[])
                .await?;
            say(&plain(&format!("template `{name}` is removed")));
            Ok(())
        }
    }
}

fn table(templates: &[Template]) -> Table {
    let now = Timestamp::now();
    let mut table = Table::new(&["NAME", "VARIABLES", "OWNER", "CHANGED", "DESCRIPTION"]);
    for template in templates {
        let variables: Vec<_> = template
            .variables
            .iter()
            .map(|variable| variable.name.as_str())
            .collect();
        table.row([
            template.name.as_str().into(),
            variables.join(", ").into(),
            template.owner.as_str().into(),
            Cell::ago(template.updated_at, now),
            template.description.as_str().into(),
        ]);
    }
    table
}

fn describe(template: &Template) -> Table {
    let now = Timestamp::now();
    let mut table = Table::of_facts();
    table.fact("Name", template.name.clone());
    for line in template.description.lines() {
        table.fact("For", line);
    }
    table.fact("Owner", template.owner.clone());
    table.fact("Changed", Cell::ago(template.updated_at, now));
    for variable in &template.variables {
        let value = match (&variable.default, variable.secret, variable.has_default) {
            (_, true, true) => " (a secret, with a value)".to_owned(),
            (_, true, false) => " (a secret, to be given)".to_owned(),
            (Some(default), false, _) => format!(" = {default}"),
            (None, false, _) => " (to be given)".to_owned(),
        };
        let words = match variable.description.as_str() {
            "" => format!("{}{value}", variable.name),
            text => format!("{}{value}: {text}", variable.name),
        };
        table.fact("Variable", words);
    }
    table
}

/// The template of that name.
async fn named(client: &Client, name: &str) -> Result<Template, Failure> {
    find(client, name).await?.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no template `{name}`"))
            .hint("`batwa templates` lists them")
    })
}

async fn find(client: &Client, name: &str) -> Result<Option<Template>, Failure> {
    let templates: Items<Template> = client.read(client.get(&["templates"], &[]).await?)?;
    Ok(templates
        .items
        .into_iter()
        .find(|template| template.name == name))
}

/// Saves a new template or changes the one of that name, of which what is not said stays.
async fn save(args: SaveTemplateArgs) -> Result<(), Failure> {
    let text = read(&args.file)?;
    let client = Client::new(args.master)?;
    let before = find(&client, &args.name).await?;
    let described = |name: &str| {
        let variables = before.iter().flat_map(|before| &before.variables);
        variables.clone().find(|known| known.name == name).cloned()
    };
    let variable = |(name, default): (String, Option<String>), secret: bool| {
        let known = described(&name);
        TemplateVariable {
            description: known
                .as_ref()
                .map(|known| known.description.clone())
                .unwrap_or_default(),
            // Said again without a value, a secret keeps the one that it has.
            has_default: default.is_some()
                || known.is_some_and(|known| secret && known.secret && known.has_default),
            name,
            default,
            secret,
        }
    };
    let plain_ones = args
        .variables
        .into_iter()
        .map(|given| variable(given, false));
    let secrets = args.secrets.into_iter().map(|given| variable(given, true));
    let body = SaveTemplate {
        name: args.name.clone(),
        description: args
            .description
            .or_else(|| before.as_ref().map(|before| before.description.clone()))
            .unwrap_or_default(),
        text,
        variables: plain_ones.chain(secrets).collect(),
    };
    match &before {
        Some(before) => {
            let id = before.id.to_string();
            client.put(&["templates", &id], &body).await?;
            say(&plain(&format!("template `{}` is changed", args.name)));
        }
        None => {
            client.post(&["templates"], &body).await?;
            say(&plain(&format!("template `{}` is saved", args.name)));
        }
    }
    Ok(())
}

async fn check(client: &Client, file: &Path, format: Format) -> Result<(), Failure> {
    let body = CheckCloudInit {
        text: read(file)?,
        variables: None,
    };
    let value = client.post(&["cloud-init", "check"], &body).await?;
    let checked: CloudInitCheck = client.read(value.clone())?;
    if format == Format::Table && checked.findings.is_empty() {
        say("nothing is wrong with it");
        return Ok(());
    }
    output::show(format, &value, || {
        let mut table = Table::new(&["LINE", "SEVERITY", "MESSAGE"]);
        for finding in &checked.findings {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            table.row([
                finding
                    .line
                    .map(|line| line.to_string())
                    .unwrap_or_default(),
                severity.to_owned(),
                finding.message.clone(),
            ]);
        }
        Ok(table)
    })?;
    if checked.valid {
        Ok(())
    } else {
        Err(Failure::usage("no VM can be made with it"))
    }
}

/// What is in a file, or comes on standard input.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot read {}: {error}", path.display()))
    };
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(MAX_FILE)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
    };
    read.map_err(|error| cannot(&error))?;
    Ok(text)
}

/// What the shell completes with.
pub(super) fn about(template: &Template) -> (String, String) {
    (template.name.clone(), template.description.clone())
}
