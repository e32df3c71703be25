//! A codespace, as gh describes it.

use serde::Deserialize;

/// A codespace in gh's list. Fields that are missing there stay empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Codespace {
    /// The name that gh uses.
    pub name: String,
    /// The name for people.
    pub display_name: String,
    /// The owner.
    pub owner: String,
    /// The repository it was created from.
    pub repository: String,
    /// `Available`, `Shutdown`, …
    pub state: String,
    /// What is checked out in it.
    pub git_status: GitStatus,
    /// When it was used last (RFC 3339).
    pub last_used_at: String,
    /// The machine type.
    pub machine_name: String,
}

/// What is checked out in a codespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GitStatus {
    /// The branch, tag or commit.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Whether there are uncommitted changes.
    pub has_uncommitted_changes: bool,
}
