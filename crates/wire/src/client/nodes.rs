//! Calls about nodes. `node` is an id, an id prefix or a name everywhere.

use reqwest::Method;

use super::call::expecting;
use super::{Client, ClientError, Expect};
use crate::api::{AdoptableQuery, Command, GcWish, LabelPatch, Node, NodeFilter};

/// Nodes of one page.
const PAGE: usize = 500;

impl Client {
    /// The nodes, the oldest first.
    pub async fn nodes(&self, filter: NodeFilter) -> Result<Vec<Node>, ClientError> {
        // Without a limit the server would send them all at once.
        let request = self.get(&["api", "v1", "nodes"]).query(&filter);
        self.list(request.query(&[("limit", PAGE)])).await
    }

    /// One node.
    pub async fn node(&self, node: &str) -> Result<Node, ClientError> {
        self.call(self.get(&["api", "v1", "nodes", node])).await
    }

    /// Sets and removes labels.
    pub async fn label(
        &self,
        node: &str,
        patch: &LabelPatch,
        expect: Expect,
    ) -> Result<Node, ClientError> {
        let request = self.request(Method::PATCH, &["api", "v1", "nodes", node, "labels"]);
        self.call(expecting(request, expect).json(patch)).await
    }

    /// No new copies come.
    pub async fn cordon(&self, node: &str, expect: Expect) -> Result<Node, ClientError> {
        self.node_verb(node, "cordon", expect).await
    }

    /// New copies may come again.
    pub async fn uncordon(&self, node: &str, expect: Expect) -> Result<Node, ClientError> {
        self.node_verb(node, "uncordon", expect).await
    }

    /// Moves all copies away. Done when the node's state is `drained`.
    pub async fn drain(&self, node: &str, expect: Expect) -> Result<Node, ClientError> {
        self.node_verb(node, "drain", expect).await
    }

    /// Ends a drain, or what it led to.
    pub async fn undrain(&self, node: &str, expect: Expect) -> Result<Node, ClientError> {
        self.node_verb(node, "undrain", expect).await
    }

    /// Removes a node; `Force::GiveUpCopies` also one that has copies.
    pub async fn remove_node(
        &self,
        node: &str,
        force: Force,
        expect: Expect,
    ) -> Result<Node, ClientError> {
        let mut request = self.request(Method::DELETE, &["api", "v1", "nodes", node]);
        if force == Force::GiveUpCopies {
            request = request.query(&[("force", "true")]);
        }
        self.call(expecting(request, expect)).await
    }

    /// Orders the node to follow an intent that its mass-stop guard holds back.
    pub async fn accept(&self, node: &str) -> Result<Command, ClientError> {
        let request = self.request(Method::POST, &["api", "v1", "nodes", node, "accept"]);
        self.call(request).await
    }

    /// Orders the node to delete what it keeps of finished units.
    pub async fn cleanup(&self, node: &str) -> Result<Command, ClientError> {
        let request = self.request(Method::POST, &["api", "v1", "nodes", node, "cleanup"]);
        self.call(request).await
    }

    /// Orders the node to delete what nothing on it needs.
    pub async fn gc(&self, node: &str, wish: GcWish) -> Result<Command, ClientError> {
        let request = self.request(Method::POST, &["api", "v1", "nodes", node, "gc"]);
        self.call(request.query(&wish)).await
    }

    /// Orders the node to tell which containers it could adopt; the answer is the order's, as JSON.
    pub async fn adoptable(
        &self,
        node: &str,
        query: &AdoptableQuery,
    ) -> Result<Command, ClientError> {
        let request = self.request(Method::POST, &["api", "v1", "nodes", node, "adoptable"]);
        self.call(request.json(query)).await
    }

    /// The orders of a node, the newest last.
    pub async fn commands(&self, node: &str) -> Result<Vec<Command>, ClientError> {
        self.list(self.get(&["api", "v1", "nodes", node, "commands"]))
            .await
    }

    async fn node_verb(&self, node: &str, verb: &str, expect: Expect) -> Result<Node, ClientError> {
        let request = self.request(Method::POST, &["api", "v1", "nodes", node, verb]);
        self.call(expecting(request, expect)).await
    }
}

/// Whether a node's copies are given up with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Force {
    /// A node with copies is refused.
    #[default]
    No,
    /// Its copies are given up; their slots are vacant then.
    GiveUpCopies,
}
