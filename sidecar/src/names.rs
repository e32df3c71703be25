//! Name resolution in the codespace while a session lasts: the [resolver hook](resolv) makes resolv.conf name our
//! [DNS responder](responder), which forwards queries to the codespace's resolvers or to the laptop.

pub(crate) mod resolv;
pub(crate) mod responder;
