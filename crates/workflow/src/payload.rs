//! Values at rest: parameters, inputs and outputs of steps.

use std::any::TypeId;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stillpoint_context::{Effect, ErrorClass, Failure};

/// A value as JSON text. Cheap to clone; the unit value costs nothing.
///
/// The engine keeps and moves payloads but never looks into them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Payload(Option<Arc<[u8]>>);

impl Payload {
    /// The unit value, `null`.
    pub const UNIT: Self = Self(None);

    /// The payload of a value.
    ///
    /// # Errors
    /// `value.encode` when the value cannot be written as JSON (a map whose keys are not text, say).
    pub fn of<T: Serialize + 'static>(value: &T) -> Result<Self, Failure> {
        if TypeId::of::<T>() == TypeId::of::<()>() {
            return Ok(Self::UNIT);
        }
        let text = serde_json::to_vec(value).map_err(|error| {
            Failure::new("value.encode", ErrorClass::Internal, "a value cannot be written as JSON")
                .with_cause(error)
        })?;
        Ok(Self::from_json(text))
    }

    /// The value.
    ///
    /// # Errors
    /// `value.decode` when the text is not a `T`; effect none.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(self.as_bytes()).map_err(|error| {
            Failure::new("value.decode", ErrorClass::Internal, "a stored value is not of its type")
                .with_effect(Effect::None)
                .with_cause(error)
                .with_remedy("Run the version of the program that wrote it, or plan again.")
        })
    }

    /// A payload of this JSON text, unchecked: wrong text shows when it is [read](Self::read).
    pub fn from_json(text: impl Into<Arc<[u8]>>) -> Self {
        let text = text.into();
        if &*text == b"null" { Self::UNIT } else { Self(Some(text)) }
    }

    /// The list of these.
    pub(crate) fn list(items: impl IntoIterator<Item = Self>) -> Self {
        let mut text = vec![b'['];
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                text.push(b',');
            }
            text.extend_from_slice(item.as_bytes());
        }
        text.push(b']');
        Self::from_json(text)
    }

    /// The JSON text.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(b"null")
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.as_bytes().len())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(self.as_bytes()).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_json(String::deserialize(deserializer)?.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_unit_is_free() {
        let payload = Payload::of(&vec![1_u8, 2]).unwrap();
        assert_eq!(payload.read::<Vec<u8>>().unwrap(), [1, 2]);
        assert_eq!(Payload::of(&()).unwrap(), Payload::UNIT);
        assert_eq!(payload.read::<String>().unwrap_err().code, "value.decode");
        let stored = serde_json::to_string(&payload).unwrap();
        assert_eq!(serde_json::from_str::<Payload>(&stored).unwrap(), payload);
    }
}
