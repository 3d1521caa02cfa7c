//! What admins decide for the whole of Batwa, by name.

use super::{Store, StoreError, from_json, on, to_json};

impl Store {
    /// What was decided under `name`; `None` where nothing was.
    pub(crate) async fn setting<T: serde::de::DeserializeOwned>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let sql = "SELECT value FROM settings WHERE name = $1";
        let value: Option<String> = on!(self.db(), db => {
            sqlx::query_scalar(sql).bind(name).fetch_optional(db).await
        })?;
        value.map(|value| from_json(name, &value)).transpose()
    }

    /// Writes what was decided under `name`.
    pub(crate) async fn save_setting(
        &self,
        name: &'static str,
        value: &impl serde::Serialize,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO settings (name, value) VALUES ($1, $2) \
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        let value = to_json(value);
        on!(self.db(), db => {
            sqlx::query(sql).bind(name).bind(&value).execute(db).await.map(drop)
        })?;
        Ok(())
    }
}
