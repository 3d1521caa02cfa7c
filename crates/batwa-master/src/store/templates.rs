//! Saved templates of user-data. The values of their secrets are sealed.

use std::collections::BTreeMap;

use batwa_api::{
    cloud_init::{Template, TemplateVariable},
    id::{TemplateId, UserId},
};
use sqlx::FromRow;

use super::{Store, StoreError, from_json, from_ms, on, parse, to_json, to_ms};

/// A template with what is not shown of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredTemplate {
    /// What is shown; `default` of its secrets is absent.
    pub(crate) template: Template,
    /// Who made it; `None` once that account is gone.
    pub(crate) owner_id: Option<UserId>,
    /// The values of its secrets.
    pub(crate) secrets: Secrets,
}

/// Values of secrets by name.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Secrets(pub(crate) BTreeMap<String, String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[derive(FromRow)]
struct TemplateRow {
    id: String,
    name: String,
    description: String,
    text: String,
    variables: String,
    secrets: String,
    owner_id: Option<String>,
    owner: Option<String>,
    created_at: i64,
    updated_at: i64,
}

impl TemplateRow {
    fn into_template(self) -> Result<(Template, Option<UserId>, String), StoreError> {
        let template = Template {
            id: parse("a template id", &self.id)?,
            name: self.name,
            description: self.description,
            text: self.text,
            variables: from_json::<Vec<TemplateVariable>>(
                "a template's variables",
                &self.variables,
            )?,
            owner: self.owner.unwrap_or_default(),
            created_at: from_ms(self.created_at)?,
            updated_at: from_ms(self.updated_at)?,
        };
        let owner = self
            .owner_id
            .map(|id| parse("a user id", &id))
            .transpose()?;
        Ok((template, owner, self.secrets))
    }
}

const COLUMNS: &str = "SELECT t.id, t.name, t.description, t.text, t.variables, t.secrets, t.owner_id, \
                       u.name AS owner, t.created_at, t.updated_at \
                       FROM templates t LEFT JOIN users u ON u.id = t.owner_id";

fn place(id: TemplateId) -> String {
    format!("templates:{id}")
}

impl Store {
    /// All templates by name, without their secrets.
    pub(crate) async fn templates(&self) -> Result<Vec<Template>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} ORDER BY t.name"));
        let rows: Vec<TemplateRow> = on!(self.db(), db => sqlx::query_as(sql).fetch_all(db).await)?;
        rows.into_iter()
            .map(|row| row.into_template().map(|(template, ..)| template))
            .collect()
    }

    /// One template with its secrets.
    pub(crate) async fn template(
        &self,
        id: TemplateId,
    ) -> Result<Option<StoredTemplate>, StoreError> {
        self.one_template("t.id = $1", &id.to_string()).await
    }

    /// The template of that name with its secrets.
    pub(crate) async fn template_by_name(
        &self,
        name: &str,
    ) -> Result<Option<StoredTemplate>, StoreError> {
        self.one_template("t.name = $1", name).await
    }

    async fn one_template(
        &self,
        condition: &'static str,
        value: &str,
    ) -> Result<Option<StoredTemplate>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE {condition}"));
        let row: Option<TemplateRow> = on!(self.db(), db => {
            sqlx::query_as(sql).bind(value).fetch_optional(db).await
        })?;
        let Some(row) = row else {
            return Ok(None);
        };
        let (template, owner_id, sealed) = row.into_template()?;
        let secrets = match sealed.as_str() {
            "" => BTreeMap::new(),
            _ => from_json(
                "a template's secrets",
                &self.vault().unseal(&place(template.id), sealed)?,
            )?,
        };
        Ok(Some(StoredTemplate {
            template,
            owner_id,
            secrets: Secrets(secrets),
        }))
    }

    /// How many templates there are.
    pub(crate) async fn count_templates(&self) -> Result<i64, StoreError> {
        let sql = "SELECT COUNT(*) FROM templates";
        Ok(on!(self.db(), db => sqlx::query_scalar(sql).fetch_one(db).await)?)
    }

    /// Adds a template, or writes it anew under the same id; false when another one has its name.
    pub(crate) async fn save_template(&self, stored: &StoredTemplate) -> Result<bool, StoreError> {
        let template = &stored.template;
        let secrets = match stored.secrets.0.is_empty() {
            true => String::new(),
            false => self
                .vault()
                .seal(&place(template.id), &to_json(&stored.secrets.0))?,
        };
        let sql = "INSERT INTO templates (id, name, description, text, variables, secrets, owner_id, created_at, updated_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                   ON CONFLICT (id) DO UPDATE SET name = excluded.name, description = excluded.description, \
                   text = excluded.text, variables = excluded.variables, secrets = excluded.secrets, \
                   updated_at = excluded.updated_at";
        let saved = on!(self.db(), db => {
            sqlx::query(sql)
                .bind(template.id.to_string())
                .bind(&template.name)
                .bind(&template.description)
                .bind(&template.text)
                .bind(to_json(&template.variables))
                .bind(secrets)
                .bind(stored.owner_id.map(|id| id.to_string()))
                .bind(to_ms(template.created_at))
                .bind(to_ms(template.updated_at))
                .execute(db)
                .await
                .map(drop)
        });
        match saved {
            Ok(()) => Ok(true),
            Err(error) if super::error::violated(&error, "templates_name", "templates.name") => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a template.
    pub(crate) async fn delete_template(&self, id: TemplateId) -> Result<(), StoreError> {
        let sql = "DELETE FROM templates WHERE id = $1";
        on!(self.db(), db => {
            sqlx::query(sql).bind(id.to_string()).execute(db).await.map(drop)
        })?;
        Ok(())
    }
}
