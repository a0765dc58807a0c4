//! The actions that a process can carry out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use stillpoint_context::{Effect, ErrorClass, ErrorCode, ErrorFacts, Subject};

use super::erased::Typed;
use super::{Action, AnyAction, EffectKind};

/// Why an action was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Another action has this name and version.
    #[error("action {name} version {version} is registered twice")]
    Duplicate {
        /// The name.
        name: &'static str,
        /// The version.
        version: u32,
    },
}

impl ErrorFacts for RegistryError {
    fn code(&self) -> ErrorCode {
        "action.duplicate".into()
    }
    fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }
    fn effect(&self) -> Effect {
        Effect::None
    }
    fn subjects(&self) -> Vec<Subject> {
        let Self::Duplicate { name, .. } = self;
        vec![Subject::new("action", name)]
    }
    fn remedy(&self) -> Cow<'static, str> {
        "Register each action once, or give the new one another version.".into()
    }
}

/// The actions that a process can carry out, by name and version.
#[derive(Debug, Clone, Default)]
pub struct ActionRegistry(pub(super) BTreeMap<(Cow<'static, str>, u32), Arc<dyn AnyAction>>);

impl ActionRegistry {
    /// No actions yet: enough for plans of closures.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an action.
    ///
    /// # Errors
    /// [`RegistryError::Duplicate`] when its name and version are taken.
    pub fn register<A: Action>(&mut self, action: A) -> Result<(), RegistryError> {
        match self.0.entry((Cow::Borrowed(A::NAME), A::VERSION)) {
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(Arc::new(Typed(Arc::new(action), PhantomData)));
                Ok(())
            }
            std::collections::btree_map::Entry::Occupied(_) => {
                Err(RegistryError::Duplicate { name: A::NAME, version: A::VERSION })
            }
        }
    }

    /// Names, versions and effects of all actions, in order.
    pub fn actions(&self) -> impl Iterator<Item = (&str, u32, EffectKind)> {
        self.0.iter().map(|((name, version), action)| (name.as_ref(), *version, action.effect()))
    }

    pub(crate) fn find(&self, name: &str, version: u32) -> Option<Arc<dyn AnyAction>> {
        self.0.get(&(Cow::Borrowed(name), version) as &(Cow<'_, str>, u32)).cloned()
    }
}
