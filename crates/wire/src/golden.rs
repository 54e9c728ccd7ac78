//! What the golden tests of every contract ask of a message.

use std::fmt::Debug;

use prost::Message;

/// Encoding gives exactly these bytes, and they decode to the same message.
#[track_caller]
pub(crate) fn golden<M: Message + Default + PartialEq + Debug>(message: &M, bytes: &[u8]) {
    assert_eq!(message.encode_to_vec(), bytes, "{message:?}");
    assert_eq!(&M::decode(bytes).expect("the bytes decode"), message);
}
