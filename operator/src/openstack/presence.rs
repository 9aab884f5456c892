//! Looking for a server: it is found, or proven to be gone; what is neither is an error that may pass.
//!
//! A gateway's 404, a cell of Nova that is down and a list that was cut all look like absence and prove nothing: they are
//! errors that may pass. A server is gone when Nova itself says so and its history, or a whole list, bears that out.

use serde::Deserialize;
use serde_json::Value;

use super::compute::call;
use super::error::{CloudError, ErrorKind};
use super::session::Cloud;
use crate::cloud::{Listed, Proof, Server, Sighting};

/// A server, if all of it is there. Of a cell that is down Nova gives half a record, from 2.69 on: status `UNKNOWN`,
/// without name, metadata and lock.
pub(super) fn whole_server(item: &Value) -> Option<Server> {
    let known = item.get("status").and_then(Value::as_str) != Some("UNKNOWN");
    let marks = item.get("metadata").is_some_and(Value::is_object);
    (known && marks).then(|| Server::deserialize(item).ok()).flatten()
}

impl Cloud {
    /// Looks for a server by its id: found, or proven to be gone.
    pub async fn look_for_server(&self, id: &str) -> Result<Sighting, CloudError> {
        Ok(match self.get_server(id).await? {
            Some(server) => Sighting::Found(Box::new(server)),
            None => Sighting::Gone(self.prove_server_gone(id).await?),
        })
    }

    /// After Nova's own 404: its history, which can be read after the deletion from 2.21 on, or else the whole list.
    async fn prove_server_gone(&self, id: &str) -> Result<Proof, CloudError> {
        let history = match self.server_actions(id).await {
            Err(error) if error.kind == ErrorKind::NotFound => vec![],
            other => other?,
        };
        if history.iter().any(|a| ["delete", "forceDelete"].contains(&a.action.as_str())) {
            return Ok(Proof::Deleted);
        }
        if !history.is_empty() {
            return Err(self.not_seen("get server", format!("server {id} is not found, but was not deleted")));
        }
        let list = self.list_servers().await?;
        if list.iter().any(|s| s.id == id) {
            return Err(self.not_seen("get server", format!("server {id} is not found, but is in the list")));
        }
        self.whole_list_of_servers(&list)?;
        Ok(Proof::NotListed { others: list.len() })
    }

    /// An error unless every server of the project was seen.
    pub fn whole_list_of_servers(&self, list: &Listed<Server>) -> Result<(), CloudError> {
        match (list.unread.len(), list.cut) {
            (0, false) => Ok(()),
            (0, true) => Err(self.not_seen("list servers", "the list is not whole")),
            (n, _) => Err(self.not_seen(
                "list servers",
                format!("the list is not whole: {n} servers cannot be read (Nova does not reach their cell)"),
            )),
        }
    }

    /// Half an answer: it is no fact, and may pass.
    pub fn not_seen(&self, action: &str, why: impl AsRef<str>) -> CloudError {
        CloudError::local(self.name(), action, ErrorKind::Transient, why)
    }

    /// All servers of the project. Of a list with several pages Nova leaves out the servers of cells that are down,
    /// except on the first page: that one is read once more at the end.
    pub async fn list_servers(&self) -> Result<Listed<Server>, CloudError> {
        let action = "list servers";
        let all = call(http::Method::GET, &["servers", "detail"]).version(self.server_version());
        let mut list = self.listed_by(action, "servers", "id", all.clone(), whole_server).await?;
        if list.pages > 1 {
            let first = self.page(action, "servers", all).await?.items;
            list.cut |= first.iter().any(|item| whole_server(item).is_none());
        }
        Ok(list)
    }
}
