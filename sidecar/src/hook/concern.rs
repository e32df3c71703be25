//! What an event of the kernel means to a hook.

/// The gravest comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Concern {
    /// Nothing: it is the hook's own doing.
    None,
    /// The codespace's networks may have changed.
    Codespace,
    /// It may have a new bridge, whose containers' packets take the default route until there is a rule for it.
    Bridge,
    /// Another program may have damaged the hook.
    Damage,
}
