//! Lists as the master answers them: a page of items, where the next page starts, and counts.
//!
//! Counts are of everything that the filters match, not of the page.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent::{Agent, AgentStatus},
    id::AgentId,
    operation::{Operation, OperationState},
    vm::{ListedVm, VmState},
};

/// A list that is short enough to come whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Items<T> {
    /// All of them.
    pub items: Vec<T>,
}

impl<T> From<Vec<T>> for Items<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items }
    }
}

/// Answer to the master's `GET /api/v1/vms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VmList {
    /// This page.
    pub items: Vec<ListedVm>,
    /// What to give as `cursor` for the next page; `null` on the last.
    #[serde(default)]
    pub next_cursor: Option<String>,
    /// Counts over all pages.
    pub counts: VmCounts,
}

/// How many VMs the filters match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct VmCounts {
    /// All that the filters match.
    pub total: u64,
    /// In each state, whatever `state` asks for; states with none are absent.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub states: BTreeMap<VmState, u64>,
    /// On each agent, whatever the search asks of agents; those with most first, at most 100. Only when asked for by
    /// `counts=agents`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<Vec<AgentVmCount>>,
    /// With each label; those that most VMs have first, of the 200 commonest. Only when asked for by `counts=labels`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<LabelCount>>,
}

/// How many VMs the filters match on one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentVmCount {
    /// The agent.
    pub id: AgentId,
    /// What people call it.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// How many VMs the filters match with one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LabelCount {
    /// The label's key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// How many.
    pub count: u64,
}

/// Answer to the master's `GET /api/v1/agents`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentList {
    /// This page.
    pub items: Vec<Agent>,
    /// What to give as `cursor` for the next page; `null` on the last.
    #[serde(default)]
    pub next_cursor: Option<String>,
    /// Counts over all pages.
    pub counts: AgentCounts,
}

/// How many agents the filters match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct AgentCounts {
    /// All that the filters match.
    pub total: u64,
    /// By status; those with none are absent.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub statuses: BTreeMap<AgentStatus, u64>,
}

/// Answer to the master's `GET /api/v1/operations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperationList {
    /// This page, the newest first.
    pub items: Vec<Operation>,
    /// What to give as `cursor` for the next page; `null` on the last.
    #[serde(default)]
    pub next_cursor: Option<String>,
    /// Counts over all pages.
    pub counts: OperationCounts,
}

/// How many operations the filters match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct OperationCounts {
    /// All that the filters match.
    pub total: u64,
    /// In each state, whatever `state` asks for; states with none are absent.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub states: BTreeMap<OperationState, u64>,
}
