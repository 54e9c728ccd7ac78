//! Tunnels: the two-way streams of errands inside copies. A tunnel leads from whoever asked, over the link of the
//! copy's node, to what is done there; nothing of it is kept on the way but the few words under way.
//!
//! Owned by whoever asked: dropping it ends the errand. What can fail: the copy is unknown, its node is not
//! connected or has no tunnels, the node refuses; and later, that the node or the connection goes.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use hostler_model::{AssignmentId, Errand, Exit, Refusal, TerminalSize, UnitId};
use tokio::sync::mpsc;

use crate::reach::Reached;
use crate::until::while_member;
use crate::{Control, refusals};

/// Opens tunnels to what runs on a node; each link says whether it can.
#[async_trait]
pub trait Tunnels: Send + Sync {
    /// Begins the errand. Bounded in time by the implementation.
    ///
    /// # Errors
    /// `node-unreachable`, and every refusal of the node.
    async fn open(&self, unit: UnitId, errand: Errand) -> Result<Tunnel, Refusal>;
}

/// An errand under way.
pub struct Tunnel {
    /// Takes few words; a node that takes none makes its sender wait. Closed once the node has ended the errand.
    pub said: mpsc::Sender<Said>,
    /// Ends with the errand; a refusal is its last word.
    pub told: BoxStream<'static, Result<Told, Refusal>>,
}

/// A word to the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// At most [`Tunnel::PIECE`] bytes.
    Bytes(Bytes),
    /// No more bytes come.
    EndOfBytes,
    Resize(TerminalSize),
}

/// A word of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Bytes(Bytes),
    /// Of a command's error output.
    ErrorBytes(Bytes),
    /// No more bytes come.
    EndOfBytes,
    /// How the command ended.
    Exited(Exit),
}

impl Tunnel {
    /// The most bytes of one word.
    pub const PIECE: usize = 32 * 1024;
}

pub(crate) async fn open(
    control: &Control,
    assignment: AssignmentId,
    errand: Errand,
) -> Result<Tunnel, Refusal> {
    let Reached {
        unit,
        node,
        name,
        link,
    } = Reached::find(control, assignment)?;
    let link = link.ok_or_else(|| refusals::unreachable(&name))?;
    let tunnels = link
        .tunnels()
        .ok_or_else(|| refusals::no_tunnels(&name, &errand.task))?;
    let Tunnel { said, told } = tunnels.open(unit, errand).await?;
    let told = while_member(control, (node, name), told);
    Ok(Tunnel { said, told })
}
